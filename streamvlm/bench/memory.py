"""`streamvlm bench memory`: what the memory costs beside the plainest way, and bytes an hour.

Every figure is a ratio of two ways that take turns in the same run: an append beside one write of
the same bytes, a search beside comparing all keys with numpy. So figures of two machines, or of a
busy and a quiet one, can be compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from streamvlm.bench.memory_crowd import reader, writers
from streamvlm.bench.memory_hours import hours
from streamvlm.bench.memory_plan import Plan
from streamvlm.bench.memory_reading import reading
from streamvlm.bench.memory_report import Figure, Hour, MemoryBench
from streamvlm.bench.memory_searching import searching
from streamvlm.bench.memory_writing import writing
from streamvlm.bench.report import Progress, here, silent

_FIGURES = {"writing": 10, "reading": 11, "searching": 7, "hours": 4}
"""How many each part gives, for those who watch."""


def _all_writing(plan: Plan, folder: Path) -> Iterator[Figure]:
    yield from writing(plan, folder)
    yield from writers(plan, folder)


def _all_reading(plan: Plan, folder: Path) -> Iterator[Figure]:
    yield from reading(plan, folder)
    yield from reader(plan, folder)


_PARTS: dict[str, Callable[[Plan, Path], Iterator[Figure | Hour]]] = {
    "writing": _all_writing,
    "reading": _all_reading,
    "searching": searching,
    "hours": hours,
}


def measure_memory(plan: Plan | None = None, progress: Progress = silent) -> MemoryBench:
    """Build memories, and measure what they cost.

    Args:
        plan: how large; None for the usual.
        progress: is told of each figure.

    Returns:
        Everything that was measured.
    """
    plan = plan or Plan()
    figures: list[Figure] = []
    spans: list[Hour] = []
    for part in plan.parts:
        progress(part, 0, _FIGURES[part])
        with tempfile.TemporaryDirectory(prefix="streamvlm-memory-", dir=plan.folder) as folder:
            for done, found in enumerate(_PARTS[part](plan, Path(folder)), start=1):
                if isinstance(found, Hour):
                    spans.append(found)
                else:
                    figures.append(found)
                progress(part, done, _FIGURES[part])
    return MemoryBench(
        conditions=here(0, "none: made-up keys and tokens"),
        size=plan.words(),
        figures=tuple(figures),
        hours=tuple(spans),
    )
