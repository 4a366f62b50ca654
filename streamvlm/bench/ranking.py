"""What a comparison of compressors shows, and what it cannot tell apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.exam import Mark
from streamvlm.bench.intervals import Interval, interval, paired

BASELINES = ("random", "uniform")
"""What every compressor has to beat, at the same budget."""


@dataclass(frozen=True, slots=True)
class Method:
    """A compressor at one budget."""

    name: str
    """The plug-in."""
    keep: float | None
    """The share of the tokens it was asked for; None if it has no such option."""
    like: str = ""
    """Of every clip it takes as much as this compressor, which has no such option."""

    def __str__(self) -> str:
        return f"{self.name} at {self.budget}" if self.budget else self.name

    @property
    def budget(self) -> str:
        """What it was asked to keep, in words; empty if it was not asked."""
        if self.keep is not None:
            return f"keep {self.keep:g}"
        return f"the budget of {self.like}" if self.like else ""


@dataclass(frozen=True, slots=True)
class Sitting:
    """One clip compressed by one method, and the questions on it answered."""

    marks: tuple[Mark, ...]
    """In the order of the paper's questions."""
    frames: int
    """Of the clip."""
    kept: float
    """Tokens after compression; the mean over the questions if it differs from one to the next."""
    dense: int
    """Tokens before."""
    milliseconds: float
    """Wall time of the compression of the whole clip, without encoding."""


@dataclass(frozen=True)
class Trial:
    """All clips under one method. Trials of one comparison have the same questions in one order."""

    method: Method
    """What was tried."""
    sittings: tuple[Sitting, ...]
    """One for each clip."""
    sees_question: bool = False
    """Whether the compressor reads the question, which none can at ingest."""

    @cached_property
    def marks(self) -> tuple[Mark, ...]:
        """Of all clips."""
        return tuple(mark for sitting in self.sittings for mark in sitting.marks)

    @cached_property
    def right(self) -> NDArray[np.float64]:
        """(n,) 1 where the answer was right, else 0."""
        return np.array([mark.right for mark in self.marks], np.float64)

    @cached_property
    def clip(self) -> NDArray[np.int64]:
        """(n,) the clip of each question."""
        return np.array([mark.clip for mark in self.marks], np.int64)

    @cached_property
    def accuracy(self) -> Interval:
        """Share of right answers, every question alike."""
        return interval(self.right, self.clip)

    @property
    def frames(self) -> int:
        """Frames of all clips."""
        return sum(sitting.frames for sitting in self.sittings)

    @property
    def share(self) -> float:
        """The share of all tokens that was really kept, 0 to 1."""
        return sum(s.kept for s in self.sittings) / sum(s.dense for s in self.sittings)

    @property
    def tokens(self) -> float:
        """Tokens really kept for each frame."""
        return sum(sitting.kept for sitting in self.sittings) / self.frames

    @property
    def milliseconds(self) -> float:
        """Wall time for each frame, without encoding."""
        return sum(sitting.milliseconds for sitting in self.sittings) / self.frames

    def by_kind(self) -> dict[str, float]:
        """Share of right answers of each kind of question that was asked."""
        right: dict[str, list[bool]] = {}
        for mark in self.marks:
            right.setdefault(mark.kind, []).append(mark.right)
        return {kind: sum(of_kind) / len(of_kind) for kind, of_kind in sorted(right.items())}

    def above(self, other: Trial) -> Interval:
        """How much more is right than under another method, on the same questions."""
        return paired(self.right, other.right, self.clip)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two compressors at the same budget."""

    keep: float
    """The share of the tokens that both were asked for."""
    one: str
    """The one that was right more often."""
    other: str
    """The one that was not."""
    difference: Interval
    """How much more often the first was right."""

    @property
    def is_separable(self) -> bool:
        """Whether the interval of the difference leaves zero out."""
        return self.difference.low > 0 or self.difference.high < 0


_ROUNDING = 1e-9
"""A standard error below this is none."""


@dataclass(frozen=True, slots=True)
class Spread:
    """How far the best compressor at a budget stands above `random`."""

    keep: float
    """The budget."""
    best: str
    """The one right most often of those that see no question, `random` aside."""
    above: Interval
    """Its lead."""

    @property
    def errors(self) -> float:
        """The lead in standard errors; NaN if the lead does not vary, but for rounding."""
        return self.above.mean / self.above.error if self.above.error > _ROUNDING else math.nan


@dataclass(frozen=True)
class Ranking:
    """Trials on the same questions, compared."""

    trials: tuple[Trial, ...]
    """At least two compressors at a budget, `random` among them."""

    @cached_property
    def by_method(self) -> Mapping[Method, Trial]:
        """Each method's trial."""
        return {trial.method: trial for trial in self.trials}

    @property
    def keeps(self) -> list[float]:
        """The budgets that were asked for, the largest first."""
        asked = {trial.method.keep for trial in self.trials}
        return sorted((keep for keep in asked if keep is not None), reverse=True)

    def at(self, keep: float) -> list[Trial]:
        """The trials at one budget, the best first; equals in the order of their names."""
        found = [trial for trial in self.trials if trial.method.keep == keep]
        return sorted(found, key=lambda trial: (-trial.accuracy.mean, trial.method.name))

    def ordered(self) -> Iterator[Trial]:
        """All trials: by budget, then by accuracy; those without a budget last."""
        for keep in self.keeps:
            yield from self.at(keep)
        yield from (trial for trial in self.trials if trial.method.keep is None)

    def baseline(self, trial: Trial, name: str) -> Trial | None:
        """The trial of a baseline with the same budget; None for a baseline's own trial.

        Args:
            trial: any of the trials.
            name: one of `BASELINES`.
        """
        method = trial.method
        if method.name == name:
            return None
        like = method.like or ("" if method.keep is not None else method.name)
        return self.by_method.get(Method(name, method.keep, like))

    @cached_property
    def pairs(self) -> tuple[Pair, ...]:
        """Every two compressors at every budget below 1, the better one first."""
        return tuple(
            Pair(keep, one.method.name, other.method.name, one.above(other))
            for keep in self.keeps
            if keep < 1
            for one, other in combinations(self.at(keep), 2)
        )

    @cached_property
    def spreads(self) -> tuple[Spread, ...]:
        """The lead of the best at every budget below 1."""
        return tuple(self._spread(keep, self.at(keep)) for keep in self.keeps if keep < 1)

    def _spread(self, keep: float, trials: Sequence[Trial]) -> Spread:
        best = next(
            trial for trial in trials if trial.method.name != "random" and not trial.sees_question
        )
        lead = best.above(self.by_method[Method("random", keep)])
        return Spread(keep, best.method.name, lead)

    def level(self, spread: Spread) -> list[str]:
        """The compressors that cannot be told apart from the best at its budget, in their order.

        Args:
            spread: one of `spreads`.
        """
        return [
            pair.other if pair.one == spread.best else pair.one
            for pair in self.pairs
            if pair.keep == spread.keep
            and spread.best in (pair.one, pair.other)
            and not pair.is_separable
        ]
