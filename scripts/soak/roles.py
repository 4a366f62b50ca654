"""What each process does to the memory until it is killed; it logs before and after each deed.

The log is written with one call of the system for each line, so what is in it survives the kill of
the process that wrote it.
"""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from scripts.soak.records import STREAMS, difference, number_of, record, shrunk, stream
from streamvlm.errors import MemoryStoreError
from streamvlm.memory import bulk, maintain
from streamvlm.memory.disk.codec import pack, unpack_stored
from streamvlm.memory.disk.packing import Packed
from streamvlm.memory.disk.rewrite import Kept, Replaced, rewrite
from streamvlm.memory.store import Memory, ShardLimits


class Log:
    """What a process was about to do and what it did."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def say(self, *words: Any) -> None:
        """Write one line."""
        os.write(self._file, json.dumps(words).encode() + b"\n")

    @contextmanager
    def deed(self, *words: Any) -> Iterator[None]:
        """`try` before what happens inside, `did` once it is acknowledged."""
        self.say("try", *words)
        yield
        self.say("did")


class Writer:
    """Appends, rolls, forgets, adopts, tidies up and searches, in random order."""

    def __init__(self, job: dict[str, Any], log: Log) -> None:
        self._log = log
        self._random = Random(job["seed"])
        self._folder = Path(job["folder"])
        self._sync = job["sync"]
        self._number: int = job["first"]
        limits = ShardLimits(
            max_bytes=self._random.choice([30_000, 1 << 20]),
            max_keys=self._random.choice([30, 400]),
        )
        self._memory = Memory.open(self._folder, sync=self._sync, limits=limits)

    def step(self) -> None:
        """Do one thing."""
        deeds = [self._append, self._roll, self._forget, self._adopt, self._tidy, self._search]
        (deed,) = self._random.choices(deeds, [60, 2, 4, 6, 2, 10])
        deed()

    def _next(self, count: int) -> list[int]:
        numbers = list(range(self._number, self._number + count))
        self._number += count
        return numbers

    def _append(self) -> None:
        numbers = self._next(self._random.randint(1, 4))
        with self._log.deed("add", numbers):
            self._memory.append([record(number) for number in numbers])

    def _roll(self) -> None:
        self._memory.roll()

    def _forget(self) -> None:
        name = stream(self._number + self._random.randrange(STREAMS))
        before = None
        if self._random.random() < 0.8:
            before = record(max(self._number - self._random.randrange(60), 0)).start
        with self._log.deed("forget", name, before):
            self._memory.forget(name, before=before)

    def _adopt(self) -> None:
        numbers = self._next(self._random.randint(3, 9))
        where = self._folder / "shards"
        if self._random.random() < 0.5:
            where = self._folder.parent / "workers"
        records = sorted(map(record, numbers), key=lambda one: (one.stream, one.start))
        manifest = bulk.write_shard(where, self._memory.format, records, sync=self._sync)
        with self._log.deed("adopt", numbers):
            self._memory.adopt([manifest])
        if self._random.random() < 0.5 and where.name == "shards":
            self._memory.adopt([manifest])

    def _tidy(self) -> None:
        tidy(self._folder, self._sync, self._random)

    def _search(self) -> None:
        self._memory.search(record(max(self._number - 1, 0)).keys[0])


def tidy(folder: Path, sync: Any, random: Random) -> None:
    """One pass of maintenance, of either kind, if nobody else is at it."""
    try:
        random.choice([maintain.maintain, maintain.maintain, maintain.erase])(folder, sync=sync)
    except MemoryStoreError as error:
        if "another process maintains" not in str(error):
            raise


def shrink(folder: Path, sync: Any, random: Random, log: Log) -> None:
    """Put smaller records in the place of some, as thinning does, and move their neighbours."""
    try:
        with maintain.maintaining(folder, sync) as (catalog, reader):
            shards = [shard for shard in catalog.shards("sealed") if catalog.held(shard.name)]
            if not shards:
                return
            pieces: list[Kept | Replaced] = []
            names = []
            for row in catalog.held(random.choice(shards).name):
                segment = row.segment
                if segment.tier or random.random() < 0.5:
                    pieces.append(Kept(row))
                    continue
                blob = reader.read(row.shard, segment.offset, segment.length)
                whole, indexed = unpack_stored(blob, segment.uid)
                less = shrunk(whole)
                anchor = bool(segment.is_anchor)
                small = pack(less, "raw", indexed, is_anchor=anchor)
                pieces.append(Replaced([row], Packed(less, [small], int(indexed.sum()), anchor)))
                names.append(number_of(segment.uid))
            log.say("try", "shrink", names)
            if pieces and rewrite(folder, catalog, reader, pieces, sync):
                log.say("did")
    except MemoryStoreError as error:
        if "another process maintains" not in str(error):
            raise


def write(job: dict[str, Any], log: Log) -> Callable[[], None]:
    """A process that appends and much else."""
    return Writer(job, log).step


def keep(job: dict[str, Any], log: Log) -> Callable[[], None]:
    """The process that tidies up and thins."""
    random, folder = Random(job["seed"]), Path(job["folder"])

    def step() -> None:
        if random.random() < 0.5:
            tidy(folder, job["sync"], random)
        else:
            shrink(folder, job["sync"], random, log)

    return step


def read(job: dict[str, Any], log: Log) -> Callable[[], None]:
    """The process that searches and checks every byte."""
    random = Random(job["seed"])
    memory = Memory.open(Path(job["folder"]), writable=False)

    def step() -> None:
        ids = memory.ids()
        if not ids:
            return time.sleep(0.01)
        wanted = random.choice(ids)
        query = record(number_of(wanted)).keys[random.randrange(3)]
        found = [hit.id for hit in memory.search(query)]
        if wanted not in found and wanted in memory.ids():
            log.say("wrong", f"{wanted} is there and was not found")
        for each in {wanted, *found}:
            try:
                (loaded,) = memory.load([each])
            except MemoryStoreError as error:
                if "has no record" not in str(error):
                    log.say("wrong", f"{each} cannot be loaded: {error}")
                continue
            if (wrong := difference(loaded)) is not None:
                log.say("wrong", wrong)

    return step


def run(job: dict[str, Any]) -> None:
    """Be one process until it is killed.

    Args:
        job: role, folder, log, seed, sync and, of a writer, its first number.
    """
    log = Log(Path(job["log"]))
    try:
        step = {"keep": keep, "read": read, "write": write}[job["role"]](job, log)
        log.say("ready")
        while True:
            step()
    except BaseException:
        log.say("wrong", traceback.format_exc())
