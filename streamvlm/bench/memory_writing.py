"""What writing into a memory costs: appends beside plain writes, late ones, in bulk, bytes."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from streamvlm.bench.memory_data import (
    SECONDS,
    identity,
    made_up_record,
    made_up_tokens,
    unit,
)
from streamvlm.bench.memory_plan import Plan
from streamvlm.bench.memory_report import Figure, Rounds, beside, in_turns
from streamvlm.memory.bulk import Manifest, write_shard
from streamvlm.memory.disk.codec import pack
from streamvlm.memory.store import Memory
from streamvlm.types import MemoryRecord

_KEYS, _WIDTH = 4, 128
_LARGEST_BATCH = 8
_WARM = 8
"""Appends that do not count."""
_BESIDE_EARLY = 500
"""Commits that are compared, early with late."""


class Cameras:
    """Endless records of the size of a clip that a real model saw, all different.

    Args:
        plan: how large their tokens are.
        stream: whose they are.
    """

    def __init__(self, plan: Plan, stream: str = "camera") -> None:
        self._stream = stream
        made = made_up_tokens(plan.tokens, plan.width)
        shifts = range(16)
        self._tokens = [replace(made, features=made.features.roll(n, 0)) for n in shifts]
        shape = (64, _KEYS, _WIDTH)
        dice = np.random.default_rng(0)
        self._keys = unit(dice.standard_normal(shape, np.float32))
        self._base = int.from_bytes(os.urandom(5), "big") << 20
        self._made = 0

    def next(self, count: int) -> list[MemoryRecord]:
        """So many that follow the last."""
        numbers = range(self._made, self._made + count)
        self._made += count
        return [
            made_up_record(
                self._base + number,
                self._stream,
                number * SECONDS,
                self._keys[number % len(self._keys)],
                self._tokens[number % len(self._tokens)],
            )
            for number in numbers
        ]


def given(record: MemoryRecord) -> int:
    """Bytes of a record as it is given: features, float16 keys, thumbnail, times and hashes."""
    parts = (record.tokens.features.nbytes, 2 * record.keys.size, len(record.thumbnail))
    return sum(parts) + record.frame_seconds.nbytes + record.frame_hash.nbytes


def writing(plan: Plan, folder: Path) -> Iterator[Figure]:
    """Appends, early and late, in bulk; and the bytes on disk.

    Args:
        plan: how large.
        folder: an empty one.
    """
    yield from appending(plan, folder, "raw", promised=True)
    yield from appending(plan, folder, "int8", promised=False)
    yield late(plan, folder)
    yield in_bulk(plan, folder, "raw", 0.35)
    yield in_bulk(plan, folder, "int8", None)


class PlainFile:
    """A file that is written as plainly as can be."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        self._end = 0

    def append(self, content: bytes, flushes: int) -> None:
        """Write, and flush so many times."""
        self._end += os.pwrite(self._descriptor, content, self._end)
        for _ in range(flushes):
            os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Give it back."""
        os.close(self._descriptor)


def appending(plan: Plan, folder: Path, payload: str, *, promised: bool) -> Iterator[Figure]:
    """Appends of 1 to 8 records, flushed, beside one write and two flushes of the same bytes.

    Args:
        plan: how large, how often.
        folder: where.
        payload: how features are written.
        promised: whether the promises are for this payload.
    """
    path, cameras = folder / f"appended {payload}", Cameras(plan)
    size = len(pack(cameras.next(1)[0], payload))
    plain, records, bytes_given = PlainFile(folder / f"plain {payload}"), 0, 0
    ours: list[list[float]] = []
    theirs: list[list[float]] = []
    with Memory.create(path, identity(_WIDTH), payload=payload) as memory:
        for number in range(-1, plan.rounds):
            ours.append([])
            theirs.append([])
            for commit in range(_WARM if number < 0 else plan.commits):
                batch = cameras.next(1 + commit % _LARGEST_BATCH)
                content = os.urandom(size * len(batch))
                ours[-1].append(milliseconds(partial(memory.append, batch)))
                theirs[-1].append(milliseconds(partial(plain.append, content, 2)))
                records += len(batch)
                bytes_given += sum(map(given, batch))
    plain.close()
    what = f"append of 1 to {_LARGEST_BATCH} records, {payload}, flushed"
    how = f"records of {size / 1000:.0f} KB; plain: one write of as many bytes, two fdatasync"
    middle = Rounds(
        tuple(map(statistics.median, ours[1:])), tuple(map(statistics.median, theirs[1:]))
    )
    yield beside(f"{what}, p50", middle, 1.5 if promised else None, how=how)
    worst = [float(np.percentile(np.concatenate(some[1:]), 99)) for some in (ours, theirs)]
    ends = Rounds(*((each,) for each in worst))
    yield beside(f"{what}, p99", ends, 2.5 if promised else None, how="of all rounds together")
    if promised:
        on_disk = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        yield Figure(
            "bytes on disk over bytes given",
            on_disk / bytes_given,
            wanted=1.02,
            ours=on_disk / 2**20,
            plain=bytes_given / 2**20,
            of="MiB",
            how=f"the whole folder, {records} records, {payload}; float16 features and keys",
        )


def milliseconds(act: Callable[[], object]) -> float:
    """How long something takes."""
    before = time.perf_counter()
    act()
    return 1000 * (time.perf_counter() - before)


def late(plan: Plan, folder: Path) -> Figure:
    """Appends to a memory of thousands of commits beside those to one of hundreds."""
    tiny = replace(plan, tokens=1, width=64)
    old, new = Cameras(tiny), Cameras(tiny)
    before = min(_BESIDE_EARLY, plan.late)
    commits = min(100, before)
    with (
        Memory.create(folder / "old", identity(_WIDTH), sync="process") as aged,
        Memory.create(folder / "new", identity(_WIDTH), sync="process") as young,
    ):
        for memory, cameras, count in ((aged, old, plan.late), (young, new, before)):
            for _ in range(count):
                memory.append(cameras.next(1))

        def append(memory: Memory, cameras: Cameras) -> float:
            batches = [cameras.next(1) for _ in range(commits)]
            return statistics.median(
                milliseconds(partial(memory.append, batch)) for batch in batches
            )

        rounds = in_turns(plan.rounds, lambda _: append(aged, old), lambda _: append(young, new))
    how = f"not flushed, tiny records, in turns; plain: the same after {before} commits"
    return beside(f"append after {plan.late:,} commits over early ones, p50", rounds, 1.3, how=how)


def in_bulk(plan: Plan, folder: Path, payload: str, wanted: float | None) -> Figure:
    """`write_shard` beside plain writes of as many bytes, each flushed once at the end."""
    path = folder / f"bulk {payload}"
    with Memory.create(path, identity(_WIDTH), payload=payload) as memory:
        chosen = memory.format
    cameras = Cameras(plan)
    size = len(pack(cameras.next(1)[0], payload))
    content = os.urandom(size)
    total = size * plan.bulk / 2**20

    def ours(_: int) -> float:
        records = cameras.next(plan.bulk)
        spent = milliseconds(lambda: written.append(write_shard(path / "shards", chosen, records)))
        Path(written.pop().path).unlink()
        return 1000 * total / spent

    def plain(number: int) -> float:
        file = PlainFile(folder / f"plain bulk {payload} {number}")
        before = time.perf_counter()
        for done in range(plan.bulk):
            file.append(content, flushes=done == plan.bulk - 1)
        spent = 1000 * (time.perf_counter() - before)
        file.close()
        (folder / f"plain bulk {payload} {number}").unlink()
        return 1000 * total / spent

    written: list[Manifest] = []
    rounds = in_turns(plan.rounds, ours, plain)
    how = f"{plan.bulk} records of {size / 1000:.0f} KB; plain: writes, one fdatasync"
    what = f"write_shard over plain writes, {payload}"
    return beside(what, rounds, wanted, at_least=True, of="MiB/s", how=how)
