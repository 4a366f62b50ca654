"""What measuring the memory showed: beside the plainest way, and against what was promised."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamvlm.bench.report import Cell, Conditions, Gate, Table, gate_table

Measured = Callable[[int], float]
"""Does something once, told the number of the round; returns a figure such as milliseconds."""


@dataclass(frozen=True, slots=True)
class Rounds:
    """Two ways of doing something, in turns."""

    ours: tuple[float, ...]
    """A figure of each round."""
    plain: tuple[float, ...]
    """The same of the other way."""

    @property
    def ratio(self) -> float:
        """Ours over the other, the median of the rounds' own ratios: a busy moment meets both."""
        pairs = zip(self.ours, self.plain, strict=True)
        return statistics.median(ours / plain for ours, plain in pairs)


def in_turns(rounds: int, ours: Measured, plain: Measured) -> Rounds:
    """Measure two ways in turns."""
    found = [(ours(number), plain(number)) for number in range(rounds)]
    return Rounds(tuple(one for one, _ in found), tuple(other for _, other in found))


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of what was measured."""

    what: str
    """In words; also the name of the gate."""
    found: float | None
    """What a promise speaks of, such as a ratio; None if it was not measured."""
    unit: str = "×"
    """Of `found`."""
    wanted: float | None = None
    """What was promised; None for a figure that is only told."""
    at_least: bool = False
    """Whether what was promised is the least, or else the most."""
    ours: float | None = None
    """Ours in `of`, the median of the rounds."""
    plain: float | None = None
    """The plainest way in `of`, likewise."""
    of: str = "ms"
    how: str = ""
    """Under which conditions, and what the plainest way is."""

    def gate(self) -> Gate | None:
        """Whether a promise was kept, if one was given."""
        if self.wanted is None:
            return None
        return Gate(self.what, self.found, self.wanted, self.at_least)


def beside(
    what: str,
    rounds: Rounds,
    wanted: float | None,
    *,
    at_least: bool = False,
    of: str = "ms",
    how: str = "",
) -> Figure:
    """A figure from rounds in turns: the ratio, and what it is to be at most (or at least)."""
    return Figure(
        what,
        rounds.ratio,
        wanted=wanted,
        at_least=at_least,
        ours=statistics.median(rounds.ours),
        plain=statistics.median(rounds.plain),
        of=of,
        how=how,
    )


@dataclass(frozen=True, slots=True)
class Hour:
    """What an hour of a stream takes on disk."""

    model: str
    """Whose width and whose keys."""
    camera: str
    """What it sees, in words."""
    frames: int
    """Kept of the hour."""
    records: int
    tokens: int
    """Stored."""
    bytes: int
    """Of the whole folder."""
    parts: tuple[tuple[str, int], ...]
    """Bytes of features, thumbnails, keys, …"""
    wanted: float | None = None
    """GiB at the most; None for an hour that is only told."""

    @property
    def gib(self) -> float:
        """GiB of an hour."""
        return self.bytes / 2**30

    def gate(self) -> Gate | None:
        """Whether it is as small as was promised, if anything was."""
        if self.wanted is None:
            return None
        what = f"GiB an hour, {self.camera}, {self.model}"
        return Gate(what, self.gib, self.wanted, at_least=False)


@dataclass(frozen=True)
class MemoryBench:
    """Everything that was measured."""

    conditions: Conditions
    """Under which."""
    size: str
    """Of the memories, in words."""
    figures: tuple[Figure, ...]
    """What doing things costs."""
    hours: tuple[Hour, ...]
    """What an hour of a stream takes."""

    def tables(self) -> list[Table]:
        """Costs, bytes an hour, and the gates."""
        shown = [self._costs()] if self.figures else []
        shown += [self._hours()] if self.hours else []
        return [*shown, gate_table(self.gates())]

    def gates(self) -> list[Gate]:
        """What was promised, and what was found."""
        asked: Sequence[Figure | Hour] = (*self.figures, *self.hours)
        return [gate for each in asked if (gate := each.gate()) is not None]

    def _costs(self) -> Table:
        rows: list[tuple[Cell, ...]] = [
            (each.what, each.ours, each.plain, each.of, each.found, each.unit, each.how)
            for each in self.figures
        ]
        note = (
            f"{self.size}. Ours and the plainest way in turns, in the same run; the medians of the "
            "rounds. Found: the median of the rounds' own ratios, or what its unit says. Wall time "
            "but where it says CPU: there both come from main memory, and whoever takes longer is "
            "disturbed more. On a busy machine set OMP_NUM_THREADS=1, or threads wait for one "
            "another."
        )
        columns = ("what", "ours", "plain", "in", "found", "unit", "how")
        return Table("Memory", columns, tuple(rows), note)

    def _hours(self) -> Table:
        rows: list[tuple[Cell, ...]] = [
            (
                each.model,
                each.camera,
                each.frames,
                each.records,
                each.tokens,
                each.gib,
                ", ".join(f"{name} {100 * size / each.bytes:.1f} %" for name, size in each.parts),
            )
            for each in self.hours
        ]
        note = (
            "One frame a second, clips of 8 s, a tenth of the tokens, int8; the folder after it "
            "was closed: shards, catalogue, index files if there are any."
        )
        columns = ("model", "camera", "frames", "records", "tokens", "GiB", "of which")
        return Table("Bytes an hour", columns, tuple(rows), note)
