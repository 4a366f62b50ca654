"""A plan says what is seen, where, when and in which colour."""

from itertools import pairwise

import pytest

from streamvlm.bench.world import (
    COLOURS,
    SHAPES,
    TRAINED_TEXTURES,
    UNSEEN_PAIRS,
    UNSEEN_TEXTURES,
    Film,
    Scene,
    Thing,
)
from streamvlm.bench.world.storyboard import storyboard


def still(name="red square", at=(0.5, 0.5), life=(2, 6), turns=None):
    return Thing(*name.split(), 0.1, *at, None, 0.0, *life, turns)


def moving(heading, name="blue ring", at=(0.5, 0.5), life=(2, 6)):
    return Thing(*name.split(), 0.1, *at, heading, 0.05, *life)


def scene(*things, start=0, end=8):
    return Scene(start, end, "still", "clouds", 0, things)


def test_a_thing_is_seen_from_its_first_second_until_before_its_last():
    assert [second for second in range(9) if still().is_seen(second)] == [2, 3, 4, 5]


def test_what_stays_is_always_at_the_same_place():
    assert still(at=(0.25, 0.75)).centre(2) == still(at=(0.25, 0.75)).centre(5) == (0.25, 0.75)


@pytest.mark.parametrize(
    ("heading", "expected"),
    [("left", (0.4, 0.5)), ("right", (0.6, 0.5)), ("up", (0.5, 0.4)), ("down", (0.5, 0.6))],
)
def test_what_moves_starts_when_it_appears(heading, expected):
    assert moving(heading).centre(2) == (0.5, 0.5)
    assert moving(heading).centre(4) == pytest.approx(expected)


def test_a_thing_changes_its_colour_once_and_keeps_its_name():
    thing = still(turns=(4, "cyan"))
    assert [thing.colour_at(second) for second in (2, 3, 4, 5)] == ["red", "red", "cyan", "cyan"]
    assert thing.name == "red square"


def test_what_does_not_turn_keeps_its_colour():
    assert {still().colour_at(second) for second in range(9)} == {"red"}


def test_the_gap_is_between_the_borders_of_two_things():
    one, other = still(at=(0.2, 0.2)), still(at=(0.5, 0.6))
    assert one.gap(other, 3) == pytest.approx(0.5 - 0.2)
    assert one.gap(one, 3) == pytest.approx(-0.2)


def test_two_things_meet_in_the_first_second_in_which_they_touch():
    target, runner = still(at=(0.8, 0.5), life=(0, 8)), moving("right", at=(0.45, 0.5), life=(0, 8))
    far = still("green star", at=(0.2, 0.2), life=(0, 8))
    assert scene(target, far, runner).meetings == ((3, target, runner),)


def test_things_that_are_never_seen_together_do_not_meet():
    assert scene(still(life=(0, 3)), still("blue ring", life=(3, 8))).meetings == ()


def test_a_number_is_drawn_but_is_no_thing_of_the_scene():
    digit, square = still("white seven"), still()
    numbered = Scene(0, 8, "still", "clouds", 0, (square,), digit)
    assert numbered.things == (square,)
    assert numbered.drawn == (square, digit)
    assert scene(square).drawn == (square,)


def test_a_film_knows_the_scene_of_each_moment():
    film = Film(0, "seeds", (scene(start=4, end=8), scene(still(), start=8, end=13)))
    assert film.seconds == 13
    assert film.things == (still(),)
    for second in (4, 7, 7.99):
        assert film.scene_at(second) is film.scenes[0]
    for second in (8, 12.5):
        assert film.scene_at(second) is film.scenes[1]


def test_after_its_end_a_film_has_no_scene():
    with pytest.raises(IndexError):
        Film(0, "seeds", (scene(),)).scene_at(8)


def test_each_colour_and_each_shape_is_trained_on_though_not_in_every_pair():
    trained = {(colour, shape) for colour in COLOURS for shape in SHAPES} - {
        tuple(pair.split()) for pair in UNSEEN_PAIRS
    }
    assert {colour for colour, _ in trained} == set(COLOURS)
    assert {shape for _, shape in trained} == set(SHAPES)
    assert len(trained) == len(COLOURS) * len(SHAPES) - len(UNSEEN_PAIRS)


def test_unseen_textures_are_not_trained_on():
    assert not set(TRAINED_TEXTURES) & set(UNSEEN_TEXTURES)


def test_the_storyboard_is_held_out_and_every_short_question_has_one_answer():
    film = storyboard()
    assert film.split == "backgrounds"
    assert {scene.texture for scene in film.scenes} == set(UNSEEN_TEXTURES)
    assert film.scenes[0].start == 0
    assert all(one.end == other.start for one, other in pairwise(film.scenes))
    shapes = [thing.shape for thing in film.things]
    assert len(set(shapes)) == len(shapes)
    names = {thing.name for thing in film.things}
    assert {"red square", "yellow star", "purple ring", "blue circle"} <= names
    assert not names & UNSEEN_PAIRS
