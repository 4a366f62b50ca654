"""Films made up from seeds keep to the rules of their world, and the splits never meet."""

from collections import Counter
from itertools import combinations, pairwise
from math import hypot

import numpy as np
import pytest

from streamvlm.bench.world import (
    BACKGROUNDS,
    COLOURS,
    HEADINGS,
    NUMBERS,
    SHAPES,
    SPLITS,
    TRAINED_TEXTURES,
    UNSEEN_PAIRS,
    UNSEEN_TEXTURES,
    Thing,
)
from streamvlm.bench.world.planning import Deck, plan_film, plan_scene, trained_pairs
from streamvlm.errors import BadOption


@pytest.fixture(scope="module")
def films():
    """Forty films of eight scenes of each split."""
    return {split: [plan_film(seed, 8, split=split) for seed in range(40)] for split in SPLITS}


@pytest.fixture(scope="module")
def scenes(films):
    return [scene for of_split in films.values() for film in of_split for scene in film.scenes]


def looks(thing):
    """Every coloured shape that a thing is ever seen as."""
    return [thing.name, *([f"{thing.turns[1]} {thing.shape}"] if thing.turns else [])]


def shown(films):
    return {look for film in films for thing in film.things for look in looks(thing)}


def seen_together(scene):
    """(second, one, other, how far apart their borders are) of all that is drawn."""
    for second in range(scene.start, scene.end):
        there = [thing for thing in scene.drawn if thing.appears <= second < thing.vanishes]
        for one, other in combinations(there, 2):
            (x, y), (other_x, other_y) = one.centre(second), other.centre(second)
            gap = hypot(x - other_x, y - other_y) - one.radius - other.radius
            yield second, one, other, gap


@pytest.mark.parametrize("split", SPLITS)
def test_the_same_seed_gives_the_same_film(split):
    assert plan_film(5, 3, split=split) == plan_film(5, 3, split=split)


def test_other_seeds_and_other_splits_give_other_films(films):
    every = [film.scenes for of_split in films.values() for film in of_split]
    assert len(set(every)) == len(every)


def test_no_two_films_share_the_details_of_a_background(scenes):
    seeds = [scene.seed for scene in scenes]
    assert len(set(seeds)) == len(seeds)


def test_only_the_split_of_backgrounds_shows_unseen_textures_and_it_shows_no_other(films):
    for split, of_split in films.items():
        found = {scene.texture for film in of_split for scene in film.scenes}
        assert found == set(UNSEEN_TEXTURES if split == "backgrounds" else TRAINED_TEXTURES)


@pytest.mark.parametrize("split", ["training", "seeds", "backgrounds"])
def test_unseen_pairs_are_never_shown_elsewhere_not_even_after_a_turn(films, split):
    assert not shown(films[split]) & UNSEEN_PAIRS


def test_each_of_the_first_six_scenes_shows_another_unseen_pair(films):
    for film in films["pairs"]:
        found = [
            [thing.name for thing in scene.things if thing.name in UNSEEN_PAIRS]
            for scene in film.scenes
        ]
        assert [len(names) for names in found] == [1] * 6 + [0] * 2
        assert {name for names in found for name in names} == UNSEEN_PAIRS


def test_every_pair_that_may_be_trained_on_is(films):
    assert shown(films["training"]) == set(trained_pairs())
    assert len(trained_pairs()) == len(COLOURS) * len(SHAPES) - len(UNSEEN_PAIRS)


def test_no_two_things_of_a_film_ever_look_alike():
    for split in SPLITS:
        for seed in range(100, 160):
            every = [look for t in plan_film(seed, 8, split=split).things for look in looks(t)]
            assert len(set(every)) == len(every)


def test_scenes_follow_one_another_without_a_gap_from_the_asked_start():
    film = plan_film(2, 6, split="seeds", start=100)
    assert film.scenes[0].start == 100
    assert all(one.end == other.start for one, other in pairwise(film.scenes))


def test_scenes_have_four_to_eight_seconds_and_one_to_three_things(scenes):
    assert {scene.end - scene.start for scene in scenes} == {4, 5, 6, 7, 8}
    assert {len(scene.things) for scene in scenes} == {1, 2, 3}


def test_things_and_numbers_never_leave_the_picture_nor_their_scene(scenes):
    for scene in scenes:
        for thing in scene.drawn:
            assert scene.start <= thing.appears < thing.vanishes <= scene.end
            for second in range(thing.appears, thing.vanishes):
                x, y = thing.centre(second)
                assert thing.radius <= x <= 1 - thing.radius
                assert thing.radius <= y <= 1 - thing.radius


def test_only_what_meets_touches_and_all_else_keeps_apart(scenes):
    for scene in scenes:
        meeting = {frozenset((one, other)) for _, one, other in scene.meetings}
        for _, one, other, gap in seen_together(scene):
            assert gap >= 0.04 or frozenset((one, other)) in meeting


def test_those_who_meet_truly_touch_then_and_not_before(scenes):
    met = 0
    for scene in scenes:
        for first, one, other in scene.meetings:
            gaps = {
                second: gap for second, *both, gap in seen_together(scene) if both == [one, other]
            }
            assert gaps[first] <= 0
            assert all(gap > 0 for second, gap in gaps.items() if second < first)
            # One moves up to the other, by a quarter of the picture and more.
            assert sorted(bool(thing.heading) for thing in (one, other)) == [False, True]
            met += 1
    assert met > 20


def test_numbers_stand_still_and_keep_apart_from_all(scenes):
    numbers = [scene.number for scene in scenes if scene.number]
    assert {number.shape for number in numbers} == set(NUMBERS)
    assert {(number.colour, number.heading, number.turns) for number in numbers} == {
        ("white", None, None)
    }
    assert 0.2 < len(numbers) / len(scenes) < 0.4
    for scene in scenes:
        gaps = [gap for *_, one, other, gap in seen_together(scene) if scene.number in (one, other)]
        assert all(gap >= 0.04 for gap in gaps)


@pytest.mark.parametrize("heading", HEADINGS)
def test_what_moves_is_plainly_seen_to_move_where_it_is_heading(scenes, heading):
    moves = [thing for scene in scenes for thing in scene.things if thing.heading == heading]
    assert len(moves) > 50
    for thing in moves:
        (x, y), (later_x, later_y) = thing.centre(thing.appears), thing.centre(thing.vanishes - 1)
        across, down = HEADINGS[heading]
        assert across * (later_x - x) + down * (later_y - y) >= 0.24
        assert abs(across * (later_y - y)) + abs(down * (later_x - x)) == 0


def test_what_turns_stays_at_its_place_and_is_seen_in_both_colours(scenes):
    turned = [thing for scene in scenes for thing in scene.things if thing.turns]
    assert len(turned) > 100
    for thing in turned:
        when, colour = thing.turns
        assert thing.heading is None
        assert thing.appears < when < thing.vanishes
        assert colour in COLOURS
        assert colour != thing.colour


def test_every_background_comes_about_equally_often(scenes):
    counted = Counter(scene.background for scene in scenes)
    assert set(counted) == set(BACKGROUNDS)
    assert min(counted.values()) > 0.7 * len(scenes) / len(BACKGROUNDS)


def test_a_deck_gives_each_name_once_and_then_all_again():
    deck = Deck(np.random.default_rng(0), "abc")
    assert sorted(deck.draw() for _ in range(3)) == ["a", "b", "c"]
    assert sorted(deck.draw() for _ in range(3)) == ["a", "b", "c"]


def test_what_is_taken_from_a_deck_is_neither_drawn_nor_taken_again():
    deck = Deck(np.random.default_rng(0), "abc")
    assert deck.take("b")
    assert not deck.take("b")
    assert sorted((deck.draw(), deck.draw())) == ["a", "c"]


def test_a_scene_keeps_what_was_planned_for_it_and_others_find_room_around():
    large = Thing("red", "square", 0.3, 0.5, 0.5, None, 0.0, 10, 13)
    for seed in range(20):
        random = np.random.default_rng(seed)
        deck = Deck(random, ["blue ring"])
        scene = plan_scene(random, (10, 16), ["blue cross"], deck, "seeds", planned=(large,))
        assert (scene.start, scene.end) == (10, 16)
        assert scene.things[0] == large
        meeting = {frozenset((one, other)) for _, one, other in scene.meetings}
        for _, one, other, gap in seen_together(scene):
            assert gap >= 0.04 or frozenset((one, other)) in meeting


@pytest.mark.parametrize(
    ("seed", "scenes", "split", "message"),
    [
        (1, 2, "test", "choose from: training, seeds, backgrounds, pairs"),
        (1, 0, "seeds", "at least 1 scene"),
        (-1, 2, "seeds", "from seed -1"),
    ],
)
def test_a_film_that_cannot_be_planned_is_refused_with_a_sentence(seed, scenes, split, message):
    with pytest.raises(BadOption, match=message):
        plan_film(seed, scenes, split=split)
