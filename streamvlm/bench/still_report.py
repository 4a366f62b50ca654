"""What compressors stored of hours in which nothing happened, as tables and gates."""

from __future__ import annotations

from dataclasses import dataclass

from streamvlm.bench.ranking import BASELINES, Trial
from streamvlm.bench.report import Cell, Conditions, Gate, Table, gate_table

UNIFORM = "uniform"
"""What stores and answers are compared with, at the same keep."""
PROMISED = ("nested", "pvc")
"""Methods that were to store little of what does not change."""
FEWER = 10.0
"""How many times fewer tokens than `UNIFORM` they were to store."""
_ADAPTIVE = 0.5
"""A method that stores less than this share of what it was asked for adapts to the scene."""


@dataclass(frozen=True)
class Watch:
    """Everything that was measured. A sitting of a trial is one film."""

    conditions: Conditions
    """Under which."""
    seconds: int
    """Length of each film."""
    clip: int
    """Frames of a clip, one a second."""
    max_tokens: int
    """The most that were read for a question."""
    trials: tuple[Trial, ...]
    """Each method on the same films and questions, `UNIFORM` among them."""
    blind: Trial
    """The questions alone."""
    chained: frozenset[str]
    """Methods whose records are read with the one before."""
    skipped: tuple[str, ...] = ()
    """A sentence for each compressor that was left out."""

    def tables(self) -> list[Table]:
        """What was stored and answered, and the gates."""
        return [self._stored(), gate_table(self.gates())]

    def gates(self) -> list[Gate]:
        """What was promised: far fewer tokens, at equal accuracy."""
        found = {trial.method.name: trial for trial in self.trials}
        adaptive = [trial.method.name for trial in self.trials if _adapts(trial)]
        gates = []
        for name in dict.fromkeys((*PROMISED, *adaptive)):
            trial = found.get(name)
            gates.append(
                Gate(
                    f"{name}: times fewer tokens than {UNIFORM}",
                    None if trial is None else self.fewer(trial),
                    FEWER,
                )
            )
            above = None if trial is None else trial.above(self.uniform)
            gates.append(
                Gate(
                    f"{name}: upper end of its accuracy less that of {UNIFORM}",
                    None if above is None else above.high,
                    0.0,
                    interval=above,
                )
            )
        return gates

    @property
    def uniform(self) -> Trial:
        """What all are compared with."""
        return next(trial for trial in self.trials if trial.method.name == UNIFORM)

    def fewer(self, trial: Trial) -> float:
        """How many times fewer tokens a method stored than `UNIFORM`."""
        return self.uniform.tokens / trial.tokens

    def _stored(self) -> Table:
        rows: list[tuple[Cell, ...]] = []
        for trial in sorted(self.trials, key=lambda trial: (trial.tokens, trial.method.name)):
            share, above = trial.accuracy, trial.above(self.uniform)
            rows.append(
                (
                    trial.method.name,
                    trial.method.keep,
                    round(3600 * trial.tokens),
                    self.fewer(trial),
                    *(share.mean, share.low, share.high),
                    *(above.mean, above.low, above.high),
                )
            )
        share = self.blind.accuracy
        rows.append(("blind", None, 0, None, share.mean, share.low, share.high, None, None, None))
        columns = ("compressor", "keep", "tokens/hour", "× fewer", "accuracy", "low", "high")
        more = (f"− {UNIFORM}", f"{UNIFORM} low", f"{UNIFORM} high")
        return Table("A still camera", (*columns, *more), tuple(rows), self._note())

    def _note(self) -> str:
        films = len(self.blind.sittings)
        chained = ", ".join(sorted(self.chained)) or "none"
        without = [trial.method.name for trial in self.trials if trial.method.keep is None]
        sentences = [
            f"{films} films of {self.seconds} s, each one scene in which nothing happens but the "
            f"camera's noise; one frame a second, none dropped, clips of {self.clip} frames. "
            f"× fewer: tokens of {UNIFORM} for each that is stored. Accuracy: exact matches of "
            f"{len(self.blind.marks)} questions about the scene that any moment answers, asked of "
            "clips drawn from the whole film, with the 95 % interval (bootstrap over films; it is "
            f"a little too narrow for so few); less that of {UNIFORM} on the same questions. Read "
            f"is the record of the clip, by retrieval's rule at most {self.max_tokens} tokens of "
            f"it, and the record before where a method builds on that: {chained}.",
            *([f"Without a keep: {', '.join(without)}."] if without else []),
            *(f"{sentence}." for sentence in self.skipped),
        ]
        return " ".join(sentences)


def _adapts(trial: Trial) -> bool:
    keep = trial.method.keep
    return (
        trial.method.name not in BASELINES and keep is not None and trial.share < _ADAPTIVE * keep
    )
