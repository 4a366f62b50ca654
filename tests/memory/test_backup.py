"""A copy of a memory is a memory; a half-made one is none."""

import os
import resource
import signal
import threading
from pathlib import Path

import pytest

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.audit import audit
from streamvlm.memory.backup import back_up_catalog, copy_memory
from streamvlm.memory.catalog.rows import Rows
from streamvlm.memory.disk.folder import is_memory
from streamvlm.memory.forget import forget
from streamvlm.memory.maintain import maintaining
from streamvlm.memory.store import Memory, ShardLimits, StreamInfo
from streamvlm.types import Coverage, Span

LIMITS = ShardLimits(max_keys=7)


@pytest.fixture
def to(tmp_path) -> Path:
    return tmp_path / "copies" / "lobby"


@pytest.fixture
def filled(path, identity, record):
    coverage = Coverage("/videos/a.mp4", (Span(0, 9, "sampled"),))
    with Memory.create(path, identity, payload="raw", sync="process", limits=LIMITS) as memory:
        for number in range(12):
            memory.append([record(number)])
        memory.put_stream(StreamInfo("/videos/a.mp4", 1, "digest", "{}", 9.0, coverage, True))
    return path


def test_a_copy_is_a_memory_that_equals_the_first(filled, to, record, same):
    told = []
    done = copy_memory(filled, to, lambda *numbers: told.append(numbers))
    assert (done.records, done.shards, done.linked, done.damaged) == (12, 3, 2, ())
    assert told[-1] == (done.bytes, done.bytes)
    assert list(audit(to)) == []
    with Memory.open(to, limits=LIMITS) as copy, Memory.open(filled) as first:
        assert copy.ids() == first.ids()
        assert copy.streams() == first.streams()
        assert copy.format == first.format
        for number in range(12):
            assert same(record(number), copy.load([record(number).id])[0])
        # Each goes on by itself.
        copy.append([record(20)])
        first.append([record(21)])
        assert record(21).id not in copy.ids()
        assert record(20).id not in first.ids()
    assert list(audit(filled)) == list(audit(to)) == []
    forget(filled, ["/videos/a.mp4"])
    assert list(audit(to)) == []
    with Memory.open(to, writable=False) as copy:
        assert len(copy.load(copy.ids())) == 13


def test_writers_go_on_and_the_copy_has_what_was_there_when_it_began(filled, tmp_path, record):
    stop = threading.Event()
    failures = []

    def write():
        try:
            with Memory.open(filled, sync="process", limits=LIMITS) as memory:
                for number in range(100, 10_000):
                    if stop.is_set():
                        break
                    memory.append([record(number)])
        except BaseException as error:
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    for each in range(5):
        with Memory.open(filled, writable=False) as memory:
            before = set(memory.ids())
        to = tmp_path / f"copy {each}"
        copy_memory(filled, to)
        with Memory.open(filled, writable=False) as memory:
            after = set(memory.ids())
        assert list(audit(to)) == []
        with Memory.open(to, writable=False) as copy:
            assert before <= set(copy.ids()) <= after
    stop.set()
    writer.join()
    assert failures == []


def test_bytes_behind_the_last_committed_record_are_not_copied(filled, to):
    with Memory.open(filled, sync="process"):
        newest = sorted((filled / "shards").iterdir())[-1]
        size = newest.stat().st_size
        with newest.open("ab") as file:
            file.write(b"torn" * 100)
        copy_memory(filled, to)
    assert (to / "shards" / newest.name).stat().st_size == size


def test_where_no_link_can_be_made_it_copies(filled, to, monkeypatch):
    def no_links(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    assert copy_memory(filled, to).linked == 0
    assert list(audit(to)) == []
    names = sorted(file.name for file in (to / "shards").iterdir())
    assert names == sorted(file.name for file in (filled / "shards").iterdir())


def test_a_copy_killed_at_any_step_is_no_memory_and_the_next_begins_afresh(filled, to):
    """Killed for real, at each block of each shard."""
    for steps in range(1, 9):
        child = os.fork()
        if child == 0:
            left = steps

            def count(done, total):
                nonlocal left
                left -= 1
                if not left:
                    os.kill(os.getpid(), signal.SIGKILL)

            copy_memory(filled, to, count)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            break
        assert status == -signal.SIGKILL
        assert not is_memory(to)
        with pytest.raises(MemoryStoreError, match="not a memory"):
            Memory.open(to)
    assert status == 0
    assert steps > 3
    assert list(audit(to)) == []


def test_a_missing_shard_is_named_and_the_rest_is_copied(filled, to):
    gone = sorted((filled / "shards").iterdir())[0]
    gone.unlink()
    assert copy_memory(filled, to).damaged == (gone.stem,)
    assert {each.kind for each in audit(to)} == {"shard"}


def test_no_copy_is_made_over_other_files_or_into_the_memory_itself(filled, to):
    to.mkdir(parents=True)
    (to / "mine.txt").write_text("mine")
    with pytest.raises(MemoryStoreError, match=r"holds other files \(mine\.txt\)"):
        copy_memory(filled, to)
    assert [file.name for file in to.iterdir()] == ["mine.txt"]
    with pytest.raises(MemoryStoreError, match="lies inside the memory"):
        copy_memory(filled, filled / "backup" / "here")
    with pytest.raises(MemoryStoreError, match="another process maintains"), maintaining(filled):
        copy_memory(filled, to.parent / "other")
    assert not (to.parent / "other").exists()


def test_a_full_disk_is_one_sentence(filled, to):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
    try:
        with pytest.raises(MemoryStoreError, match=r"no space is left|disk I/O error"):
            copy_memory(filled, to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not is_memory(to)
    assert copy_memory(filled, to).records == 12


def test_the_copy_of_the_catalogue_is_of_now_even_if_there_is_one_of_today(filled, record):
    first = back_up_catalog(filled)
    with Memory.open(filled, sync="process") as memory:
        memory.append([record(50)])
    assert back_up_catalog(filled) == first
    rows = Rows(first, writable=False)
    assert rows.count() == 13
    rows.close()
