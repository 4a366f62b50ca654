import math

import numpy as np
import pytest

from streamvlm.bench.exam import Mark
from streamvlm.bench.ranking import Method, Ranking, Sitting, Trial

CLIPS, QUESTIONS = 24, 10


def trial(name, right, *, keep=0.1, like="", kept=2, dense=36, milliseconds=1.0):
    """A trial of which `right` (clips, questions) says which answers were right."""
    sittings = []
    for clip, row in enumerate(np.asarray(right, bool)):
        marks = tuple(
            Mark(clip, "seeds", "colour" if column % 2 else "shape", 1, "", "a", "a", bool(ok), 1.0)
            for column, ok in enumerate(row)
        )
        sittings.append(Sitting(marks, 1, kept, dense, milliseconds))
    return Trial(Method(name, keep, like), tuple(sittings))


def answers(share, seed=0):
    return np.random.default_rng(seed).random((CLIPS, QUESTIONS)) < share


NONE, ALL = np.zeros((CLIPS, QUESTIONS)), np.ones((CLIPS, QUESTIONS))


def test_accuracy_is_the_share_of_right_answers():
    right = answers(0.6)
    found = trial("evs", right).accuracy
    assert found.mean == pytest.approx(right.mean())
    assert found.low < found.mean < found.high


def test_the_share_kept_is_that_of_all_tokens_not_the_mean_of_clips():
    one = trial("evs", ALL[:1], kept=1, dense=10).sittings
    other = trial("evs", ALL[:1], kept=90, dense=90).sittings
    both = Trial(Method("evs", 0.1), one + other)
    assert both.share == pytest.approx(0.91)
    assert both.tokens == pytest.approx(91 / 2)


def test_time_is_told_for_each_frame():
    long = Sitting(trial("evs", ALL[:1]).marks, 8, 2, 288, 4.0)
    assert Trial(Method("evs", 0.1), (long, long)).milliseconds == pytest.approx(0.5)


def test_accuracy_by_kind_is_over_that_kind_alone():
    right = NONE.copy()
    right[:, 1::2] = 1
    assert trial("evs", right).by_kind() == {"colour": 1.0, "shape": 0.0}


def test_equal_methods_cannot_be_told_apart():
    (pair,) = Ranking((trial("random", answers(0.5)), trial("evs", answers(0.5)))).pairs
    assert pair.difference.mean == 0
    assert not pair.is_separable


def test_two_methods_of_equal_worth_cannot_be_told_apart():
    ranking = Ranking((trial("random", answers(0.5, 1)), trial("evs", answers(0.5, 2))))
    assert not ranking.pairs[0].is_separable


def test_the_better_of_a_separable_pair_comes_first_whatever_the_order():
    weak, strong = trial("random", answers(0.3)), trial("evs", answers(0.9))
    for trials in ((weak, strong), (strong, weak)):
        (pair,) = Ranking(trials).pairs
        assert (pair.one, pair.other) == ("evs", "random")
        assert pair.is_separable
        assert pair.difference.low > 0


def test_pairing_tells_apart_what_intervals_side_by_side_do_not():
    # Clips are all easy or all hard; on each of them one method loses one more question.
    right = np.repeat(np.arange(CLIPS)[:, None] % 2, QUESTIONS, axis=1) * np.ones(QUESTIONS)
    right[:, 0] = 1
    worse = right.copy()
    worse[:, 0] = 0
    one, other = trial("random", worse), trial("evs", right)
    assert one.accuracy.high > other.accuracy.low
    assert Ranking((one, other)).pairs[0].is_separable


def test_pairs_are_formed_within_a_budget_and_not_where_nothing_is_dropped():
    trials = [trial(n, answers(0.5), keep=k) for n in ("random", "evs") for k in (1.0, 0.5, 0.1)]
    assert [pair.keep for pair in Ranking(tuple(trials)).pairs] == [0.5, 0.1]


def test_the_spread_is_the_lead_of_the_best_over_random_in_standard_errors():
    chance = trial("random", answers(0.3, 1))
    best = trial("evs", answers(0.9, 2))
    (spread,) = Ranking((chance, trial("pool", answers(0.6, 3)), best)).spreads
    assert spread.best == "evs"
    assert spread.above == best.above(chance)
    assert spread.errors == pytest.approx(spread.above.mean / spread.above.error)
    assert spread.errors > 4


def test_random_is_never_its_own_best():
    (spread,) = Ranking((trial("random", ALL), trial("evs", answers(0.5)))).spreads
    assert spread.best == "evs"
    assert spread.errors < 0


def test_a_lead_that_does_not_vary_has_no_standard_errors():
    (spread,) = Ranking((trial("random", NONE), trial("evs", ALL))).spreads
    assert spread.above.mean == 1
    assert math.isnan(spread.errors)


def test_a_method_is_compared_with_the_baseline_at_the_same_budget():
    trials = [
        trial(n, answers(0.5), keep=k) for n in ("random", "uniform", "evs") for k in (0.5, 0.1)
    ]
    ranking = Ranking(tuple(trials))
    found = ranking.baseline(ranking.by_method[Method("evs", 0.1)], "random")
    assert found.method == Method("random", 0.1)
    other = ranking.baseline(ranking.by_method[Method("uniform", 0.5)], "random")
    assert other.method == Method("random", 0.5)


def test_a_method_without_a_budget_is_compared_with_baselines_that_take_as_much():
    trials = (
        trial("random", answers(0.5), keep=0.1),
        trial("free", answers(0.5), keep=None),
        trial("random", answers(0.4), keep=None, like="free"),
    )
    ranking = Ranking(trials)
    assert ranking.baseline(trials[1], "random") is trials[2]


def test_a_baseline_has_no_baseline_of_its_own_kind():
    ranking = Ranking((trial("random", ALL), trial("evs", ALL)))
    assert ranking.baseline(ranking.by_method[Method("random", 0.1)], "random") is None


def test_trials_are_ordered_by_budget_then_by_accuracy_and_those_without_one_come_last():
    trials = (
        trial("free", ALL, keep=None),
        trial("random", NONE, keep=0.1),
        trial("evs", ALL, keep=0.1),
        trial("random", NONE, keep=0.5),
    )
    names = [(found.method.name, found.method.keep) for found in Ranking(trials).ordered()]
    assert names == [("random", 0.5), ("evs", 0.1), ("random", 0.1), ("free", None)]


@pytest.mark.parametrize(
    ("method", "words"),
    [
        (Method("evs", 0.05), "evs at keep 0.05"),
        (Method("free", None), "free"),
        (Method("random", None, like="free"), "random at the budget of free"),
    ],
)
def test_a_method_says_what_it_is(method, words):
    assert str(method) == words


def test_the_best_is_one_that_sees_no_question():
    seeing = Trial(Method("mmtok", 0.1), trial("mmtok", ALL).sittings, sees_question=True)
    trials = (trial("random", answers(0.3)), trial("evs", answers(0.6)), seeing)
    (spread,) = Ranking(trials).spreads
    assert spread.best == "evs"


def test_what_is_level_with_the_best_is_named_and_what_is_not_is_not():
    best, alike = answers(0.9), answers(0.9)
    alike[0] = ~alike[0]
    trials = (trial("random", answers(0.2)), trial("evs", best), trial("pool", alike))
    ranking = Ranking(trials)
    (spread,) = ranking.spreads
    assert (spread.best, ranking.level(spread)) == ("evs", ["pool"])
