"""What opening, the first answer, loading and forgetting cost."""

from __future__ import annotations

import os
import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from streamvlm.bench.memory_data import ALL_KEYS, World, by_time, identity
from streamvlm.bench.memory_plan import Plan
from streamvlm.bench.memory_report import Figure, beside, in_turns
from streamvlm.bench.memory_searching import several_keys
from streamvlm.bench.memory_writing import Cameras
from streamvlm.memory.maintain import erase, maintain
from streamvlm.memory.store import Memory

_KEYS, _WIDTH = 4, 128
_LOADED = 16
_SHARDS = 4


def reading(plan: Plan, folder: Path) -> Iterator[Figure]:
    """Opening, first answer, several keys at once, loading, forgetting.

    Args:
        plan: how many records.
        folder: an empty one.
    """
    large = World(max(640, plan.records // 64 * 64), _KEYS, _WIDTH)
    small = World(max(64, plan.records // 640 * 64), _KEYS, _WIDTH)
    for world, name in ((large, "large"), (small, "small")):
        path = folder / name
        with Memory.create(
            path, identity(_WIDTH), payload="raw", novelty=ALL_KEYS, sync="process"
        ) as memory:
            memory.adopt(by_time(world, path, memory.format, _SHARDS))
            # Writes the index files, as the first search after an ingest does.
            memory.search(world.questions(1))
    yield from opening(plan, folder, large.records, small.records)
    flat = large.units.reshape(-1, _WIDTH)
    np.save(folder / "keys.npy", flat)
    yield first_answer(plan, folder, large)
    with Memory.open(folder / "large", writable=False) as memory:
        yield several_keys(plan, memory, large, flat)
    yield loading(plan, folder, "raw", 8.0)
    yield loading(plan, folder, "int8", None)
    yield from forgetting(plan, folder, large)


def opening(plan: Plan, folder: Path, large: int, small: int) -> Iterator[Figure]:
    """Open and count the larger memory beside the smaller one."""

    def opened(name: str) -> float:
        before = time.perf_counter()
        with Memory.open(folder / name, writable=False) as memory:
            len(memory)
        return 1000 * (time.perf_counter() - before)

    rounds = in_turns(2 * plan.rounds, lambda _: opened("large"), lambda _: opened("small"))
    what = f"open and count {large:,} records"
    how = f"plain: the same with {small:,}"
    yield beside(f"{what} over {small:,}", rounds, 10.0, how=how)
    spent = statistics.median(rounds.ours)
    yield Figure(what, spent, "ms", wanted=50.0, ours=spent)


def first_answer(plan: Plan, folder: Path, world: World) -> Figure:
    """Open and search once beside reading all keys from a file and comparing them once."""
    (question,) = world.questions(1)

    def ours(_: int) -> float:
        before = time.perf_counter()
        with Memory.open(folder / "large", writable=False) as memory:
            memory.search(question)
        return 1000 * (time.perf_counter() - before)

    def plain(_: int) -> float:
        before = time.perf_counter()
        scores = np.load(folder / "keys.npy") @ question
        np.argpartition(scores, -8)
        return 1000 * (time.perf_counter() - before)

    rounds = in_turns(plan.rounds, ours, plain)
    how = f"{world.total:,} keys, index files there; plain: np.load of float32, one matmul"
    return beside(f"first answer after open, {world.records:,} records", rounds, 1.5, how=how)


def loading(plan: Plan, folder: Path, payload: str, wanted: float | None) -> Figure:
    """Load records whole beside reading as many bytes of the same file."""
    path, cameras = folder / f"loaded {payload}", Cameras(plan)
    count = max(2 * _LOADED, plan.bulk)
    with Memory.create(path, identity(_WIDTH), payload=payload, sync="process") as memory:
        for first in range(0, count, 64):
            memory.append(cameras.next(min(64, count - first)))
        ids = memory.ids()
        (shard,) = (path / "shards").glob("*.svm")
        size = shard.stat().st_size // count
        dice = np.random.default_rng(0)
        places = [dice.permutation(count)[:_LOADED].tolist() for _ in range(4 * plan.rounds)]
        descriptor = os.open(shard, os.O_RDONLY)

        def ours(number: int) -> float:
            before = time.process_time()
            memory.load([ids[place] for place in places[number]])
            return 1000 * (time.process_time() - before)

        def plain(number: int) -> float:
            before = time.process_time()
            # All are kept, as those that are loaded are.
            held = [os.pread(descriptor, size, place * size) for place in places[number]]
            spent = time.process_time() - before
            del held
            return 1000 * spent

        ours(0)
        rounds = in_turns(len(places), ours, plain)
        os.close(descriptor)
    shutil.rmtree(path)
    how = (
        f"records of {size / 1000:.0f} KB, every byte checked; plain: pread of the page cache, kept"
    )
    what = f"load of {_LOADED} records, {payload}"
    return beside(what, rounds, wanted, of="CPU ms", how=how)


def forgetting(plan: Plan, folder: Path, world: World) -> Iterator[Figure]:
    """Forget the older half of every stream, and get its space back."""
    spent, shares, erased = [], [], []
    for number in range(plan.rounds):
        path = folder / f"forgotten {number}"
        # Shards never change once they are sealed: a copy of the catalogue is a memory of its own.
        shutil.copytree(folder / "large", path, copy_function=_linked)
        before = _size(path)
        with Memory.open(path) as memory:
            began = time.perf_counter()
            for camera in range(world.cameras):
                memory.forget(f"camera {camera}", before=world.seconds / 2)
            spent.append(time.perf_counter() - began)
        maintain(path)
        shares.append((before - _size(path)) / (before / 2))
        erase(path)
        erased.append((before - _size(path)) / (before / 2))
        shutil.rmtree(path)
    what = f"forget half of {world.records:,} records by time"
    how = f"{world.cameras} streams, flushed"
    yield Figure(what, statistics.median(spent), "s", wanted=1.0, how=how)
    yield Figure(
        "share of its space back after maintenance",
        statistics.median(shares),
        "share",
        0.95,
        at_least=True,
        how=f"shards and index files, {_SHARDS} shards by time as live writers leave them",
    )
    yield Figure(
        "share of its space back after erase", statistics.median(erased), "share", how="likewise"
    )


def _linked(source: str, target: str) -> None:
    if source.endswith(".svm"):
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def _size(path: Path) -> int:
    """Bytes of shards and index files: the catalogue's rows go as well, but leave room in it."""
    files = (file for name in ("shards", "index") for file in (path / name).glob("*"))
    return sum(file.stat().st_size for file in files)
