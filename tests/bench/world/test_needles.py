"""Needles are where they are said to be, once, in a film of exactly the length asked for."""

import re
from collections import Counter
from itertools import pairwise

import pytest

from streamvlm.bench.world import COLOURS, UNSEEN_PAIRS
from streamvlm.bench.world.drawing import picture, thing_cover
from streamvlm.bench.world.needles import MOST_NEEDLES, NEEDLE_KINDS, plan_needles
from streamvlm.errors import BadOption

HOUR = 3600


@pytest.fixture(scope="module")
def hour():
    return plan_needles(3, HOUR, 20)


def spoken(answer):
    """Seconds of a time as the truth says it."""
    *hours, minutes, seconds = (int(part) for part in answer.split(":"))
    return 3600 * sum(hours) + 60 * minutes + seconds


def looks(thing):
    """Every coloured shape that a thing is ever seen as."""
    later = {f"{thing.turns[1]} {thing.shape}"} if thing.turns else set()
    return {f"{thing.colour} {thing.shape}"} | later


def test_the_same_arguments_give_the_same_film_and_another_seed_another(hour):
    assert plan_needles(3, HOUR, 20) == hour
    assert plan_needles(4, HOUR, 20)[0] != hour[0]


@pytest.mark.parametrize("seconds", [21, 61, 600, HOUR, HOUR + 1])
def test_the_film_is_exactly_as_long_as_asked_and_without_a_gap(seconds):
    film, _ = plan_needles(1, seconds, 7)
    assert film.scenes[0].start == 0
    assert film.seconds == seconds
    assert all(one.end == other.start for one, other in pairwise(film.scenes))
    assert film.split == "seeds"


def test_a_day_holds_its_needles_at_the_asked_ages():
    ages = (3, 60, 3600, 12 * 3600, 86_400)
    film, needles = plan_needles(1, 86_400, 5, ages=ages)
    assert film.seconds == 86_400
    assert [needle.age for needle in needles] == sorted(ages, reverse=True)
    for needle in needles:
        assert needle.span == (86_400 - needle.age, 86_403 - needle.age)
        assert needle.thing in film.scene_at(needle.span[0]).things


def test_each_needle_is_seen_for_three_seconds_and_its_age_is_counted_from_the_first(hour):
    film, needles = hour
    for needle in needles:
        seen = [second for second in range(HOUR) if needle.thing.is_seen(second)]
        assert seen == [*range(needle.span[0], needle.span[1])]
        assert len(seen) == 3
        assert all(needle.thing in film.scene_at(second).things for second in seen)
        assert needle.age == HOUR - seen[0]


def test_nothing_else_ever_looks_like_a_needle(hour):
    film, needles = hour
    seen = Counter(look for thing in film.things for look in looks(thing))
    for needle in needles:
        assert needle.thing.turns is None
        assert seen[needle.thing.name] == 1


def test_no_pair_that_training_never_shows_is_in_the_film(hour):
    assert not UNSEEN_PAIRS & {look for thing in hour[0].things for look in looks(thing)}


def test_a_needle_shares_its_scene_with_one_thing_at_most(hour):
    film, needles = hour
    scenes = [film.scene_at(needle.span[0]) for needle in needles]
    assert len(set(scenes)) == len(needles)
    assert {len(scene.things) for scene in scenes} == {1, 2}
    assert all(scene.number is None for scene in scenes)


def test_around_the_needles_there_is_as_much_as_in_any_film(hour):
    film, needles = hour
    planted = {needle.span[0] for needle in needles}
    ordinary = [scene for scene in film.scenes if not planted & set(range(scene.start, scene.end))]
    assert {scene.end - scene.start for scene in ordinary} == {4, 5, 6, 7, 8}
    assert len(ordinary) > HOUR / 8
    assert len({look for scene in ordinary for thing in scene.things for look in looks(thing)}) > 15


def test_no_two_things_of_one_scene_look_alike_when_names_are_few():
    film, _ = plan_needles(5, HOUR, MOST_NEEDLES)
    for scene in film.scenes:
        names = [thing.name for thing in scene.things]
        assert len(set(names)) == len(names)


def test_needles_never_leave_the_picture():
    for seed in range(8):
        _, needles = plan_needles(seed, 300, 20)
        for thing in (needle.thing for needle in needles):
            for second in range(thing.appears, thing.vanishes):
                assert all(thing.radius <= at <= 1 - thing.radius for at in thing.centre(second))


def test_questions_name_the_needle_and_their_answers_are_read_off_its_path():
    asked = Counter()
    for seed in range(8):
        _, needles = plan_needles(seed, 300, 20)
        for needle in needles:
            question, thing = needle.question, needle.thing
            assert question.about == thing.name
            assert re.search(rf"\b{thing.name}\b", question.text)
            (x, y), (last_x, last_y) = (
                thing.centre(needle.span[0]),
                thing.centre(needle.span[1] - 1),
            )
            if question.kind == "when":
                assert spoken(question.answer) == needle.span[0]
            elif question.kind == "where":
                assert (x, y) == (last_x, last_y)
                row = "top" if y < 1 / 3 else "bottom" if y > 2 / 3 else ""
                column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
                assert question.answer == (f"{row} {column}".strip() or "centre")
            else:
                across, down = last_x - x, last_y - y
                headings = {"left": -across, "right": across, "up": -down, "down": down}
                assert headings[question.answer] > 0.29
            asked[question.kind] += 1
    assert set(asked) == set(NEEDLE_KINDS)
    assert max(asked.values()) - min(asked.values()) <= 8


def test_some_needles_of_the_kind_when_move_and_some_stay():
    headings = {
        bool(needle.thing.heading)
        for seed in range(3)
        for needle in plan_needles(seed, 300, 20)[1]
        if needle.question.kind == "when"
    }
    assert headings == {True, False}


def test_without_ages_each_stretch_of_the_film_has_one(hour):
    _, needles = hour
    assert [needle.span[0] // (HOUR // 20) for needle in needles] == [*range(20)]


def test_a_needle_is_drawn_when_it_is_seen_and_only_then(hour):
    film, needles = hour
    for needle in needles[:6]:
        thing = needle.thing
        for second in range(needle.span[0] - 1, needle.span[1] + 1):
            inside = thing_cover(thing, second, 96) == 1
            colour = picture(film, second, 96)[inside].mean(axis=0)
            shown = abs(colour - COLOURS[thing.colour]).mean() < 2
            assert shown == (needle.span[0] <= second < needle.span[1])


@pytest.mark.parametrize("count", [0, MOST_NEEDLES + 1])
def test_a_number_of_needles_that_cannot_all_have_names_is_refused(count):
    with pytest.raises(BadOption, match=f"{count} needles.*plan several films"):
        plan_needles(1, HOUR, count)


def test_too_short_a_film_is_refused():
    with pytest.raises(BadOption, match="20 needles in 50 s"):
        plan_needles(1, 50, 20)


@pytest.mark.parametrize(
    ("ages", "message"),
    [
        ((10, 20), "2 ages for 3"),
        ((10, 20, 61), "61 s old"),
        ((10, 20, 2), "2 s old"),
        ((10, 20, 30.5), "30.5 s old"),
        ((10, 30, 28), "of 30 s and 28 s of age"),
    ],
)
def test_ages_that_do_not_fit_are_refused(ages, message):
    with pytest.raises(BadOption, match=message):
        plan_needles(1, 60, 3, ages=ages)


def test_needles_may_follow_one_another_at_once():
    film, needles = plan_needles(1, 15, 5, ages=(3, 6, 9, 12, 15))
    assert [needle.span for needle in needles] == [(0, 3), (3, 6), (6, 9), (9, 12), (12, 15)]
    assert film.seconds == 15


def test_a_seed_below_zero_is_refused():
    with pytest.raises(BadOption, match="seed -1"):
        plan_needles(-1, HOUR, 2)
