"""Rounds of work that end with a kill, and what must be true of the memory after each."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from scripts.soak.nursery import Nursery
from scripts.soak.records import IDENTITY, SPAN, difference, number_of, record, second, stream
from streamvlm.memory.maintain import erase
from streamvlm.memory.store import Memory

MODULE = "scripts.soak.roles"
"""What the nursery has to import."""

_ADDING = ("add", "adopt")
_WRITERS = 2
_PATIENCE = 60.0
_SEARCHED = 8


class Broken(AssertionError):
    """The memory is not what was acknowledged."""


@dataclass
class Ledger:
    """What is known of the records from the logs."""

    present: set[int] = field(default_factory=set)
    """Acknowledged, and not acknowledged as forgotten."""
    tier: dict[int, int] = field(default_factory=dict)
    """Those that are known to be thinned."""
    in_flight: list[set[int]] = field(default_factory=list)
    """Groups that are there whole or not at all: what a kill interrupted."""
    maybe_thin: set[int] = field(default_factory=set)
    """Thinned or not: nobody said so."""
    streams: set[str] = field(default_factory=set)
    """Of which it is known what was watched."""
    following: dict[int, int] = field(default_factory=dict)
    """Where each writer goes on."""
    done: int = 0
    """How many deeds were acknowledged."""

    def take(self, lines: list[list[Any]], writer: int | None) -> None:
        """Read what one process did until it was killed."""
        pending: list[Any] | None = None
        for word, *rest in lines:
            if word == "wrong":
                raise Broken(rest[0])
            if word == "try":
                # A thinning that came too late is not acknowledged.
                self._apply(pending, is_sure=False)
                pending = rest
            elif word == "did":
                self._apply(pending, is_sure=True)
                pending = None
                self.done += 1
        if writer is not None and pending is not None and pending[0] in _ADDING:
            self.following[writer] = min(pending[1])
        self._apply(pending, is_sure=False)

    def _apply(self, deed: list[Any] | None, *, is_sure: bool) -> None:
        if deed is None:
            return
        kind, *rest = deed
        if kind == "shrink":
            names = set(rest[0])
            if is_sure:
                self.tier |= dict.fromkeys(names, 1)
            else:
                self.maybe_thin |= names
            return
        if kind in ("create", "know"):
            if is_sure:
                self.streams.update(rest)
            return
        if kind in _ADDING:
            group = set(rest[0])
            self.following[min(group) // SPAN] = max(group) + 1
        else:
            name, before = rest
            if before is None:
                self.streams.discard(name)
            of_stream = {number for number in self.present if stream(number) == name}
            group = {n for n in of_stream if before is None or second(n) + 1 <= before}
        if not is_sure:
            self.in_flight.append(group)
            self.present -= group
        elif kind in _ADDING:
            self.present |= group
        else:
            self.present -= group

    def settle(self, found: set[int]) -> None:
        """Compare with what is there, which is true from now on.

        Raises:
            Broken: something acknowledged is lost, or something is there that should not be.
        """
        if lost := self.present - found:
            raise Broken(f"{len(lost)} acknowledged records are lost, as {sorted(lost)[:5]}")
        more = found - self.present
        for group in self.in_flight:
            if group & more not in (group, set()):
                raise Broken(f"of a batch that was in flight a part is there: {group & more}")
            more -= group
        if more:
            raise Broken(f"{len(more)} records are there again, as {sorted(more)[:5]}")
        self.present = set(found)
        self.in_flight = []


def verify(folder: Path, ledger: Ledger, random: Random, searches: int | None) -> None:
    """Look whether a memory holds what a ledger says, byte for byte, and finds it.

    Args:
        folder: the memory's.
        ledger: settled by this.
        random: chooses what is searched for.
        searches: how many records are searched for by their own keys; None for all.

    Raises:
        Broken: it does not.
    """
    with Memory.open(folder, writable=False) as memory:
        ids = memory.ids()
        numbers = [number_of(uid) for uid in ids]
        if len(set(numbers)) != len(numbers) or len(memory) != len(numbers):
            raise Broken("a record is there twice")
        ledger.settle(set(numbers))
        if unknown := ledger.streams - {info.stream for info in memory.streams()}:
            raise Broken(f"what is known of {unknown} is lost")
        for loaded in memory.load(ids):
            if (wrong := difference(loaded)) is not None:
                raise Broken(wrong)
            number = number_of(loaded.id)
            if number not in ledger.maybe_thin and loaded.tier != ledger.tier.get(number, 0):
                raise Broken(f"{loaded.id} is of tier {loaded.tier}")
            ledger.tier[number] = loaded.tier
        ledger.maybe_thin = set()
        count = len(numbers) if searches is None else min(searches, len(numbers))
        for number in random.sample(numbers, count):
            _find(memory, number)


def _find(memory: Memory, number: int) -> None:
    wanted = record(number)
    for key in wanted.keys:
        hits = memory.search(key, limit=4)
        if wanted.id not in [hit.id for hit in hits]:
            raise Broken(f"{wanted.id} is not found by its own key: {hits}")
        if len({hit.id for hit in hits}) != len(hits):
            raise Broken(f"a record is found twice: {hits}")


@dataclass
class Soak:
    """A memory and the processes that are killed at work on it."""

    folder: Path
    nursery: Nursery
    random: Random
    ledger: Ledger = field(default_factory=Ledger)

    def __post_init__(self) -> None:
        Memory.create(self.folder, IDENTITY, payload="raw").close()
        self.ledger.following = {writer: writer * SPAN for writer in range(_WRITERS)}

    def round(self, sync: str) -> None:
        """Let two writers, a keeper and a reader work, kill them, look at what is left.

        Raises:
            Broken: a promise of the memory is not kept.
        """
        roles = [("write", writer) for writer in range(_WRITERS)] + [("keep", None), ("read", None)]
        logs: list[tuple[Path, int | None, int]] = []
        for place, (role, writer) in enumerate(roles):
            log = self.folder.with_name(f"log-{place}")
            log.unlink(missing_ok=True)
            first = self.ledger.following[writer] if writer is not None else 0
            job = {"role": role, "folder": str(self.folder), "log": str(log), "sync": sync}
            seed = self.random.randrange(1 << 30)
            child = self.nursery.start(f"{MODULE}:run", **job, seed=seed, first=first)
            logs.append((log, writer, child))
        deadline = time.monotonic() + _PATIENCE
        while not all(log.exists() and log.stat().st_size for log, _, _ in logs):
            if time.monotonic() > deadline:
                raise Broken(f"a process did not open the memory within {_PATIENCE} seconds")
            time.sleep(0.005)
        time.sleep(self.random.uniform(0, 0.5))
        self.random.shuffle(logs)
        for _, _, child in logs:
            self.nursery.kill(child)
        # Forgotten is only what was there: first what was added.
        for log, writer, _ in logs:
            lines = log.read_text().splitlines() if log.exists() else []
            self.ledger.take([json.loads(line) for line in lines], writer)
        verify(self.folder, self.ledger, self.random, _SEARCHED)

    def finish(self) -> None:
        """Take everything deleted off the disk and see that it is gone, and the rest is not.

        Raises:
            Broken: it is not.
        """
        report = erase(self.folder)
        if report.kept_bytes:
            raise Broken(f"{report.kept_bytes} deleted bytes are left")
        verify(self.folder, self.ledger, self.random, None)
