"""What a race of compressors showed, as tables and gates."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from streamvlm.bench.report import Cell, Conditions, Gate, Table, gate_table

SPEEDUPS = {"divprune": 20.0, "fastvid": 2.0, "holitom": 4.0, "prunevid": 4.0}
"""How many times as fast as its published form a method is to be."""
CAUSAL = (
    "dycoke",
    "evs",
    "fastervlm",
    "framefusion",
    "hiprune",
    "longvu",
    "pvc",
    "stc",
    "vidcom2",
    "visionzip",
)
"""Methods for live streams, all but one of which never look ahead."""
MILLISECONDS = 1.5
"""CPU time that those may take for a frame."""
GROWTH = 4.5
"""How many times the memory twice the frames may take."""
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Lap:
    """One method over the whole distance."""

    name: str
    """The plug-in."""
    frames: int
    """T of the clip."""
    dense: int
    """Tokens of the clip."""
    kept: int
    """Tokens after compression."""
    seconds: tuple[float, ...]
    """CPU seconds of each round."""
    peak: int | None
    """Most bytes held at once beside the clip; None if watching that would take too long."""
    growth: float | None
    """Times the peak of a clip of a quarter of the frames; None if it is not known."""
    sees_question: bool = False
    """Whether it runs when a question is asked, and reads it."""

    @property
    def milliseconds(self) -> float:
        """CPU time for each frame, the median of the rounds."""
        return 1000 * statistics.median(self.seconds) / self.frames


@dataclass(frozen=True, slots=True)
class Duel:
    """One method beside its published form, in turns."""

    name: str
    """The method."""
    frames: int
    """T of the clip."""
    kept: int
    """Tokens that ours keeps."""
    seconds: tuple[float, ...]
    """CPU seconds of ours in each round."""
    their_kept: int
    """Tokens that the published form keeps."""
    their_seconds: tuple[float, ...]
    """CPU seconds of the published form in each round."""

    @property
    def ratio(self) -> float:
        """How many times as fast ours is, by the medians."""
        return statistics.median(self.their_seconds) / statistics.median(self.seconds)


@dataclass(frozen=True)
class Race:
    """Everything that was measured."""

    conditions: Conditions
    """Under which."""
    size: str
    """Of the clip, in words."""
    chosen: tuple[str, ...]
    """The methods that were asked for; of others no gate speaks. Empty for all."""
    laps: tuple[Lap, ...]
    """Each method over the whole distance."""
    duels: tuple[Duel, ...]
    """Each method that there is a published form of."""
    skipped: tuple[str, ...] = ()
    """A sentence for each that was left out."""

    def tables(self) -> list[Table]:
        """Time and memory of each, the published forms beside ours, and the gates."""
        beside = [self._duels()] if self.duels else []
        return [self._laps(), *beside, gate_table(self.gates())]

    def gates(self) -> list[Gate]:
        """What was promised; the promises are for T = 128, N = 196, D = 1024, keep 0.1."""
        ratios = {duel.name: duel for duel in self.duels}
        laps = {lap.name: lap for lap in self.laps}
        gates = []
        for name in self._wanted(SPEEDUPS):
            duel, wanted = ratios.get(name), SPEEDUPS[name]
            at = f", T = {duel.frames}" if duel else ""
            found = duel.ratio if duel else None
            # On fewer frames a lead is smaller: there it can be shown, but not be missed.
            if duel and duel.frames < self._frames and duel.ratio < wanted:
                found, at = None, f", T = {self._frames}"
            gates.append(Gate(f"{name}: times as fast as published{at}", found, wanted))
        for name in self._wanted(CAUSAL):
            found = laps[name].milliseconds if name in laps else None
            gates.append(Gate(f"{name}: CPU ms a frame", found, MILLISECONDS, at_least=False))
        grown = [(lap.growth, lap.name) for lap in self.laps if lap.growth is not None]
        what = "most memory for four times the frames, in times"
        worst, name = max(grown, default=(None, ""))
        named = f"{what} ({name})" if name else what
        return [*gates, Gate(named, worst, GROWTH, at_least=False)]

    def _wanted(self, names: Iterable[str]) -> list[str]:
        return [name for name in names if not self.chosen or name in self.chosen]

    def _laps(self) -> Table:
        rows: list[tuple[Cell, ...]] = [
            (
                lap.name,
                1000 * statistics.median(lap.seconds),
                lap.milliseconds,
                lap.kept,
                None if lap.peak is None else lap.peak / _MIB,
                lap.growth,
                len(lap.seconds),
            )
            for lap in sorted(self.laps, key=lambda lap: lap.milliseconds)
        ]
        note = (
            f"{self.size}. CPU time of the whole process, all threads together: the median of the "
            "rounds, after one that does not count. On a busy machine threads that wait for one "
            "another count too; OMP_NUM_THREADS=1 leaves that out. Features: a new scene every 12 "
            "frames, drift, 20 moving tokens, neighbouring frames alike by a cosine of 0.87. Peak: "
            "the most that PyTorch held at once beside the clip itself; its growth: times the peak "
            "of a quarter as many frames; not watched where a loop of many steps makes that slow."
        )
        asked = ", ".join(sorted(lap.name for lap in self.laps if lap.sees_question))
        if asked:
            note += f" Run when a question is asked, and not at ingest: {asked}."
        columns = ("compressor", "CPU ms", "ms/frame", "tokens", "peak MiB", "growth", "rounds")
        notes = [note, *(f"{sentence}." for sentence in self.skipped)]
        return Table("CPU time and memory", columns, tuple(rows), " ".join(notes))

    def _duels(self) -> Table:
        rows: list[tuple[Cell, ...]] = [
            (
                duel.name,
                duel.frames,
                1000 * statistics.median(duel.seconds),
                1000 * statistics.median(duel.their_seconds),
                duel.ratio,
                duel.kept,
                duel.their_kept,
                len(duel.seconds),
            )
            for duel in sorted(self.duels, key=lambda duel: -duel.ratio)
        ]
        note = (
            "CPU time of ours and of a straightforward version in the style of the published code, "
            "in turns on the same clip."
        )
        if short := [duel.name for duel in self.duels if duel.frames < self._frames]:
            note += (
                f" Of {', '.join(short)} the published form takes minutes for {self._frames} "
                "frames, so both are compared on fewer, where its lead is smaller; --full measures "
                "them on all."
            )
        columns = ("compressor", "frames", "ours ms", "published ms", "ratio")
        more = ("our tokens", "published tokens", "rounds")
        return Table("Beside the published form", (*columns, *more), tuple(rows), note)

    @property
    def _frames(self) -> int:
        return max((lap.frames for lap in self.laps), default=0)
