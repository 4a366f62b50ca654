import json

import numpy as np
import pytest

from streamvlm.memory.index import derived
from streamvlm.memory.index.held import NO_RECORDS, RECORD

RECORDS = np.array([(7, 0.1, 8.0, 1, 0, 60, 0), (9, 8.0, 16.3, 1, 2, 40, 60)], RECORD)


@pytest.fixture
def saved(tmp_path, units):
    keys = units(100).astype(np.float16)
    derived.save(tmp_path / "index", "s1", (keys[:60], keys[60:]), b"codes", RECORDS, 3)
    return tmp_path / "index", keys


def test_what_was_saved_is_read(saved):
    folder, keys = saved
    read = derived.load(folder, "s1", 32, 100)
    assert np.array_equal(read.keys, keys)
    assert read.index == b"codes"
    assert np.array_equal(read.records, RECORDS)
    assert read.rev == 3


def test_no_codes_are_none(tmp_path, units):
    derived.save(tmp_path, "s1", (units(3).astype(np.float16),), None, NO_RECORDS, 0)
    assert derived.load(tmp_path, "s1", 32, 3).index is None


def test_records_of_more_keys_than_there_are_are_not_taken(tmp_path, units, caplog):
    derived.save(tmp_path, "s1", (units(99).astype(np.float16),), None, RECORDS, 0)
    assert derived.load(tmp_path, "s1", 32, 100) is None
    assert "made again" in caplog.text


def test_nothing_saved_is_no_warning(tmp_path, caplog):
    assert derived.load(tmp_path, "s1", 32, 100) is None
    assert not caplog.records


def test_saving_again_replaces(saved, units):
    folder, keys = saved
    derived.save(folder, "s1", (keys, units(5).astype(np.float16)), b"new", RECORDS[:1], 4)
    read = derived.load(folder, "s1", 32, 200)
    assert (len(read.keys), read.index, len(read.records), read.rev) == (105, b"new", 1, 4)
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["s1.faiss", "s1.json", "s1.npy", "s1.rows"]


def damage_zero_page(path):
    path.write_bytes(bytes(64) + path.read_bytes()[64:])


def damage_flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def damage_cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def damage_empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("ending", ["npy", "faiss", "rows", "json"])
@pytest.mark.parametrize("damage", [damage_zero_page, damage_flip, damage_cut, damage_empty])
def test_damage_is_noticed_with_one_warning(saved, caplog, ending, damage):
    folder, _ = saved
    damage(folder / f"s1.{ending}")
    assert derived.load(folder, "s1", 32, 100) is None
    assert len(caplog.records) == 1
    assert "made again" in caplog.text


@pytest.mark.parametrize("ending", ["npy", "faiss", "rows", "json"])
def test_a_missing_file_is_as_none_at_all(saved, ending):
    folder, _ = saved
    (folder / f"s1.{ending}").unlink()
    assert derived.load(folder, "s1", 32, 100) is None


def test_the_files_of_another_shard_are_not_taken(saved):
    folder, _ = saved
    for path in list(folder.iterdir()):
        path.rename(folder / path.name.replace("s1", "s2"))
    assert derived.load(folder, "s2", 32, 100) is None


def test_more_keys_than_were_committed_are_not_taken(saved):
    assert derived.load(saved[0], "s1", 32, 99) is None


def test_keys_of_another_width_are_not_taken(saved):
    assert derived.load(saved[0], "s1", 64, 100) is None


def test_another_version_is_not_taken(saved):
    seal = saved[0] / "s1.json"
    seal.write_text(json.dumps({**json.loads(seal.read_text()), "version": 99}))
    assert derived.load(saved[0], "s1", 32, 100) is None
