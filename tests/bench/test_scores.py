import math

import pytest

from streamvlm.bench.exam import Mark
from streamvlm.bench.scores import (
    chance,
    clips_of,
    false_abstentions,
    false_answers,
    majority,
    mean_of_kinds,
    right,
)
from streamvlm.bench.world.questions import KINDS


def mark(kind, expected, said, *, clip=0, frames=4, split="seeds") -> Mark:
    return Mark(clip, split, kind, frames, "", expected, said, expected == said, 1.0)


def test_shares_count_questions_or_kinds_alike():
    marks = [mark("exist", "yes", "yes", clip=clip) for clip in range(3)]
    marks.append(mark("when", "00:01", "00:02", clip=3))
    assert right(marks).mean == 0.75
    assert mean_of_kinds(marks).mean == 0.5


def test_clips_of_two_splits_are_different_clips():
    marks = [mark("exist", "yes", "yes"), mark("exist", "yes", "yes", split="pairs")]
    assert len(set(clips_of(marks))) == 2


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("exist", 1 / 2), ("colour", 1 / 8), ("shape", 1 / 6), ("where", 1 / 9), ("at", 1 / 49)],
)
def test_chance_is_one_guess_among_the_answers_of_the_kind(kind, expected):
    assert chance([mark(kind, "a", "b")]) == pytest.approx(expected)


def test_the_chance_of_a_time_depends_on_the_frames():
    marks = [mark("when", "00:01", "", frames=1), mark("when", "00:01", "", frames=8)]
    assert chance(marks) == pytest.approx((1 + 1 / 8) / 2)


def test_every_kind_has_a_chance():
    for kind in KINDS:
        assert 0 < chance([mark(kind, "a", "b")]) <= 0.5


def test_the_majority_says_the_commonest_answer_of_each_kind():
    marks = [mark("exist", answer, "") for answer in ("yes", "yes", "no")]
    marks += [mark("colour", answer, "") for answer in ("red", "blue", "yes", "yes", "yes")]
    assert majority(marks) == 5 / 8


def test_an_abstention_of_another_sort_is_wrong_but_no_false_answer():
    marks = [
        mark("absent", "no such thing", "not visible"),
        mark("absent", "no motion", "left", clip=1),
        mark("exist", "yes", "no", clip=2),
    ]
    assert false_answers(marks).mean == 0.5
    assert right(marks).mean == 0


def test_abstaining_from_what_is_there_is_a_false_abstention():
    marks = [
        mark("where", "top left", "no such thing"),
        mark("where", "top left", "centre", clip=1),
        mark("absent", "no such thing", "no such thing", clip=2),
    ]
    assert false_abstentions(marks).mean == 0.5


def test_of_no_marks_nothing_is_known():
    shares = (right([]).mean, chance([]), majority([]), false_answers([]).mean)
    assert all(math.isnan(share) for share in shares)
