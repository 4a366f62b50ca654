"""Several processes at one memory: writers beside one another, and a reader beside a busy writer.

What runs in another process is told `(what to do, for how many seconds)` and sends back a list of
milliseconds; None ends it.
"""

from __future__ import annotations

import multiprocessing
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from streamvlm.bench.memory_data import World, identity
from streamvlm.bench.memory_plan import Plan
from streamvlm.bench.memory_report import Figure
from streamvlm.bench.memory_writing import Cameras
from streamvlm.memory.maintain import erase
from streamvlm.memory.store import Memory

WRITERS = 4
_BATCH = 4
_RECORD_BYTES = 128 * 1024


@dataclass(frozen=True, slots=True)
class _Worker:
    """A process that does something for as long as it is told to."""

    process: multiprocessing.process.BaseProcess
    line: Connection

    def begin(self, seconds: float) -> None:
        self.line.send(seconds)

    def end(self) -> list[float]:
        """Milliseconds of each thing that was done."""
        found: list[float] = self.line.recv()
        return found


@contextmanager
def _workers(
    does: Callable[[Plan, Path, Connection], None], plan: Plan, path: Path, count: int
) -> Iterator[Sequence[_Worker]]:
    """Processes that are ready to begin."""
    context = multiprocessing.get_context("spawn")
    workers = []
    try:
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=does, args=(plan, path, theirs), daemon=True)
            process.start()
            theirs.close()
            workers.append(_Worker(process, ours))
        for worker in workers:
            worker.end()
        yield workers
    finally:
        for worker in workers:
            worker.line.close()
            worker.process.join(30)


def _serve(line: Connection, act: Callable[[], object]) -> None:
    """Do something again and again whenever told to, and say how long each time took."""
    line.send([])
    while True:
        try:
            seconds = line.recv()
        except EOFError:
            return
        spent: list[float] = []
        end = time.perf_counter() + seconds
        while (before := time.perf_counter()) < end:
            act()
            spent.append(1000 * (time.perf_counter() - before))
        line.send(spent)


def _write(plan: Plan, path: Path, line: Connection) -> None:
    """A process that appends batches of its own camera."""
    cameras = Cameras(plan, f"camera of process {multiprocessing.current_process().pid}")
    with Memory.open(path) as memory:
        _serve(line, lambda: memory.append(cameras.next(_BATCH)))


def _tidy(plan: Plan, path: Path, line: Connection) -> None:
    """A process that forgets a stretch of one camera and writes the rest of the shards anew."""
    del plan
    with Memory.open(path) as memory:
        times = iter(np.arange(1.0, 1e6) * 80.0)

        def act() -> None:
            memory.forget("camera 0", before=float(next(times)))
            erase(path)

        _serve(line, act)


def writers(plan: Plan, folder: Path) -> Iterator[Figure]:
    """Four processes that append beside one, in turns."""
    path = folder / "crowd"
    width = plan.width
    tokens = max(1, round(_RECORD_BYTES / 2 / width)) if plan.tokens > 1 else 1
    sized = Plan(tokens=tokens, width=width)
    Memory.create(path, identity(128), payload="raw").close()
    alone: list[list[float]] = []
    crowd: list[list[float]] = []
    seconds = plan.writing_seconds
    with _workers(_write, sized, path, WRITERS) as workers:
        for number in range(-1, plan.rounds):
            one = _all_write(workers[:1], seconds)
            many = _all_write(workers, seconds)
            if number >= 0:
                alone.append(one)
                crowd.append(many)
    shutil.rmtree(path)
    rates = [[_BATCH * len(spent) / seconds for spent in some] for some in (crowd, alone)]
    ratio = statistics.median(many / one for many, one in zip(*rates, strict=True))
    how = f"batches of {_BATCH} records of 128 KB, raw, flushed; plain: one process"
    yield Figure(
        f"{WRITERS} writers over one, records a second",
        ratio,
        wanted=2.0,
        at_least=True,
        ours=statistics.median(rates[0]),
        plain=statistics.median(rates[1]),
        of="records/s",
        how=how,
    )
    worst = [float(np.percentile(np.concatenate(some), 99)) for some in (crowd, alone)]
    yield Figure(
        f"{WRITERS} writers over one, p99 of an append",
        worst[0] / worst[1],
        wanted=5.0,
        ours=worst[0],
        plain=worst[1],
        how="of all rounds together",
    )


def _all_write(workers: Sequence[_Worker], seconds: float) -> list[float]:
    for worker in workers:
        worker.begin(seconds)
    return [spent for worker in workers for spent in worker.end()]


def reader(plan: Plan, folder: Path) -> Iterator[Figure]:
    """Searches, each with a load of the best, beside a writer and maintenance, and without."""
    path = folder / "read"
    world = World(max(320, plan.records // 5 // 16 * 16), 4, 128)
    world.build(path)
    questions = world.questions(64)
    quiet: list[float] = []
    busy: list[float] = []
    with (
        Memory.open(path, writable=False) as memory,
        _workers(_write, Plan(), path, 1) as (writer,),
        _workers(_tidy, plan, path, 1) as (tidier,),
    ):

        def read(number: int) -> float:
            before = time.perf_counter()
            hits = memory.search(questions[number % len(questions)])
            memory.load([hits[0].id])
            return 1000 * (time.perf_counter() - before)

        for _ in range(8):
            read(0)
        for _ in range(plan.rounds):
            some = [read(number) for number in range(plan.reads)]
            quiet += some
            seconds = max(1.0, 3 * sum(some) / 1000)
            for worker in (writer, tidier):
                worker.begin(seconds)
            end = time.perf_counter() + seconds
            number = 0
            while time.perf_counter() < end:
                busy.append(read(number))
                number += 1
            for worker in (writer, tidier):
                worker.end()
    shutil.rmtree(path)
    worst = [float(np.percentile(some, 99)) for some in (busy, quiet)]
    yield Figure(
        "reader beside a writer and maintenance over quiet, p99",
        worst[0] / worst[1],
        wanted=5.0,
        ours=worst[0],
        plain=worst[1],
        how=f"search and load of the best of {world.records:,} records; plain: nobody else writes",
    )
    medians = [statistics.median(some) for some in (busy, quiet)]
    yield Figure(
        "reader beside a writer and maintenance over quiet, p50",
        medians[0] / medians[1],
        ours=medians[0],
        plain=medians[1],
        how=f"{len(busy):,} reads beside them, {len(quiet):,} without",
    )
