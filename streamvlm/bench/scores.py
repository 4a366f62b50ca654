"""From marks to shares of right answers, beside what guessing in three ways would give."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.exam import Mark
from streamvlm.bench.intervals import Interval, by_group, interval
from streamvlm.bench.world import COLOURS, HEADINGS, NUMBERS, SHAPES
from streamvlm.bench.world.questions import ABSTENTIONS

_PLACES = 9
_ANSWERS: dict[str, int] = {
    "exist": 2,
    "colour": len(COLOURS),
    "shape": len(SHAPES),
    "where": _PLACES,
    "direction": len(HEADINGS),
    "count": len(NUMBERS),
    "order": 2,
    "change": len(COLOURS),
    "at": len(COLOURS) * len(SHAPES) + 1,
    "where at": _PLACES,
    "number": len(NUMBERS),
    "absent": len(ABSTENTIONS),
}
"""Kind → how many different answers there are to guess from; "when" depends on the clip."""

HOW_CHANCE = (
    "chance: a uniform guess among yes and no (exist); 8 colours (colour, change); 6 shapes; the "
    "9 places of the picture (where, where at); the times of the clip's frames (when); 4 headings "
    "(direction); the numbers zero to nine (count, number); the two things named (order); 48 "
    "coloured shapes and nothing (at); the 4 ways to abstain (absent). majority: the best constant "
    "answer of each kind on this very test set, or for when always the time of the clip's first "
    "frame. blind: the same model with neither visual tokens nor their times; it then mostly "
    "abstains, so it can be below chance."
)
"""How the columns beside the right answers came about."""


def clips_of(marks: Sequence[Mark]) -> NDArray[np.str_]:
    """(n,) the clip of each mark, across splits."""
    return np.array([f"{mark.split} {mark.clip}" for mark in marks])


def right(marks: Sequence[Mark]) -> Interval:
    """The share of right answers, every question alike."""
    return interval([mark.right for mark in marks], clips_of(marks))


def mean_of_kinds(marks: Sequence[Mark]) -> Interval:
    """The share of right answers, every kind of question alike."""
    kinds = np.array([mark.kind for mark in marks])
    return by_group([mark.right for mark in marks], clips_of(marks), kinds)


def chance(marks: Sequence[Mark]) -> float:
    """The share that uniform guessing gets right; see `HOW_CHANCE`."""
    each = [1 / (mark.frames if mark.kind == "when" else _ANSWERS[mark.kind]) for mark in marks]
    return float(np.mean(each)) if each else float("nan")


def majority(marks: Sequence[Mark]) -> float:
    """The share that is right if each kind is always answered with its commonest answer.

    For "when", always naming the time of the first frame counts as one answer too.
    """
    answers = Counter((mark.kind, mark.expected) for mark in marks)
    answers["when", "the first frame"] = sum(
        mark.kind == "when" and mark.expected == mark.first for mark in marks
    )
    best: dict[str, int] = {}
    for (kind, _), count in answers.items():
        best[kind] = max(best.get(kind, 0), count)
    return sum(best.values()) / len(marks) if marks else float("nan")


def false_answers(marks: Sequence[Mark]) -> Interval:
    """Of the questions about what is absent, the share that is answered as if it were there."""
    asked = [mark for mark in marks if mark.kind == "absent"]
    return interval([mark.said not in ABSTENTIONS for mark in asked], clips_of(asked))


def false_sightings(marks: Sequence[Mark]) -> Interval:
    """Of the yes/no questions about what is absent, the share that is answered with yes."""
    asked = [mark for mark in marks if mark.kind == "exist" and mark.expected == "no"]
    return interval([mark.said != "no" for mark in asked], clips_of(asked))


def false_abstentions(marks: Sequence[Mark]) -> Interval:
    """Of the questions about what is there, the share that is answered by abstaining."""
    asked = [mark for mark in marks if mark.kind != "absent"]
    return interval([mark.said in ABSTENTIONS for mark in asked], clips_of(asked))
