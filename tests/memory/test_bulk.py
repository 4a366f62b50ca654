"""Shards that workers wrote are adopted once, whole, and never taken for orphans meanwhile."""

import os
import threading
import time

import pytest

from scripts.soak.records import IDENTITY, difference, record
from streamvlm.errors import MemoryStoreError
from streamvlm.memory import bulk
from streamvlm.memory.maintain import maintain
from streamvlm.memory.store import Memory

HOUR = 3600


@pytest.fixture
def memory(path):
    with Memory.create(path, IDENTITY, payload="raw", sync="process") as memory:
        yield memory


def shard(where, memory, numbers, sync="process"):
    records = sorted(map(record, numbers), key=lambda one: (one.stream, one.start))
    return bulk.write_shard(where, memory.format, records, sync=sync)


def aged(path, seconds):
    then = time.time() - seconds
    os.utime(path, (then, then))


def test_what_is_adopted_is_found_and_loaded(memory, tmp_path):
    manifests = [shard(tmp_path / "worker", memory, range(n, n + 9)) for n in (0, 9)]
    assert memory.adopt(manifests) == 18
    assert len(memory) == 18
    assert [difference(one) for one in memory.load(memory.ids())] == [None] * 18
    for number in range(18):
        for key in record(number).keys:
            assert memory.search(key, limit=1)[0].id == record(number).id


def test_what_is_adopted_twice_adds_nothing(path, memory, tmp_path):
    manifest = shard(tmp_path / "worker", memory, range(6))
    assert memory.adopt([manifest, manifest]) == 6
    assert memory.adopt([manifest]) == 0
    with Memory.open(path, sync="process") as another:
        assert another.adopt([manifest]) == 0
    assert len(memory) == 6


def test_only_what_is_not_known_is_added_by_a_shard(memory, tmp_path):
    memory.append([record(2), record(3)])
    assert memory.adopt([shard(tmp_path / "worker", memory, range(6))]) == 4
    assert len(memory) == 6


def test_a_worker_that_had_nothing_to_write_is_no_trouble(memory, tmp_path):
    assert memory.adopt([shard(tmp_path / "worker", memory, [])]) == 0
    assert len(memory) == 0


def test_what_others_add_meanwhile_is_not_counted(path, memory, tmp_path):
    manifests = [shard(tmp_path / "worker", memory, range(n, n + 3)) for n in range(0, 60, 3)]
    stop = threading.Event()

    def append():
        with Memory.open(path, sync="process") as other:
            number = 1_000_000
            while not stop.is_set():
                other.append([record(number)])
                number += 1

    thread = threading.Thread(target=append)
    thread.start()
    try:
        assert [memory.adopt([manifest]) for manifest in manifests] == [3] * 20
    finally:
        stop.set()
        thread.join()


def test_a_shard_that_is_not_what_its_manifest_says_is_refused_with_all_others(memory, tmp_path):
    good, bad = (shard(tmp_path / "worker", memory, range(n, n + 3)) for n in (0, 3))
    os.truncate(bad.path, bad.bytes - 64)
    with pytest.raises(MemoryStoreError, match="its manifest says"):
        memory.adopt([good, bad])
    assert len(memory) == 0
    assert memory.adopt([good]) == 3


def test_a_shard_that_is_gone_is_one_sentence(memory, tmp_path):
    manifest = shard(tmp_path / "worker", memory, range(3))
    os.unlink(manifest.path)
    with pytest.raises(MemoryStoreError, match=r"is gone; write it again"):
        memory.adopt([manifest])


def test_a_copy_that_its_owner_made_before_it_died_is_adopted_by_the_next(path, memory, tmp_path):
    manifest = shard(tmp_path / "worker", memory, range(3))
    with bulk.received(path, manifest, memory.format, "process"):
        pass
    assert len(memory) == 0
    os.unlink(manifest.path)
    assert memory.adopt([manifest]) == 3


def test_what_a_killed_worker_left_goes_after_an_hour_and_not_before(path, memory):
    manifest = shard(path / "shards", memory, range(3))
    aged(manifest.path, HOUR - 60)
    assert maintain(path, sync="process").orphans == 0
    aged(manifest.path, HOUR + 60)
    assert maintain(path, sync="process").orphans == 1
    assert not os.path.exists(manifest.path)


def test_a_draft_of_a_killed_owner_goes_after_an_hour(path, memory):
    draft = path / "shards" / ".0123456789abcdef.svm.1"
    draft.write_bytes(b"half a shard")
    assert maintain(path, sync="process").orphans == 0
    aged(draft, HOUR + 60)
    assert maintain(path, sync="process").orphans == 1


def test_a_shard_that_is_adopted_late_is_not_collected_meanwhile(path, memory, monkeypatch):
    """The worker wrote for more than an hour; the collector looks while the owner commits."""
    manifest = shard(path / "shards", memory, range(3))
    aged(manifest.path, HOUR + 60)
    commit = memory._writer.catalog.adopt
    reports = []

    def slow(shards):
        reports.append(maintain(path, sync="process"))
        return commit(shards)

    monkeypatch.setattr(memory._writer.catalog, "adopt", slow)
    assert memory.adopt([manifest]) == 3
    assert [report.orphans for report in reports] == [0]
    assert [difference(one) for one in memory.load(memory.ids())] == [None] * 3
