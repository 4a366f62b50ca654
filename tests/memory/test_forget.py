"""What is forgotten is in no byte of the folder any more, whoever else uses the memory."""

import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.backup import back_up_catalog
from streamvlm.memory.forget import erase_all, forget
from streamvlm.memory.index import derived
from streamvlm.memory.index.held import NO_RECORDS
from streamvlm.memory.info import StreamInfo
from streamvlm.memory.maintain import maintaining
from streamvlm.memory.store import Memory, ShardLimits
from streamvlm.memory.survey import survey
from streamvlm.types import Coverage, Span
from tests.memory.writer_process import IDENTITY, record

ROOT = Path(__file__).parents[2]
SECRET = "/videos/planted secret.mp4"


def planted(number):
    """A record that says who it is in every part."""
    one = record(number)
    return replace(one, id=f"planted id {number}", stream=SECRET, thumbnail=b"planted thumbnail")


def traces(records):
    """Bytes by which a record is known wherever it is written."""
    found = {b"planted thumbnail", SECRET.encode(), b"planted secret"}
    for one in records:
        found |= {one.id.encode(), one.tokens.features[0].numpy().tobytes()}
        found |= {key.tobytes() for key in one.keys.astype(np.float16)}
    return found


def found_in(path, wanted):
    """Files of a folder in which one of some bytes is, with what."""
    files = [file for file in path.rglob("*") if file.is_file()]
    assert files
    return {(file.name, trace) for file in files for trace in wanted if trace in file.read_bytes()}


@contextmanager
def another_process(path, what, numbers):
    command = [sys.executable, "-m", "tests.memory.reader_process", path, what, numbers]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "ready\n"
        yield process
        process.stdin.close()


@pytest.fixture
def filled(path):
    """Planted records among others, in many shards, with index files and a backup of today."""
    limits = ShardLimits(max_keys=20)
    with Memory.create(path, IDENTITY, payload="raw", sync="process", limits=limits) as memory:
        for number in range(30):
            memory.append([record(number), planted(1000 + number)])
        coverage = Coverage(SECRET, (Span(0, 9, "sampled"),))
        memory.put_stream(StreamInfo(SECRET, 1, "digest", "{}", 9.0, coverage, True))
        memory.search(record(3).keys[0])
    for shard in sorted((path / "shards").iterdir())[:2]:
        keys = planted(1000).keys.astype(np.float16)
        derived.save(path / "index", shard.stem, [keys], b"planted secret", NO_RECORDS, 0)
    back_up_catalog(path)
    return path


def test_nothing_of_it_is_left_in_any_file(filled):
    """In shards, index, catalogue, its log, and its copies, while others read and write."""
    everything = traces(map(planted, range(1000, 1030)))
    assert {trace for _, trace in found_in(filled, everything)} == everything
    with another_process(filled, "read", "0-30") as reader:
        done = forget(filled, [SECRET])
        assert found_in(filled, everything) == set()
        reader.stdin.close()
        said = reader.stdout.read()
    assert "wrong" not in said
    assert "rounds" in said
    assert (done.streams, done.records) == ((SECRET,), 30)
    assert done.bytes > 30 * 64
    assert done.held.shards == 0
    with Memory.open(filled, writable=False) as memory:
        assert memory.ids() == [one.id for one in _by_stream(map(record, range(30)))]
        for one in memory.load(memory.ids()):
            assert torch.equal(one.tokens.features, record(int(one.id, 16)).tokens.features)
            assert memory.search(one.keys[0], limit=1)[0].id == one.id
    assert survey(filled).dead_bytes == 0


def _by_stream(records):
    return sorted(records, key=lambda one: (one.stream, one.start))


def test_before_takes_the_old_ones_of_one_stream_or_of_all(filled):
    old = forget(filled, [SECRET], before=1010)
    assert old.records == 10
    assert found_in(filled, {one.id.encode() for one in map(planted, range(1000, 1010))}) == set()
    with Memory.open(filled, writable=False) as memory:
        assert memory.ids(SECRET) == [f"planted id {number}" for number in range(1010, 1030)]
        assert memory.stream(SECRET) is not None
    done = forget(filled, before=10)
    assert (done.records, len(done.streams)) == (10, 4)
    with Memory.open(filled, writable=False) as memory:
        assert len(memory) == 60 - 20


def test_what_is_left_is_found_by_what_it_shows_although_its_anchor_is_gone(path):
    """The only record whose keys are all indexed is forgotten; its neighbours look the same."""
    view = record(1).keys
    with Memory.create(path, IDENTITY, payload="raw", sync="process") as memory:
        memory.append([replace(record(number), stream="s", keys=view) for number in range(1, 9)])
        memory.append([replace(record(number), stream="t") for number in range(20, 30)])
    forget(path, ["s"], before=5)
    with Memory.open(path, writable=False) as memory:
        assert memory.search(view[0], limit=1)[0].stream == "s"


def test_a_live_writer_of_another_process_is_named_and_goes_on(path):
    Memory.create(path, IDENTITY, payload="raw").close()
    with another_process(path, "write", "7") as writer:
        with Memory.open(path, sync="process") as memory:
            memory.append([planted(1000)])
        name = record(7).stream
        done = forget(path, [name])
        assert (done.records, done.held.shards) == (1, 1)
        assert done.held.bytes >= done.bytes
        writer.stdin.write("\n")
        writer.stdin.flush()
        assert writer.stdout.readline() == "ready\n"
        assert erase_all(path)[1].shards == 0
        open_files = Path(f"/proc/{writer.pid}/fd").iterdir()
        assert not [file for file in open_files if ".svm (deleted)" in str(file.readlink())]
        with Memory.open(path, writable=False) as memory:
            assert sorted(memory.ids()) == sorted([planted(1000).id, record(8).id])


def test_a_wrong_stream_and_nothing_to_forget_are_refused(filled):
    with pytest.raises(MemoryStoreError, match="has no stream other; name one of"):
        forget(filled, [SECRET, "other"])
    with pytest.raises(MemoryStoreError, match="nothing says what to forget"):
        forget(filled)
    assert survey(filled).records == 60


def test_while_another_process_maintains_nothing_is_forgotten(filled):
    with maintaining(filled), pytest.raises(MemoryStoreError, match="another process maintains"):
        forget(filled, [SECRET])
    assert survey(filled).records == 60


def test_what_rebuilds_backups_and_searches_left_behind_goes_too(filled):
    catalog = (filled / "catalog.db").read_bytes()
    for place in ("catalog.db.old", ".catalog.rebuild", "backup/.catalog-2026-01-01.db.draft"):
        (filled / place).write_bytes(catalog)
    keys = planted(1000).keys.astype(np.float16)
    derived.save(filled / "index", "a shard that is gone", [keys], b"planted secret", NO_RECORDS, 0)
    forget(filled, [SECRET])
    assert found_in(filled, traces([planted(1000)])) == set()


def test_no_id_is_left_of_many_that_came_and_went(path):
    """SQLite moves cells between pages; what it leaves behind is not to be found either."""
    with Memory.create(path, IDENTITY, payload="raw", sync="process") as memory:
        for first in range(0, 2000, 100):
            names = [f"{number * 7919 % 100_003:016x}" for number in range(first, first + 100)]
            memory.append(
                [replace(one, id=name) for one, name in zip(_small(), names, strict=True)]
            )
        gone = memory.ids("s0") + memory.ids("s1")
        left = memory.ids("s2")
    done = forget(path, ["s0", "s1"])
    assert done.records == len(gone)
    blob = (path / "catalog.db").read_bytes()
    assert all(uid.encode() in blob for uid in left)
    assert [uid for uid in gone if uid.encode() in blob] == []


def _small():
    return map(record, range(0, 4000, 40))
