"""`streamvlm bench live`: a camera for a day under a cap: is it bounded, is the morning remembered?

The day is a film of shapes with short events planted in it. Its pictures are drawn and go, clip by
clip, the way of an ingest: encoded, compressed, embedded, appended to a memory that may take only
so many bytes, as fast as that goes. Nothing is encoded as H.264: what is measured is the memory.
"""

from __future__ import annotations

import array
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.live_gauge import Gauge
from streamvlm.bench.live_report import AMONG, Day, Found
from streamvlm.bench.report import Progress, here, silent
from streamvlm.bench.world import Film
from streamvlm.bench.world.drawing import pictures
from streamvlm.bench.world.needles import NEEDLE_SECONDS, Needle, plan_needles
from streamvlm.config import Config
from streamvlm.errors import BadOption
from streamvlm.ingest import Stages, records
from streamvlm.memory.catalog.rows import Rows
from streamvlm.memory.store import Caps, Identity, Memory
from streamvlm.stopwatch import Stopwatch
from streamvlm.types import Frame

SIZE = 96
"""Of the pictures: what the demo model looks at."""
CAPS = Caps(max_bytes=200_000_000, max_records=4096, max_files=64)
"""What a day is pressed into, unless told otherwise."""
_STREAM = "a camera"
_SEEDS_APART = 1_000
_BORDERS = (1, 6, 12, 18)
"""Hours between which needles are counted apart; beyond, every six."""
_FIRST = 1 / 3
"""So many of the needles are in the first stretch: one in thirty would not tell much of it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a day, and how little room.

    Raises:
        BadOption: when made, if something is out of range.
    """

    seconds: int = 24 * 3600
    """Length of the day, one frame a second."""
    caps: Caps = CAPS
    """What the memory may take."""
    needles: int = 30
    """Events planted, a third of them in the first hour."""
    sample_seconds: int = 600
    """How often the process and the folder are looked at."""
    warm_seconds: int = 3600
    """What the process takes until then is not counted as growth."""
    seed: int = 1
    """Of the film."""

    def __post_init__(self) -> None:
        if self.seconds < 60 or self.sample_seconds < 1:
            raise BadOption("a day must have at least a minute, and samples a second between them")
        if self.needles < len(self.stretches):
            raise BadOption(
                f"{self.needles} needles for {len(self.stretches)} stretches of the day, expected "
                "at least one for each"
            )

    @property
    def stretches(self) -> tuple[tuple[int, int], ...]:
        """First and last second, exclusive, of the parts of the day that are counted apart."""
        later = range(_BORDERS[-1] + 6, self.seconds // 3600 + 1, 6)
        borders = [3600 * hour for hour in (0, *_BORDERS, *later) if 3600 * hour < self.seconds]
        return tuple(pairwise((*borders, self.seconds)))

    def ages(self) -> tuple[int, ...]:
        """How long before the end of the day each needle begins."""
        dice = np.random.default_rng((self.seed, self.needles))
        first = max(1, round(_FIRST * self.needles)) if len(self.stretches) > 1 else self.needles
        others = np.array_split(np.arange(self.needles - first), max(len(self.stretches) - 1, 1))
        counts = (first, *map(len, others))
        starts = []
        for (begin, end), count in zip(self.stretches, counts, strict=False):
            for low, high in pairwise(np.linspace(begin, end, count + 1).astype(int).tolist()):
                if high - low < NEEDLE_SECONDS:
                    raise BadOption(
                        f"{count} needles in {end - begin} s; plan a longer day or fewer"
                    )
                starts.append(int(dice.integers(low, high - NEEDLE_SECONDS + 1)))
        return tuple(self.seconds - start for start in starts)


def measure_live(config: Config, plan: Plan | None = None, progress: Progress = silent) -> Day:
    """Let a camera run for a day into a memory with a cap, and ask for what it saw.

    Args:
        config: its clips, model, compressor and embedder see the day, its payload is stored; its
            filter of still frames plays no part, so that the cap is pressed.
        plan: how long and how little room; None for a day in 200 MB.
        progress: is told how much of the day is over.

    Returns:
        Everything that was measured.

    Raises:
        BadOption: so many needles do not fit into such a day.
        ModelError: the weights cannot be loaded.
    """
    plan = plan or Plan()
    progress("planning the day", 0, 1)
    seed = plan.seed * _SEEDS_APART
    film, needles = plan_needles(seed, plan.seconds, plan.needles, ages=plan.ages())
    progress("planning the day", 1, 1)
    with tempfile.TemporaryDirectory(prefix="streamvlm-live-") as folder, config.build() as vlm:
        stages, path = vlm.stages, Path(folder) / "memory"
        eye, key = stages.model.model, stages.embedder
        keys = [key.embed_text(needle.question.text) for needle in needles]
        identity = Identity(eye, key.model, key.width)
        stored = config.storage
        began = time.perf_counter()
        with Memory.create(
            path, identity, payload=stored.payload, sync=stored.sync, caps=plan.caps
        ) as memory:
            shift = _Shift(plan, memory, keys)
            shift.watch(film, stages, progress)
        took = time.perf_counter() - began
        finds = _finds(path, needles, keys)
    return Day(
        conditions=here(plan.seed, f"{eye}, embedder {key.model}"),
        seconds=plan.seconds,
        caps=plan.caps,
        warm_seconds=plan.warm_seconds,
        stretches=plan.stretches,
        took=took,
        stages=shift.stopwatch.milliseconds,
        appends=np.array(shift.appends),
        sizes=np.array(shift.sizes),
        starts=np.array(shift.starts),
        gauge=shift.gauge,
        finds=finds,
    )


class _Shift:
    """The camera's day, record by record."""

    def __init__(self, plan: Plan, memory: Memory, keys: list[NDArray[np.float32]]) -> None:
        self._plan, self._memory, self._keys = plan, memory, keys
        self.gauge = Gauge(memory.path)
        self.stopwatch = Stopwatch()
        # Arrays of numbers, for lists of ten thousand objects would count as growth.
        self.appends, self.sizes, self.starts = (array.array("d") for _ in range(3))

    def watch(self, film: Film, stages: Stages, progress: Progress) -> None:
        """Look at all of a film, and sample."""
        due = self._plan.sample_seconds
        rows = Rows(self._memory.path / "catalog.db", writable=False)
        try:
            clips = stages.clips(self.stopwatch.items("draw", _frames(film)))
            for record in records(clips, stages, self.stopwatch):
                with self.stopwatch.stage("store"):
                    began = time.perf_counter()
                    self._memory.append([record])
                    self.appends.append(time.perf_counter() - began)
                row = rows.place(record.id)
                self.starts.append(record.start)
                self.sizes.append(row.segment.length if row is not None else np.nan)
                self.gauge.look()
                while record.end >= due:
                    self.gauge.sample(due, rows, self._search(due))
                    due += self._plan.sample_seconds
                progress("watching", int(record.end), film.seconds)
        finally:
            rows.close()

    def _search(self, due: int) -> float:
        """Ask as somebody would who looks at the camera; seconds that it took."""
        key = self._keys[due // self._plan.sample_seconds % len(self._keys)]
        began = time.perf_counter()
        self._memory.search(key, limit=AMONG)
        return time.perf_counter() - began


def _frames(film: Film) -> Iterator[Frame]:
    for index, image in enumerate(pictures(film, 1, SIZE)):
        yield Frame(_STREAM, index, float(index), image)


def _finds(
    path: Path, needles: tuple[Needle, ...], keys: list[NDArray[np.float32]]
) -> tuple[Found, ...]:
    """Where the question about each needle leads, at the end of the day."""
    rows = Rows(path / "catalog.db", writable=False)
    try:
        spans = [(r.segment.uid, r.segment.start, r.segment.end) for r in rows.stream_rows(_STREAM)]
    finally:
        rows.close()
    finds = []
    with Memory.open(path, writable=False) as memory:
        for needle, key in zip(needles, keys, strict=True):
            since, until = needle.span
            hits = memory.search(key, limit=AMONG)
            places = [n for n, hit in enumerate(hits) if hit.start < until and hit.end > since]
            holders = memory.load([u for u, start, end in spans if start < until and end > since])
            seen = [record.tokens.seconds.numpy() for record in holders]
            finds.append(
                Found(
                    needle=needle,
                    records=len(spans),
                    holders=len(holders),
                    rank=places[0] if places else None,
                    tier=max(record.tier for record in holders),
                    span=max(record.end - record.start for record in holders),
                    has_tokens=any(((s >= since) & (s < until)).any() for s in seen),
                )
            )
    return tuple(finds)
