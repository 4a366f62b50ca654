"""The plan of a film says what happens, and the splits never meet."""

import pytest

from streamvlm.bench.storyboard import storyboard
from streamvlm.bench.world import COLOURS, HEADINGS, HELD_OUT, HELD_OUT_TEXTURES, SHAPES, plan_film


def test_the_same_seed_gives_the_same_film():
    assert plan_film(5, 3) == plan_film(5, 3)


def test_other_seeds_give_other_films():
    assert len({plan_film(seed, 2) for seed in range(50)}) == 50


def test_no_two_things_of_a_film_share_colour_and_shape():
    for seed in range(30):
        names = [thing.name for thing in plan_film(seed, 4).things]
        assert len(set(names)) == len(names)


def test_scenes_follow_one_another_without_a_gap():
    film = plan_film(2, 6, start=100)
    assert film.scenes[0].start == 100
    assert all(one.end == two.start for one, two in zip(film.scenes, film.scenes[1:], strict=False))


def test_things_never_leave_the_picture_or_touch():
    for seed in range(40):
        for scene in plan_film(seed, 3).scenes:
            for second in range(scene.start, scene.end):
                seen = [thing for thing in scene.things if thing.is_seen(second)]
                for one in seen:
                    x, y = one.centre(second)
                    assert one.radius <= x <= 1 - one.radius
                    assert one.radius <= y <= 1 - one.radius
                    for other in seen:
                        far = sum(
                            (a - b) ** 2 for a, b in zip((x, y), other.centre(second), strict=True)
                        )
                        assert other is one or far > (one.radius + other.radius) ** 2


@pytest.mark.parametrize("heading", HEADINGS)
def test_a_thing_moves_where_it_is_heading(heading):
    things = [thing for seed in range(60) for thing in plan_film(seed, 2).things]
    moving = [thing for thing in things if thing.heading == heading]
    assert moving
    for thing in moving:
        (x, y), (later_x, later_y) = thing.centre(thing.appears), thing.centre(thing.vanishes - 1)
        across, down = HEADINGS[heading]
        assert across * (later_x - x) + down * (later_y - y) >= 0.29


def test_every_colour_and_shape_occurs():
    things = [thing for seed in range(40) for thing in plan_film(seed, 3).things]
    assert {thing.colour for thing in things} == set(COLOURS)
    assert {thing.shape for thing in things} == set(SHAPES)


def test_backgrounds_of_the_two_splits_are_disjoint():
    trained = {scene.seed for seed in range(50) for scene in plan_film(seed, 3).scenes}
    measured = {scene.seed for seed in range(50) for scene in plan_film(HELD_OUT + seed, 3).scenes}
    assert max(trained) < HELD_OUT_TEXTURES <= min(measured)


def test_the_storyboard_is_held_out_and_none_of_its_shapes_comes_twice():
    film = storyboard()
    assert film.seed >= HELD_OUT
    assert all(scene.seed >= HELD_OUT_TEXTURES for scene in film.scenes)
    shapes = [thing.shape for thing in film.things]
    assert len(set(shapes)) == len(shapes)
    assert "red square" in {thing.name for thing in film.things}
