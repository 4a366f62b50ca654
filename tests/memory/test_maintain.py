"""A pass of maintenance gives space back, and is right however often it is done."""

import os
import sqlite3
import time

import pytest

from scripts.soak.records import IDENTITY, difference, number_of, record
from streamvlm.memory.catalog.catalog import Catalog
from streamvlm.memory.catalog.rows import Rows
from streamvlm.memory.maintain import erase, maintain
from streamvlm.memory.store import Memory, ShardLimits


@pytest.fixture
def memory(path):
    limits = ShardLimits(max_bytes=60_000)
    with Memory.create(path, IDENTITY, payload="raw", sync="process", limits=limits) as memory:
        for first in range(0, 60, 6):
            memory.append([record(number) for number in range(first, first + 6)])
        yield memory


def size(path):
    return sum(file.stat().st_size for file in (path / "shards").iterdir())


def whole(memory, numbers):
    assert {number_of(uid) for uid in memory.ids()} == set(numbers)
    assert [difference(one) for one in memory.load(memory.ids())] == [None] * len(memory)
    for number in list(numbers)[::5]:
        assert memory.search(record(number).keys[0], limit=1)[0].id == record(number).id


def test_shards_in_which_nothing_is_left_go_and_the_others_stay(path, memory):
    files, before = set((path / "shards").iterdir()), size(path)
    for name in (0, 1, 2):
        memory.forget(f"stream-0.{name}", before=31.0)
    report = maintain(path, sync="process")
    assert report.freed_bytes == before - size(path)
    assert size(path) < 0.6 * before
    assert set((path / "shards").iterdir()) < files
    whole(memory, range(31, 60))


def test_passes_follow_until_nothing_is_left_to_do(path, memory):
    for name in (0, 1):
        memory.forget(f"stream-0.{name}")
    memory.forget("stream-0.2", before=50.0)
    memory.roll()
    done = [maintain(path, sync="process") for _ in range(9)]
    assert [report.rewritten for report in done[-2:]] == [0, 0]
    assert done[-1].freed_bytes == 0
    whole(memory, range(50, 60, 3))
    live = sum(row.segment.length for row in memory._rows.stream_rows("stream-0.2"))
    assert live > 0.25 * size(path)


@pytest.mark.parametrize("is_open", [True, False])
def test_erasing_leaves_exactly_the_live_bytes_beside_a_writer_at_work(path, memory, is_open):
    if not is_open:
        memory.roll()
    memory.forget("stream-0.1")
    assert erase(path, sync="process").kept_bytes == 0
    memory.append([record(60)])
    names = ("stream-0.0", "stream-0.2")
    rows = [row for name in names for row in memory._rows.stream_rows(name)]
    assert size(path) == sum(row.segment.length for row in rows)
    whole(memory, [number for number in range(61) if number % 3 != 1])


def test_what_is_forgotten_while_it_is_erased_is_no_trouble(path, memory, monkeypatch):
    memory.forget("stream-0.0", before=30.0)
    seal = Catalog.seal

    def forget_first(self, names):
        for name in (0, 1, 2):
            memory.forget(f"stream-0.{name}", before=45.0)
        seal(self, names)

    with monkeypatch.context() as patch:
        patch.setattr(Catalog, "seal", forget_first)
        erase(path, sync="process")
    assert erase(path, sync="process").kept_bytes == 0
    whole(memory, range(45, 60))


def test_what_a_killed_writer_left_open_is_sealed_in_the_end(path, memory):
    memory.close()
    (shard,) = [s for s in _shards(path) if s.state == "open"]
    file, old = path / "shards" / f"{shard.name}.svm", f"{1_000_000:016d}"
    os.rename(file, file.with_name(f"{old}.svm"))
    with sqlite3.connect(path / "catalog.db") as catalog:
        catalog.execute("UPDATE shard SET name = ? WHERE name = ?", (old, shard.name))
    catalog.close()
    maintain(path, sync="process")
    assert [s.state for s in _shards(path) if s.name == old] == ["sealed"]
    with Memory.open(path, sync="process") as memory:
        memory.append([record(60)])
        whole(memory, range(61))


def test_of_what_nobody_writes_to_any_more_the_room_of_deleted_records_comes_back(path):
    with Memory.create(path, IDENTITY, payload="raw", sync="process") as memory:
        memory.append([record(number) for number in range(60)])
        before = size(path)
        memory.forget("stream-0.0")
        memory.forget("stream-0.1")
        memory.forget("stream-0.2", before=50.0)
        # Its writer may still go on.
        assert maintain(path, sync="process").rewritten == 0
        assert size(path) == before
    assert maintain(path, sync="process").rewritten == 1
    assert size(path) < 0.25 * before
    with Memory.open(path, sync="process") as memory:
        memory.append([record(60)])
        whole(memory, [50, 53, 56, 59, 60])


def _shards(path):
    rows = Rows(path / "catalog.db", writable=False)
    found = rows.shards()
    rows.close()
    return found


def test_once_a_day_the_catalogue_is_copied(path, memory):
    maintain(path, sync="process")
    memory.append([record(60)])
    maintain(path, sync="process")
    (copy,) = (path / "backup").glob("catalog-*.db")
    assert time.strftime("%Y-%m-%d") in copy.name
    rows = Rows(copy, writable=False)
    assert rows.count() == 60
    rows.close()
