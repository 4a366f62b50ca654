"""One process that does everything a memory is for, in a fixed order, and may die at any step."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from scripts.soak.records import IDENTITY, record, second, stream
from scripts.soak.roles import Log, shrink
from streamvlm.memory import bulk
from streamvlm.memory.catalog import catalog
from streamvlm.memory.index import part
from streamvlm.memory.maintain import erase, maintain
from streamvlm.memory.store import Memory, ShardLimits, StreamInfo
from streamvlm.types import Coverage, Span

SYSTEM_CALLS = ("pwritev", "fdatasync", "fsync", "replace", "rename", "unlink", "mkdir", "utime")
"""Functions of `os` that are counted as steps."""


def tell(job: dict[str, Any]) -> None:
    """Do everything once.

    Args:
        job: folder, log and sync; `stopped` to wait for SIGCONT before the first step, `die_at` to
            be killed just before a step of that number, `steps` a file that lists the steps.
    """
    log = Log(Path(job["log"]))
    # So few keys are worth no index otherwise.
    vars(part).update(INDEX_FROM=4)
    if job.get("stopped"):
        os.kill(os.getpid(), signal.SIGSTOP)
    if "die_at" in job:
        _count_steps(job["die_at"], Path(job["steps"]))
    _Story(Path(job["folder"]), job["sync"], log).tell()


class _Story:
    def __init__(self, folder: Path, sync: Any, log: Log) -> None:
        self._folder = folder
        self._sync = sync
        self._log = log
        self._next = 0

    def tell(self) -> None:
        log, folder, limits = self._log, self._folder, ShardLimits(max_keys=12)
        with log.deed("create"):
            memory = Memory.create(folder, IDENTITY, payload="raw", sync=self._sync, limits=limits)
        with memory:
            for count in (1, 3, 2, 4, 1):
                self._add(memory, count)
            self._know(memory, stream(0))
            memory.search(record(0).keys[1])
            self._adopt(memory, folder / "shards", 4)
            self._adopt(memory, folder.parent / "worker", 5)
            self._forget(memory, stream(1), second(11))
            self._add(memory, 2)
        maintain(folder, sync=self._sync)
        with Memory.open(folder, sync=self._sync, limits=limits) as memory:
            self._add(memory, 2)
            shrink(folder, self._sync, Random(1), log)
            self._forget(memory, stream(0), None)
            self._add(memory, 3)
            memory.roll()
            maintain(folder, sync=self._sync)
            memory.search(record(self._next - 1).keys[2])
            self._add(memory, 1)
            erase(folder, sync=self._sync)
            self._add(memory, 2)

    def _numbers(self, count: int) -> list[int]:
        self._next += count
        return list(range(self._next - count, self._next))

    def _add(self, memory: Memory, count: int) -> None:
        numbers = self._numbers(count)
        with self._log.deed("add", numbers):
            memory.append([record(number) for number in numbers])

    def _adopt(self, memory: Memory, where: Path, count: int) -> None:
        numbers = self._numbers(count)
        records = sorted(map(record, numbers), key=lambda one: (one.stream, one.start))
        # A worker does not flush: the one who adopts answers for it.
        manifest = bulk.write_shard(where, memory.format, records, sync="process")
        with self._log.deed("adopt", numbers):
            memory.adopt([manifest])

    def _know(self, memory: Memory, name: str) -> None:
        spans = (Span(0.0, 3.0, "sampled"),)
        with self._log.deed("know", name):
            memory.put_stream(StreamInfo(name, 1, "d", "r", 3.0, Coverage(name, spans), False))

    def _forget(self, memory: Memory, name: str, before: float | None) -> None:
        with self._log.deed("forget", name, before):
            memory.forget(name, before=before)


def _count_steps(die_at: int, names: Path) -> None:
    """Number every call that changes the disk, and die before one of them."""
    file = os.open(names, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    taken = [0]

    def step(name: str) -> None:
        taken[0] += 1
        os.write(file, f"{name}\n".encode())
        if taken[0] == die_at:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in SYSTEM_CALLS:
        setattr(os, name, _before(getattr(os, name), step, name))
    lock: Callable[..., None] = fcntl.flock

    def flock(descriptor: int, how: int) -> None:
        # Who leaves the gate has committed, and has told nobody yet.
        if how == fcntl.LOCK_UN:
            step("after commit")
        lock(descriptor, how)

    vars(fcntl).update(flock=flock)
    connect = catalog.Catalog._connect

    def watched(path: str, *, uri: bool) -> sqlite3.Connection:
        connection = connect(path, uri=uri)
        connection.set_trace_callback(
            lambda text: step(text.split()[0]) if not text.startswith("SELECT") else None
        )
        return connection

    vars(catalog)["Catalog"]._connect = staticmethod(watched)


def _before(call: Callable[..., Any], step: Callable[[str], None], name: str) -> Callable[..., Any]:
    def wrapped(*values: Any, **options: Any) -> Any:
        paths = [str(value) for value in values if isinstance(value, str | os.PathLike)]
        step(" ".join([name, *(Path(path).suffix for path in paths)]))
        return call(*values, **options)

    return wrapped
