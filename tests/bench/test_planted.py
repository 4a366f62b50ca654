"""Made-up keys: what is right, what is nearly right, and what only repeats itself."""

from dataclasses import replace

import numpy as np
import pytest

from streamvlm.bench.planted import CONCEPTS, EASY, FILLERS, HARD, plant
from streamvlm.errors import BadOption

SMALL = replace(HARD, segments=300, cameras=3, tokens=8, questions=6, rivals=2)
COVERED = 0.9


@pytest.fixture(scope="module")
def planted():
    return plant(SMALL, 7)


def best(segments, question):
    """(S, Q) the best cosine of each segment with each key of a question."""
    return np.maximum.reduceat(segments.keys @ question.keys.T, segments.first[:-1])


def test_sizes_are_as_asked(planted):
    segments, questions = planted
    assert segments.keys.shape == (300 * 8, 128)
    assert np.bincount(segments.owners).tolist() == [8] * 300
    assert np.bincount(segments.stream).tolist() == [100] * 3
    assert segments.start[[0, 1, 99, 100]].tolist() == [0.0, 8.0, 792.0, 0.0]
    assert [len(question.keys) for question in questions] == [CONCEPTS + FILLERS] * 6
    every = np.concatenate([segments.keys, *(question.keys for question in questions)])
    assert np.linalg.norm(every, axis=1) == pytest.approx(1, abs=1e-5)


def test_the_same_seed_gives_the_same_keys_and_another_one_others(planted):
    again, other = plant(SMALL, 7), plant(SMALL, 8)
    assert np.array_equal(again[0].keys, planted[0].keys)
    assert [q.right for q in again[1]] == [q.right for q in planted[1]]
    assert not np.array_equal(other[0].keys, planted[0].keys)


def test_what_is_right_shows_all_three_concepts_and_nothing_else_does(planted):
    segments, questions = planted
    for question in questions:
        shown = best(segments, question)[:, :CONCEPTS] > 0.8 * COVERED * SMALL.match
        assert 1 <= len(question.right) <= 2
        assert set(np.flatnonzero(shown.all(1)).tolist()) >= question.right
        assert shown.all(1).sum() < 5


def test_rivals_show_two_of_the_three(planted):
    segments, questions = planted
    for question in questions:
        shown = (best(segments, question)[:, :CONCEPTS] > 0.8 * COVERED * SMALL.match).sum(1)
        assert (shown == CONCEPTS - 1).sum() >= SMALL.rivals


def test_a_background_drifts_slowly(planted):
    keys = planted[0].keys.reshape(300, 8, 128)[:100]
    apart = [np.median((keys[gap:] * keys[:-gap]).sum(-1)) for gap in (1, 25, 80)]
    assert apart[0] == pytest.approx(0.98, abs=0.005)
    assert apart[1] == pytest.approx(0.90, abs=0.03)
    assert 0.6 < apart[2] < apart[1]


def test_words_match_better_in_the_easy_setting():
    matches = []
    for setting in (HARD, EASY):
        segments, questions = plant(replace(SMALL, match=setting.match), 7)
        right = [best(segments, q)[sorted(q.right), :CONCEPTS].mean() for q in questions]
        matches.append(np.mean(right))
    assert matches[0] == pytest.approx(COVERED * HARD.match, abs=0.05)
    assert matches[1] - matches[0] > 0.03


def test_more_events_than_fit_are_refused_in_words():
    with pytest.raises(BadOption, match="take more segments or fewer questions"):
        replace(SMALL, questions=50)
