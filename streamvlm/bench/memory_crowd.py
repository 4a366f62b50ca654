"""Several processes at one memory: writers beside one another, and a reader beside a busy writer.

What runs in another process is told `(what to do, for how many seconds)` and sends back a list of
milliseconds; None ends it.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from streamvlm.bench.memory_data import World, identity
from streamvlm.bench.memory_plan import Plan
from streamvlm.bench.memory_report import Figure, Rounds, beside
from streamvlm.bench.memory_writing import Cameras, PlainFile
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


def _write_plainly(plan: Plan, path: Path, line: Connection) -> None:
    """A process that writes as many bytes to a file of its own, and flushes twice."""
    del plan
    content = os.urandom(_BATCH * _RECORD_BYTES)
    file = PlainFile(path / f"plain {os.getpid()}")
    _serve(line, lambda: file.append(content, 2))
    file.close()


def writers(plan: Plan, folder: Path) -> Iterator[Figure]:
    """Four processes that append beside one, in turns; and the same with plain files."""
    path = folder / "crowd"
    tokens = max(1, round(_RECORD_BYTES / 2 / plan.width)) if plan.tokens > 1 else 1
    sized = Plan(tokens=tokens, width=plan.width)
    Memory.create(path, identity(128), payload="raw").close()
    alone, crowd = _in_turns(_write, plan, sized, path)
    shutil.rmtree(path)
    how = f"batches of {_BATCH} records of 128 KB, raw, flushed; plain: one process"
    yield beside(
        f"{WRITERS} writers over one, records a second",
        _rates(plan, alone, crowd),
        2.0,
        at_least=True,
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
    path.mkdir()
    # They fill the disk several times as fast.
    short = replace(plan, writing_seconds=plan.writing_seconds / 4)
    rounds = _rates(short, *_in_turns(_write_plainly, short, sized, path))
    shutil.rmtree(path)
    how = "one write of as many bytes, two fdatasync: how far the disk goes; plain: one process"
    what = f"{WRITERS} writers of plain files over one, the same a second"
    yield beside(what, rounds, None, at_least=True, of="records/s", how=how)


def _in_turns(
    does: Callable[[Plan, Path, Connection], None], plan: Plan, sized: Plan, path: Path
) -> tuple[list[list[float]], list[list[float]]]:
    """Milliseconds of each act in each round, of one process and of several."""
    alone: list[list[float]] = []
    crowd: list[list[float]] = []
    with _workers(does, sized, path, WRITERS) as workers:
        for number in range(-1, plan.rounds):
            one = _all_write(workers[:1], plan.writing_seconds)
            many = _all_write(workers, plan.writing_seconds)
            if number >= 0:
                alone.append(one)
                crowd.append(many)
    return alone, crowd


def _rates(plan: Plan, alone: list[list[float]], crowd: list[list[float]]) -> Rounds:
    """Records a second."""
    seconds = plan.writing_seconds
    one, many = ([_BATCH * len(spent) / seconds for spent in some] for some in (alone, crowd))
    return Rounds(tuple(many), tuple(one))


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
