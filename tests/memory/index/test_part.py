"""How a reader follows the catalogue: from index files, from what it held before, from shards."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from scripts.soak.records import IDENTITY, record, uid
from streamvlm.memory.disk.codec import pack
from streamvlm.memory.disk.packing import Packed
from streamvlm.memory.disk.rewrite import Kept, Replaced, remove_dead, rewrite
from streamvlm.memory.index import part
from streamvlm.memory.maintain import erase, maintaining
from streamvlm.memory.store import Memory, Novelty


@pytest.fixture(autouse=True)
def small_indexes(monkeypatch):
    """Index files are written of few keys already."""
    monkeypatch.setattr(part, "INDEX_FROM", 4)


@pytest.fixture
def filled(path):
    """A memory of one shard of 24 records of two streams; every key is indexed."""
    whole = Novelty(cosine=2.0)
    with Memory.create(path, IDENTITY, payload="raw", sync="process", novelty=whole) as memory:
        memory.append([record(number) for number in range(24)])
        memory.roll()
    return path


@pytest.fixture
def indexed(filled):
    """The same with index files."""
    with Memory.open(filled, writable=False) as reader:
        reader.search(record(0).keys[0])
    assert {file.suffix for file in (filled / "index").iterdir()} == {
        ".npy",
        ".faiss",
        ".rows",
        ".json",
    }
    return filled


def found(memory, numbers):
    """Which of these records are the best hit of each of their keys."""
    return [
        number
        for number in numbers
        if all(memory.search(key, limit=1)[0].id == uid(number) for key in record(number).keys)
    ]


def rewritten(path):
    """Write every record anew, byte for byte."""
    with maintaining(path, "process") as (catalog, reader):
        for shard in catalog.shards("sealed"):
            if held := catalog.held(shard.name):
                assert rewrite(path, catalog, reader, map(Kept, held), "process")
        remove_dead(path, catalog, reader)


def without_keys(path):
    """Zero the shards: no key can be read of them from now on."""
    for file in (path / "shards").iterdir():
        file.write_bytes(bytes(file.stat().st_size))


def test_index_files_say_all_that_a_search_needs_of_a_shard(indexed, caplog):
    without_keys(indexed)
    with Memory.open(indexed, writable=False) as reader:
        assert found(reader, range(24)) == list(range(24))
    assert not caplog.records


def test_index_files_are_of_use_although_records_were_forgotten_since(indexed, caplog):
    stream = record(3).stream
    with Memory.open(indexed) as memory:
        memory.forget(stream)
    without_keys(indexed)
    left = [number for number in range(24) if record(number).stream != stream]
    with Memory.open(indexed, writable=False) as reader:
        assert found(reader, left) == left
        assert all(hit.stream != stream for hit in reader.search(record(3).keys[0], limit=24))
    assert not caplog.records


def test_records_that_came_after_the_index_files_are_read_from_the_shard(path, caplog):
    whole = Novelty(cosine=2.0)
    with Memory.create(path, IDENTITY, payload="raw", sync="process", novelty=whole) as memory:
        memory.append([record(number) for number in range(12)])
        memory.search(record(0).keys[0])
        memory.append([record(number) for number in range(12, 24)])
        with Memory.open(path, writable=False) as reader:
            assert found(reader, range(24)) == list(range(24))
    assert not caplog.records


@pytest.mark.parametrize("ending", ["npy", "faiss", "rows", "json"])
def test_a_missing_index_file_changes_no_answer(indexed, ending):
    (file,) = (indexed / "index").glob(f"*.{ending}")
    file.unlink()
    with Memory.open(indexed, writable=False) as reader:
        assert found(reader, range(24)) == list(range(24))
    assert len(list((indexed / "index").iterdir())) == 4


@pytest.mark.parametrize("is_mapped", [True, False])
def test_what_is_written_anew_is_searched_by_the_keys_that_were_held(filled, is_mapped, caplog):
    if is_mapped:
        with Memory.open(filled, writable=False) as reader:
            reader.search(record(0).keys[0])
    with Memory.open(filled, writable=False) as reader:
        reader.search(record(0).keys[0])
        for _ in range(3):
            rewritten(filled)
            without_keys(filled)
            assert found(reader, range(24)) == list(range(24))
    assert not caplog.records


def test_what_is_written_anew_without_the_forgotten_is_searched(filled):
    stream = record(3).stream
    left = [number for number in range(24) if record(number).stream != stream]
    with Memory.open(filled) as memory:
        memory.search(record(0).keys[0])
        memory.forget(stream)
        erase(filled, sync="process")
        assert found(memory, left) == left
        memory.append([record(number) for number in range(100, 110)])
        erase(filled, sync="process")
        assert found(memory, [*left, *range(100, 110)]) == [*left, *range(100, 110)]


def test_a_merged_record_is_found_by_the_keys_it_has_now(filled):
    """It keeps its number, and may have as many keys as before."""
    other = replace(record(5), keys=record(1005).keys, tier=2)
    packed = Packed(other, [pack(other, "raw")], len(other.keys), is_anchor=True)
    with Memory.open(filled) as memory:
        memory.search(record(0).keys[0])
        with maintaining(filled, "process") as (catalog, reader):
            (shard,) = catalog.shards()
            pieces = [
                Replaced([row], packed) if row.segment.uid == uid(5) else Kept(row)
                for row in catalog.held(shard.name)
            ]
            assert rewrite(filled, catalog, reader, pieces, "process")
        assert found(memory, range(24)) == [number for number in range(24) if number != 5]
        assert memory.search(record(1005).keys[1], limit=1)[0].id == uid(5)


def test_no_deleted_index_file_stays_open_after_erase(indexed):
    """Its blocks would stay on the disk."""
    with Memory.open(indexed) as memory:
        memory.search(record(0).keys[0])
        memory.forget(record(3).stream, before=4)
        erase(indexed, sync="process")
        without_keys(indexed)
        assert found(memory, [1, 2, *range(4, 24)]) == [1, 2, *range(4, 24)]
        maps = Path("/proc/self/maps").read_text()
        assert [line for line in maps.splitlines() if str(indexed / "index") in line] == []


@pytest.mark.parametrize("before", [4, None])
def test_index_files_of_a_shard_written_anew_hold_nothing_of_the_forgotten(indexed, before):
    forgotten = record(3).stream
    gone = [
        record(number)
        for number in range(24)
        if record(number).stream == forgotten and (before is None or number < before)
    ]
    with Memory.open(indexed) as memory:
        memory.search(record(0).keys[0])
        memory.forget(forgotten, before=before)
        erase(indexed, sync="process")
        memory.search(record(0).keys[0])
        content = b"".join(file.read_bytes() for file in (indexed / "index").iterdir())
        assert not any(traces(one, content) for one in gone)
    with Memory.open(indexed, writable=False) as reader:
        reader.search(record(0).keys[0])
    content = b"".join(file.read_bytes() for file in (indexed / "index").iterdir())
    assert content
    assert not any(traces(one, content) for one in gone)


def traces(one, content):
    return any(key.astype(np.float16).tobytes() in content for key in one.keys)
