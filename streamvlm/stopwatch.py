"""Where the time goes: wall milliseconds and items per stage of a chain of generators."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


class Stopwatch:
    """Charges each moment to exactly one stage, the innermost one that runs.

    A generator that pulls from another one would otherwise be charged for both.

    >>> watch = Stopwatch()
    >>> list(watch.items("decode", "abc"))
    ['a', 'b', 'c']
    >>> watch.counts["decode"], sorted(watch.milliseconds)
    (3, ['decode'])
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """Items that each stage has given."""
        self._seconds: dict[str, float] = {}
        self._running: list[str] = []
        self._since = time.perf_counter()

    @property
    def milliseconds(self) -> dict[str, float]:
        """Wall milliseconds of each stage so far, in order of first use."""
        return {stage: round(seconds * 1000, 3) for stage, seconds in self._seconds.items()}

    def _charge(self) -> None:
        now = time.perf_counter()
        if self._running:
            self._seconds[self._running[-1]] += now - self._since
        self._since = now

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Charge what runs inside to this stage, and pause the one around it."""
        self._charge()
        self._seconds.setdefault(name, 0.0)
        self._running.append(name)
        try:
            yield
        finally:
            self._charge()
            self._running.pop()

    def items(self, name: str, items: Iterable[T]) -> Iterator[T]:
        """The same items, with the making of each charged to this stage and counted."""
        source = iter(items)
        while True:
            with self.stage(name):
                try:
                    item = next(source)
                except StopIteration:
                    return
            self.counts[name] += 1
            yield item
