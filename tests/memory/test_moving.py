"""Records that are moved, thinned or forgotten while they are looked for: the old or the new."""

import dataclasses
import threading
import time
import weakref
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest

from scripts.soak.records import IDENTITY, difference, number_of, record, shrunk, uid
from streamvlm.errors import MemoryStoreError
from streamvlm.memory.disk.codec import pack, unpack_stored
from streamvlm.memory.disk.packing import Packed
from streamvlm.memory.disk.rewrite import Kept, Replaced, remove_dead, rewrite
from streamvlm.memory.disk.shards import ShardReader
from streamvlm.memory.index import searching
from streamvlm.memory.index.look import finer
from streamvlm.memory.maintain import maintaining
from streamvlm.memory.store import Memory, ShardLimits


@pytest.fixture
def full(path):
    """A memory of sixty records in many sealed shards, open for reading and writing."""
    limits = ShardLimits(max_keys=10)
    with Memory.create(path, IDENTITY, payload="raw", sync="process", limits=limits) as memory:
        for first in range(0, 60, 3):
            memory.append([record(number) for number in range(first, first + 3)])
        memory.roll()
        yield memory


def moved(path, *, thinned=()):
    """Write every sealed shard anew, with smaller records in the place of some."""
    with maintaining(path, "process") as (catalog, reader):
        for shard in catalog.shards("sealed"):
            pieces = []
            for row in catalog.held(shard.name):
                pieces.append(Kept(row))
                if number_of(row.segment.uid) in thinned:
                    blob = reader.read(row.shard, row.segment.offset, row.segment.length)
                    stored = unpack_stored(blob, row.segment.uid)
                    less, anchor = shrunk(stored.record), bool(row.segment.is_anchor)
                    small = pack(less, "raw", stored.indexed, is_anchor=anchor)
                    by = Packed(less, [small], int(stored.indexed.sum()), anchor)
                    pieces[-1] = Replaced([row], by)
            if pieces:
                assert rewrite(path, catalog, reader, pieces, "process")
        remove_dead(path, catalog, reader)


@contextmanager
def in_the_middle(monkeypatch, name, deed):
    """Let something happen just before a step of the first search."""
    step = getattr(searching, name)
    pending = [deed]

    def delayed(*values):
        if pending:
            pending.pop()()
        return step(*values)

    with monkeypatch.context() as patch:
        patch.setattr(searching, name, delayed)
        yield


@pytest.mark.parametrize("step", ["around_hits", "finer", "xtr"])
@pytest.mark.parametrize("thinned", [(), range(60)])
@pytest.mark.parametrize("key", [0, 2])
def test_what_is_moved_during_a_search_is_found(path, full, monkeypatch, step, thinned, key):
    # Without beginning anew: a record keeps its number.
    monkeypatch.setattr(searching, "_PATIENCE", 1)
    with Memory.open(path, writable=False) as reader:
        for number in (7, 8):
            wanted = [hit.id for hit in reader.search(record(number).keys[key], limit=3)]
            assert wanted[0] == uid(number)
            with in_the_middle(monkeypatch, step, partial(moved, path, thinned=thinned)):
                hits = reader.search(record(number).keys[key], limit=3)
            assert [hit.id for hit in hits] == wanted
            assert hits[0].score > 0.99
            thinned = ()


@pytest.mark.parametrize("step", ["around_hits", "finer", "xtr"])
def test_what_is_merged_during_a_search_is_found(path, full, monkeypatch, step):
    one, other = record(7), record(10)
    keys = np.concatenate([one.keys, other.keys])
    merged = dataclasses.replace(one, id="merged", end=other.end, keys=keys, tier=2)
    packed = Packed(merged, [pack(merged, "raw")], len(keys), is_anchor=True)

    def merge():
        with maintaining(path, "process") as (catalog, reader):
            rows = [catalog.place(each.id) for each in (one, other)]
            assert rewrite(path, catalog, reader, [Replaced(rows, packed)], "process")

    with in_the_middle(monkeypatch, step, merge):
        hits = full.search(one.keys[1], limit=3)
    assert hits[0].id == "merged"
    assert {one.id, other.id}.isdisjoint(hit.id for hit in hits)


@pytest.mark.parametrize("step", ["around_hits", "finer", "xtr"])
def test_what_is_forgotten_during_a_search_makes_room_for_others(full, monkeypatch, step):
    with in_the_middle(monkeypatch, step, lambda: full.forget("stream-0.1")):
        hits = full.search(record(7).keys[0], limit=5)
    assert len(hits) == 5
    assert all(hit.stream != "stream-0.1" for hit in hits)


@pytest.mark.parametrize("is_forgotten", [True, False])
def test_what_is_moved_before_its_keys_are_read_is_looked_up_again(path, full, is_forgotten):
    near = full._rows.stream_rows("stream-0.1")
    nothing = [(np.empty(0, np.int64), np.empty(0, np.float32))]
    if is_forgotten:
        full.forget("stream-0.1")
    moved(path)
    reader = ShardReader(path / "shards")
    ((sids, scores),), is_whole = finer(nothing, record(7).keys[:1], near, full._rows, reader)
    assert is_whole == (not is_forgotten)
    assert sorted(sids.tolist()) == ([] if is_forgotten else sorted(row.sid for row in near))
    assert (is_forgotten and not len(scores)) or scores[0] > 0.99


def test_what_is_moved_between_search_and_load_is_loaded(path, full):
    ids = full.ids()
    moved(path)
    with Memory.open(path, writable=False) as reader:
        moved(path, thinned=range(20))
        loaded = reader.load(ids)
    assert [one.id for one in loaded] == ids
    assert [difference(one) for one in loaded] == [None] * 60
    assert sum(one.tier for one in loaded) == 20


def test_what_is_moved_between_the_look_up_and_the_read_is_loaded(path, full, monkeypatch):
    with Memory.open(path, writable=False) as reader:
        # The reader holds no file open: the next one must look the record up again.
        place, pending = type(reader._rows).place, [1]

        def late(self, name):
            row = place(self, name)
            if pending:
                pending.pop()
                moved(path)
            return row

        monkeypatch.setattr(type(reader._rows), "place", late)
        (loaded,) = reader.load([uid(31)])
    assert difference(loaded) is None


def test_what_is_forgotten_between_search_and_load_is_said_to_be_gone(full):
    (hit,) = full.search(record(7).keys[0], limit=1)
    full.forget(hit.stream)
    with pytest.raises(MemoryStoreError, match=f"has no record {hit.id}.*search again"):
        full.load([hit.id])


@pytest.mark.slow
@pytest.mark.parametrize("is_shared", [True, False])
def test_threads_find_and_load_while_everything_is_moved_again_and_again(path, full, is_shared):
    """One memory that threads share, or one for each, beside a collector that hardly rests."""
    until = time.monotonic() + 3
    wrong: list[str] = []
    counts = [0, 0, 0]

    def look(place: int) -> None:
        memory = full if is_shared else Memory.open(path, writable=False)
        number = place
        while time.monotonic() < until and not wrong:
            number = (number + 7) % 60
            # What is forgotten meanwhile is of another stream.
            if number % 3 == 2:
                continue
            wanted = record(number)
            hits = [hit.id for hit in memory.search(wanted.keys[counts[place] % 3], limit=6)]
            if wanted.id not in hits:
                wrong.append(f"{wanted.id} is not found: {hits}")
            if len(set(hits)) != len(hits):
                wrong.append(f"found twice: {hits}")
            for each in hits:
                try:
                    (loaded,) = memory.load([each])
                except MemoryStoreError as error:
                    if "has no record" not in str(error):
                        wrong.append(str(error))
                    continue
                if (flaw := difference(loaded)) is not None:
                    wrong.append(flaw)
            counts[place] += 1
        if not is_shared:
            memory.close()

    def guarded(place: int) -> None:
        try:
            look(place)
        except BaseException as error:
            wrong.append(repr(error))

    threads = [threading.Thread(target=guarded, args=(place,)) for place in range(3)]
    for thread in threads:
        thread.start()
    passes = 0
    while time.monotonic() < until and not wrong:
        moved(path, thinned=range(60) if passes == 3 else ())
        full.forget("stream-0.2", before=float(passes))
        passes += 1
        # A search that everything was moved under begins anew: with no rest at all, for ever.
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert wrong == []
    assert min(counts) > 0
    assert passes > 3


def test_what_a_smaller_record_was_packed_from_is_let_go_before_it_is_written(full, path):
    alive = []

    def pieces(catalog, reader):
        for row in [row for shard in catalog.shards("sealed") for row in catalog.held(shard.name)]:
            blob = reader.read(row.shard, row.segment.offset, row.segment.length)
            less = shrunk(unpack_stored(blob, row.segment.uid).record)
            alive.append(weakref.ref(less.keys))
            yield Replaced([row], Packed(less, [pack(less, "raw")], len(less.keys), is_anchor=True))
            assert sum(ref() is not None for ref in alive) <= 2

    with maintaining(path, "process") as (catalog, reader):
        assert rewrite(path, catalog, reader, pieces(catalog, reader), "process")
    assert len(alive) == 60
