"""A camera's day under a cap, as tables and gates."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.intervals import Interval, interval
from streamvlm.bench.live_gauge import Gauge, Sample
from streamvlm.bench.report import Cell, Conditions, Gate, Table, gate_table
from streamvlm.bench.world.needles import Needle
from streamvlm.memory.store import Caps

AMONG = 5
"""Records that are looked at for an event."""
MOST_GROWTH = 1.0
"""MB an hour that the process may grow."""
FOUND = 0.9
"""Share of the needles of the first hour that must be among the first `AMONG` records."""
_MB = 1e6
_ROWS = 24
_POINTS = 3
"""Samples from which on a slope says something."""


@dataclass(frozen=True, slots=True)
class Found:
    """One event at the end of the day."""

    needle: Needle
    """What was planted."""
    records: int
    """Of the whole memory."""
    holders: int
    """Of these, the ones whose span the event is in."""
    rank: int | None
    """Place of the best holder, from 0; None if it is not among the first `AMONG`."""
    tier: int
    """How far the holders were thinned, at the most."""
    span: float
    """Seconds of the longest holder."""
    has_tokens: bool
    """Whether any token is left of the seconds of the event."""


@dataclass(frozen=True, eq=False)
class Day:
    """Everything that was measured."""

    conditions: Conditions
    """Under which."""
    seconds: int
    """Length of the day."""
    caps: Caps
    """What the memory might take."""
    warm_seconds: int
    """Growth counts from then on."""
    stretches: tuple[tuple[int, int], ...]
    """Parts of the day that are counted apart, in seconds."""
    took: float
    """Seconds of real time."""
    stages: Mapping[str, float]
    """Milliseconds of each stage."""
    appends: NDArray[np.float64]
    """(n,) seconds of each append."""
    sizes: NDArray[np.float64]
    """(n,) bytes of each record as it was appended."""
    starts: NDArray[np.float64]
    """(n,) when each began."""
    gauge: Gauge
    """What was seen of process and folder."""
    finds: tuple[Found, ...]
    """Each needle."""

    def tables(self) -> list[Table]:
        """What it came to, the gates last."""
        return [self._course(), self._figures(), self._needles(), gate_table(self.gates())]

    def gates(self) -> list[Gate]:
        """What was promised for a live camera."""
        caps, gauge = self.caps, self.gauge
        first = self.of(self.stretches[0])
        found = recall(first, AMONG)
        clip = self.seconds / max(len(self.appends), 1)
        growth = self.growth(self.warm_seconds)
        gates = [Gate("growth of the process, MB/h", growth, MOST_GROWTH, at_least=False)]
        for what, most, cap in (
            ("bytes on disk", gauge.disk, caps.max_bytes),
            ("shard files", gauge.shards, caps.max_files),
            ("records", gauge.records, caps.max_records),
        ):
            if cap is not None:
                gates.append(Gate(f"most {what}, share of the cap", most / cap, 1, at_least=False))
        longest = float(self.appends.max()) / clip
        gates.append(Gate("longest append, share of a clip's time", longest, 1, at_least=False))
        name = f"needles of the first hour, recall@{AMONG}"
        gates.append(Gate(name, found.mean, FOUND, interval=found, number=len(first), of="needles"))
        return gates

    def growth(self, since: float) -> float:
        """MB an hour by which the process grows, by least squares; NaN if that cannot be told.

        Args:
            since: from this second of the day on.
        """
        points = [
            (sample.seconds / 3600, sample.resident / _MB)
            for sample in self.gauge.samples
            if sample.resident is not None and sample.seconds >= since
        ]
        if len(points) < _POINTS:
            return math.nan
        hours, used = np.array(points).T
        return float(np.polyfit(hours, used, 1)[0])

    @property
    def window(self) -> float:
        """From which second on a memory of the same cap holds all, if it forgets the oldest."""
        if self.caps.max_bytes is None:
            return 0.0
        held = np.cumsum(self.sizes[::-1]) <= self.caps.max_bytes
        return float(self.starts[::-1][held].min(initial=self.seconds))

    def of(self, stretch: tuple[int, int]) -> list[Found]:
        """The needles of a part of the day."""
        return [f for f in self.finds if stretch[0] <= f.needle.span[0] < stretch[1]]

    def _course(self) -> Table:
        samples = self.gauge.samples
        step = max(1, -(-len(samples) // _ROWS))
        rows = tuple(_row(sample) for sample in samples[step - 1 :: step])
        note = (
            "process: main memory of the whole process, with the model. disk, files: all of the "
            "memory's folder; shards: those files that hold records. tier 0: as stored, 1: a "
            "quarter of the tokens, 2: merged, 3: keys and a thumbnail. search: of five records, "
            "by the process that writes. Pictures are drawn, not decoded from H.264, and none is "
            "dropped: this measures the memory. The day goes by as fast as that goes."
        )
        columns = ("hour", "process MB", "disk MB", "files", "shards", "records")
        tiers = tuple(f"tier {tier}" for tier in range(4))
        return Table("A day under a cap", (*columns, *tiers, "search ms"), rows, note)

    def _figures(self) -> Table:
        caps, gauge, ms = self.caps, self.gauge, 1000 * self.appends
        cap = None if caps.max_bytes is None else caps.max_bytes / _MB
        p50, p99, longest = (float(np.percentile(ms, q)) for q in (50, 99, 100))
        whole = float(np.nansum(self.sizes)) / _MB
        hours = (self.seconds - self.window) / 3600
        rows: list[tuple[Cell, ...]] = [
            ("cap, MB", cap, "on all files of the one stream"),
            ("the day at full size, MB", whole, f"{len(ms)} records as they were appended"),
            ("most on disk, MB", gauge.disk / _MB, "looked at after every append"),
            ("most shard files", gauge.shards, f"cap {caps.max_files}"),
            ("most records", gauge.records, f"at samples; cap {caps.max_records}"),
            ("growth, MB/h", self.growth(self.warm_seconds), f"after {self.warm_seconds} s"),
            ("growth later, MB/h", self.growth(self.seconds / 2), "in the second half of the day"),
            ("append, p50 ms", p50, f"of a clip of {self.seconds / len(ms):.3g} s"),
            ("append, p99 ms", p99, "waits for thinning where the day goes by too fast for it"),
            ("append, longest ms", longest, ""),
            ("a window of the same cap, h", hours, "what fits at full size, the newest"),
            ("frames a second", self.seconds / self.took, f"in {self.took:.0f} s of real time"),
        ]
        spent = ", ".join(f"{name} {ms / 1000:.0f}" for name, ms in self.stages.items())
        note = f"Seconds of real time by stage: {spent}."
        return Table("What it took", ("figure", "value", "how"), tuple(rows), note)

    def _needles(self) -> Table:
        rows: list[tuple[Cell, ...]] = []
        for stretch in self.stretches:
            finds = self.of(stretch)
            found = recall(finds, AMONG)
            inside = [find.needle.span[0] >= self.window for find in finds]
            rows.append(
                (
                    f"{stretch[0] / 3600:.3g}–{stretch[1] / 3600:.3g}",
                    len(finds),
                    recall(finds, 1).mean,
                    *(found.mean, found.low, found.high),
                    _mean([_lucky(find) for find in finds]),
                    _mean(inside),
                    sum(find.has_tokens for find in finds),
                    max((find.tier for find in finds), default=None),
                    float(np.median([find.span for find in finds])) if finds else None,
                )
            )
        note = (
            f"Found if the record that spans the needle comes first, or among the first {AMONG}, "
            f"searched for with the question about it; low, high: 95 % interval of @{AMONG}. "
            "chance: of that if records were in random order. window: the share that a memory of "
            "the same cap still holds that keeps the newest at full size; it can find no more. "
            "tokens: how many needles have any left to be read; the others are found and shown, "
            "not answered from. tier, span: how far the records that hold them were thinned at "
            "the most, and their median length."
        )
        columns = ("seen in hour", "needles", "@1", f"@{AMONG}", "low", "high", "chance")
        more = ("window", "tokens", "tier", "span s")
        return Table("Needles at the end of the day", (*columns, *more), tuple(rows), note)


def recall(finds: Sequence[Found], among: int) -> Interval:
    """The share of needles of which a holder is among the first so many records."""
    hits = [find.rank is not None and find.rank < among for find in finds]
    return interval(hits, np.arange(len(hits)))


def _lucky(find: Found) -> float:
    """Chance that a holder is among `AMONG` records drawn without replacement."""
    tried = min(AMONG, find.records)
    return 1 - math.comb(find.records - find.holders, tried) / math.comb(find.records, tried)


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _row(sample: Sample) -> tuple[Cell, ...]:
    used = None if sample.resident is None else sample.resident / _MB
    counts = (sample.files, sample.shards, sample.records, *sample.tiers)
    hour = f"{sample.seconds / 3600:.3g}"
    return (hour, used, sample.disk / _MB, *counts, 1000 * sample.search)
