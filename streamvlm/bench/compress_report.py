"""What was measured of compressors, as tables and as a plot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamvlm.bench.intervals import Interval
from streamvlm.bench.plot import Curve, Picture, draw_curves
from streamvlm.bench.ranking import BASELINES, Method, Pair, Ranking, Spread, Trial
from streamvlm.bench.report import Cell, Conditions, Gate, Table, gate_table

GATE_KEEP, GATE_ERRORS = 0.1, 4.0
"""At this budget the best must stand so many standard errors above `random`."""
_NEARLY = 0.9
"""Of the tokens asked for; a compressor that keeps less is named."""
_NAMED = 20
"""Most pairs named in one place; the details hold them all."""


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
        curves = [self._curve(name) for name in self._names]
        here = self.conditions
        return draw_curves(
            curves,
            floor=self.floor.accuracy,
            ceiling=self.ceiling.accuracy,
            title="What compressors cost in right answers",
            caption=(
                f"{self.size}; bars: 95 % bootstrap over clips, drawn side by side\n"
                f"commit {here.commit} · seed {here.seed} · model {here.model}"
            ),
        )

    @property
    def _names(self) -> list[str]:
        own = (trial.method for trial in self.ranking.trials if not trial.method.like)
        return list(dict.fromkeys(method.name for method in own))

    def _curve(self, name: str) -> Curve:
        trials = [
            trial
            for trial in self.ranking.trials
            if trial.method.name == name and not trial.method.like
        ]
        return Curve(
            name,
            kept=tuple(trial.share for trial in trials),
            accuracy=tuple(trial.accuracy for trial in trials),
            is_baseline=name in BASELINES,
        )

    def _accuracy(self) -> Table:
        rows: list[tuple[Cell, ...]] = [
            ("all tokens", None, 1.0, self.ceiling.tokens, *_parts(self.ceiling.accuracy), None)
        ]
        rows += [
            (
                trial.method.name,
                _budget(trial.method),
                trial.share,
                trial.tokens,
                *_parts(trial.accuracy),
                trial.milliseconds,
            )
            for trial in self.ranking.ordered()
        ]
        rows.append(("blind", None, 0.0, 0.0, *_parts(self.floor.accuracy), None))
        note = (
            f"{self.size}. Accuracy: share of exact matches with its 95 % interval (bootstrap over "
            f"clips). Kept: share of the tokens that really remained{self._less()}. ms/frame: wall "
            "time of the compressor for each frame of a clip, fastest of three, without encoding. "
            "Compressors that draw lots draw anew for each clip. Blind: the questions alone."
        )
        columns = ("compressor", "keep", "kept", "tokens/frame", "accuracy", "low", "high")
        return Table(
            "Compressors",
            (*columns, "ms/frame"),
            tuple(rows),
            " ".join([note, *(f"{sentence}." for sentence in self.skipped)]),
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
            alike = [pair for pair in pairs if not pair.is_separable]
            rows.append(
                (
                    spread.keep,
                    spread.best,
                    spread.above.mean,
                    spread.errors,
                    len(pairs) - len(alike),
                    len(pairs),
                    _listed(alike),
                )
            )
        note = (
            "A pair is separable if the 95 % interval of its paired difference leaves zero out; by "
            "luck alone about one in twenty would. The best is chosen on the clips on which its "
            "lead is measured, which flatters it a little."
        )
        columns = ("keep", "best", "− random", "in standard errors", "separable", "pairs")
        return Table(
            "Which pairs can be told apart", (*columns, "not separable"), tuple(rows), note
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


def _listed(pairs: Sequence[Pair]) -> str:
    named = ", ".join(f"{pair.one} & {pair.other}" for pair in pairs[:_NAMED]) or "–"
    rest = len(pairs) - _NAMED
    return f"{named} and {rest} more" if rest > 0 else named


def _budget(method: Method) -> Cell:
    return method.budget or None if method.keep is None else method.keep
