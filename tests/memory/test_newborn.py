"""A collector that never rests does not take the shards that writers have just begun."""

import threading
import time

import pytest

from scripts.soak.records import IDENTITY, difference, record
from streamvlm.errors import MemoryStoreError
from streamvlm.memory import maintain
from streamvlm.memory.catalog.catalog import Catalog
from streamvlm.memory.store import Memory, ShardLimits

WRITERS = 2
EACH = 6


def late(call):
    def wait(*values, **options):
        time.sleep(0.15)
        return call(*values, **options)

    return wait


@pytest.fixture
def slow_writers(monkeypatch):
    """Between a file and its row, and between the row and its first record, time passes."""
    for name in ("add_shard", "add"):
        monkeypatch.setattr(Catalog, name, late(getattr(Catalog, name)))


@pytest.mark.slow
def test_newborn_shards_are_left_alone(path, slow_writers, monkeypatch):
    # Not an hour: what protects them must be the lock, not the time.
    monkeypatch.setattr(maintain, "ORPHAN_SECONDS", 0.02)
    Memory.create(path, IDENTITY, payload="raw", sync="process").close()
    wrong: list[str] = []

    def write(first):
        try:
            limits = ShardLimits(max_bytes=1)
            with Memory.open(path, sync="process", limits=limits) as memory:
                for number in range(first, first + EACH):
                    memory.append([record(number)])
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=write, args=(1000 * n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    passes = 0
    while any(thread.is_alive() for thread in threads):
        maintain.maintain(path, sync="process")
        passes += 1
    assert wrong == []
    assert passes > 10
    with Memory.open(path, writable=False) as memory:
        assert len(memory) == WRITERS * EACH
        assert [difference(one) for one in memory.load(memory.ids())] == [None] * len(memory)
    assert len(list((path / "shards").glob("*.svm"))) == WRITERS * EACH


def test_a_second_collector_is_refused_in_one_sentence(path):
    Memory.create(path, IDENTITY, sync="process").close()
    with maintain.maintaining(path, "process"):
        for deed in (maintain.maintain, maintain.erase):
            with pytest.raises(MemoryStoreError, match="another process maintains the memory"):
                deed(path, sync="process")
    maintain.maintain(path, sync="process")
