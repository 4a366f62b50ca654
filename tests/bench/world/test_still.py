import numpy as np
import pytest

from streamvlm.bench.world import UNSEEN_PAIRS
from streamvlm.bench.world.drawing import picture
from streamvlm.bench.world.questions import ask_all
from streamvlm.bench.world.still import is_timeless, plan_still
from streamvlm.bench.world.views import View
from streamvlm.errors import BadOption

SEEDS = range(40)


def test_nothing_ever_happens():
    for seed in SEEDS:
        film = plan_still(seed, 600)
        (scene,) = film.scenes
        assert film.seconds == 600
        assert scene.number is None
        for thing in film.things:
            assert (thing.appears, thing.vanishes) == (0, 600)
            assert thing.heading is None
            assert thing.turns is None


def test_there_is_enough_to_ask_about_and_nothing_touches():
    counts = set()
    for seed in SEEDS:
        things = plan_still(seed, 10).things
        counts.add(len(things))
        assert len({thing.name for thing in things}) == len(things)
        assert not {thing.name for thing in things} & UNSEEN_PAIRS
        assert all(one.gap(two, 0) > 0 for one in things for two in things if one is not two)
    assert counts == {2, 3}


def test_no_two_pictures_are_equal_for_the_camera_makes_noise():
    film = plan_still(3, 10)
    one, later = (picture(film, seconds, 64).astype(int) for seconds in (1, 7))
    assert (one != later).any()
    assert np.abs(one - later).mean() < 12


def test_the_same_seed_gives_the_same_film_and_another_another():
    assert plan_still(1, 9) == plan_still(1, 9)
    assert plan_still(1, 9).things != plan_still(2, 9).things


def test_what_any_moment_answers_is_answered_alike_by_every_view():
    film = plan_still(5, 900)
    answers: dict[str, set[str]] = {}
    for first in (0, 300, 700):
        for seed in range(6):
            view = View(film, tuple(range(first, first + 20)))
            for question in ask_all([view], np.random.default_rng(seed)):
                if is_timeless(question):
                    answers.setdefault(question.text, set()).add(question.answer)
    assert len(answers) > 10
    assert all(len(known) == 1 for known in answers.values())


def test_what_depends_on_the_moment_is_not_among_them():
    film = plan_still(5, 900)
    asked = ask_all([View(film, tuple(range(300, 320)))], np.random.default_rng(0))
    assert {q.kind for q in asked if not is_timeless(q)} >= {"when", "where at"}


@pytest.mark.parametrize(("seed", "seconds"), [(-1, 10), (1, 0)])
def test_a_film_that_cannot_be_is_refused(seed, seconds):
    with pytest.raises(BadOption, match="give at least 1 s"):
        plan_still(seed, seconds)
