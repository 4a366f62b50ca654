"""What was measured of compressors, as tables and as a plot."""

from __future__ import annotations

from dataclasses import dataclass

from streamvlm.bench.intervals import Interval
from streamvlm.bench.plot import Curve, Picture, draw_curves
from streamvlm.bench.ranking import BASELINES, Method, Ranking, Spread, Trial
from streamvlm.bench.report import FEWEST, Cell, Conditions, Gate, Table, gate_table

GATE_KEEP, GATE_ERRORS = 0.1, 4.0
"""At this budget the best must stand so many standard errors above `random`."""
_NEARLY = 0.9
"""Of the tokens asked for; a compressor that keeps less is named."""
_COLOURED = 6
"""Curves that stand out where there are more than a reader can tell apart."""
_READABLE = 8
"""So many can be told apart."""
_NONE: tuple[Cell, ...] = (None, None)
"""What no compressor did."""


@dataclass(frozen=True)
class Compression:
    """Everything that was measured of some compressors on one model."""

    conditions: Conditions
    """Under which."""
    ranking: Ranking
    """Each compressor at each budget, compared."""
    ceiling: Trial
    """With all tokens."""
    floor: Trial
    """Without any: what is guessed from the question alone."""
    skipped: tuple[str, ...] = ()
    """A sentence for each compressor that was left out."""

    def tables(self) -> list[Table]:
        """Accuracy and cost, the comparison with the baselines, and what cannot be told apart."""
        shown = [self._accuracy(), self._against(), self._separable()]
        return [*shown, gate_table(self.gates())]

    def details(self) -> list[Table]:
        """Every pair of compressors, and the accuracy of each by kind of question."""
        return [self._pairs(), self._kinds()]

    def gates(self) -> list[Gate]:
        """What was promised of this measurement."""
        spread, clips = self.spread, len(self.ceiling.sittings)
        found = None if spread is None else spread.errors
        what = f"best compressor at keep {GATE_KEEP:g} above random, in standard errors"
        return [Gate(f"{what}, {clips} clips", found, GATE_ERRORS, number=clips)]

    @property
    def spread(self) -> Spread | None:
        """The lead of the best over `random` at the gate's budget, if that was measured."""
        at_gate = (spread for spread in self.ranking.spreads if spread.keep == GATE_KEEP)
        return next(at_gate, None)

    @property
    def size(self) -> str:
        """How much was asked: `700 questions about 64 held-out clips (seeds) of 1–8 frames`."""
        marks = self.ceiling.marks
        frames = [mark.frames for mark in marks]
        clips = len(self.ceiling.sittings)
        return (
            f"{len(marks)} questions about {clips} held-out clips ({marks[0].split}) of "
            f"{min(frames)}–{max(frames)} frames"
        )

    def picture(self) -> Picture:
        """Accuracy against tokens really kept.

        Raises:
            MissingDependency: matplotlib is not installed.
        """
        best = self._best()
        curves = [self._curve(name, best) for name in self._names]
        faint = sum(curve.is_faint for curve in curves)
        here = self.conditions
        picked = (
            f"\ncoloured: the {len(best)} most often right over all budgets below 1, grey: the "
            f"{faint} others, all in the table"
        )
        return draw_curves(
            curves,
            floor=self.floor.accuracy,
            ceiling=self.ceiling.accuracy,
            title="What compressors cost in right answers",
            caption=(
                f"{self.size}; bars: 95 % bootstrap over clips, drawn side by side"
                f"{picked if faint else ''}\n"
                f"commit {here.commit} · seed {here.seed} · model {here.model}"
            ),
        )

    @property
    def _names(self) -> list[str]:
        own = (trial.method for trial in self.ranking.trials if not trial.method.like)
        return list(dict.fromkeys(method.name for method in own))

    def _own(self, name: str) -> list[Trial]:
        return [
            trial
            for trial in self.ranking.trials
            if trial.method.name == name and not trial.method.like
        ]

    def _best(self) -> frozenset[str]:
        """Those that are drawn in colour: all, or the best of too many."""
        names = [name for name in self._names if name not in BASELINES]
        if len(names) <= _READABLE:
            return frozenset(names)

        def right(name: str) -> float:
            means = [t.accuracy.mean for t in self._own(name) if t.method.keep not in (None, 1)]
            return sum(means) / len(means) if means else 0.0

        return frozenset(sorted(names, key=right, reverse=True)[:_COLOURED])

    def _curve(self, name: str, best: frozenset[str]) -> Curve:
        trials = self._own(name)
        is_baseline = name in BASELINES
        return Curve(
            f"{name} (question seen)" if trials[0].sees_question else name,
            kept=tuple(trial.share for trial in trials),
            accuracy=tuple(trial.accuracy for trial in trials),
            is_baseline=is_baseline,
            is_faint=not is_baseline and name not in best,
        )

    def _accuracy(self) -> Table:
        rows: list[tuple[Cell, ...]] = [
            ("all tokens", None, 1.0, self.ceiling.tokens, *_parts(self.ceiling.accuracy), *_NONE)
        ]
        rows += [
            (
                trial.method.name,
                _budget(trial.method),
                trial.share,
                trial.tokens,
                *_parts(trial.accuracy),
                trial.milliseconds,
                "seen" if trial.sees_question else None,
            )
            for trial in self.ranking.ordered()
        ]
        rows.append(("blind", None, 0.0, 0.0, *_parts(self.floor.accuracy), *_NONE))
        note = (
            f"{self.size}. Accuracy: share of exact matches with its 95 % interval (bootstrap over "
            f"clips). Kept: share of the tokens that really remained{self._less()}. ms/frame: wall "
            "time of the compressor for each frame of a clip, the faster of two, without encoding. "
            f"{self._asked()}Compressors that draw lots draw anew for each clip. Blind: the "
            "questions alone."
        )
        columns = ("compressor", "keep", "kept", "tokens/frame", "accuracy", "low", "high")
        return Table(
            "Compressors",
            (*columns, "ms/frame", "question"),
            tuple(rows),
            " ".join([note, *(f"{sentence}." for sentence in self.skipped)]),
        )

    def _asked(self) -> str:
        """Which of them saw the question; empty if none."""
        names = dict.fromkeys(t.method.name for t in self.ranking.ordered() if t.sees_question)
        if not names:
            return ""
        return (
            f"Seen is the question by {', '.join(sorted(names))}, which compress anew for each (so "
            "ms/frame is for each question, the median, and kept the mean); at ingest none can, "
            "so compare them with one another. "
        )

    def _less(self) -> str:
        """Where plainly less remained than was asked for; empty if nowhere."""
        less = [
            f"{trial.method} ({trial.share:.3f})"
            for trial in self.ranking.ordered()
            if trial.method.keep is not None and trial.share < _NEARLY * trial.method.keep
        ]
        if not less:
            return ""
        return (
            f"; plainly less than was asked for: {', '.join(less)}, which pays for it in accuracy "
            "(what takes whole cells or steps takes the next number below)"
        )

    def _against(self) -> Table:
        rows: list[tuple[Cell, ...]] = []
        for trial in self.ranking.ordered():
            if trial.method.keep == 1 or trial.method.name in BASELINES:
                continue
            row: list[Cell] = [trial.method.name, _budget(trial.method)]
            for name in BASELINES:
                other = self.ranking.baseline(trial, name)
                row += _parts(None if other is None else trial.above(other))
            rows.append(tuple(row))
        columns = [
            column for name in BASELINES for column in (f"− {name}", f"{name} low", f"{name} high")
        ]
        note = (
            "Accuracy less that of the baseline at the same keep, on the same questions, with its "
            "95 % interval (paired bootstrap over clips). A compressor without a keep is compared "
            "with baselines that keep, of each clip, as many tokens as it does."
        )
        return Table(
            "Against random and uniform", ("compressor", "keep", *columns), tuple(rows), note
        )

    def _separable(self) -> Table:
        rows: list[tuple[Cell, ...]] = []
        for spread in self.ranking.spreads:
            pairs = [pair for pair in self.ranking.pairs if pair.keep == spread.keep]
            rows.append(
                (
                    spread.keep,
                    spread.best,
                    spread.above.mean,
                    spread.errors,
                    sum(pair.is_separable for pair in pairs),
                    len(pairs),
                    ", ".join(self.ranking.level(spread)) or "–",
                )
            )
        clips = len(self.ceiling.sittings)
        few = f" {clips} clips are too few for such intervals: they are too narrow."
        note = (
            "A pair is separable if the 95 % interval of its paired difference leaves zero out; by "
            "luck alone about one in twenty would. The best of those that see no question is "
            "chosen on the clips on which its lead is measured, which flatters it, the more so the "
            "more compressors there are; what is not separable from it may be as good or better. "
            f"All pairs are among the details.{few if clips < FEWEST else ''}"
        )
        columns = ("keep", "best", "− random", "in standard errors", "separable", "pairs")
        return Table(
            "Which can be told apart",
            (*columns, "not separable from the best"),
            tuple(rows),
            note,
        )

    def _pairs(self) -> Table:
        rows = tuple(
            (
                pair.keep,
                pair.one,
                pair.other,
                *_parts(pair.difference),
                "yes" if pair.is_separable else "no",
            )
            for pair in self.ranking.pairs
        )
        columns = ("keep", "better", "other", "difference", "low", "high", "separable")
        return Table("Every pair", columns, rows, "Paired bootstrap over clips, 95 %.")

    def _kinds(self) -> Table:
        trials = [self.ceiling, *self.ranking.ordered(), self.floor]
        kinds = list(self.ceiling.by_kind())
        rows = tuple(
            (trial.method.name, _budget(trial.method), *(trial.by_kind()[kind] for kind in kinds))
            for trial in trials
        )
        asked = [mark.kind for mark in self.ceiling.marks]
        counts = ", ".join(f"{kind} {asked.count(kind)}" for kind in kinds)
        note = f"Share of exact matches. Questions: {counts}."
        return Table("By kind of question", ("compressor", "keep", *kinds), rows, note)


def _parts(value: Interval | None) -> tuple[float | None, ...]:
    return (None, None, None) if value is None else (value.mean, value.low, value.high)


def _budget(method: Method) -> Cell:
    return method.budget or None if method.keep is None else method.keep
