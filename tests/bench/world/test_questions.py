"""Questions have one right answer, which an oracle finds anew from their words and the plan."""

import re
from collections import Counter

import numpy as np
import pytest

from streamvlm.bench.world import COLOURS, HEADINGS, SHAPES, SPLITS, UNSEEN_PAIRS, Thing
from streamvlm.bench.world.planning import plan_film
from streamvlm.bench.world.questions import (
    ABSTENTIONS,
    CLEAR,
    KINDS,
    PHRASINGS,
    ask_all,
    normalise,
    place,
)
from streamvlm.bench.world.storyboard import storyboard
from streamvlm.bench.world.views import View
from tests.bench.world.oracle import DIGITS, asked_kind, shown, spoken, truth


def views_of(seed, split):
    """Some moments of a film; of every other film the later scenes are shown at other times."""
    random = np.random.default_rng(seed)
    film = plan_film(seed, 4, split=split)
    border = film.scenes[2].start if seed % 2 else film.scenes[2].end
    begin = random.permutation(np.arange(0, border))[: 1 + seed % 12]
    views = [View(film, tuple(sorted(begin.tolist())))]
    if seed % 2:
        later = random.permutation(np.arange(border, film.seconds))[: 1 + seed % 7]
        views.append(View(film, tuple(sorted(later.tolist())), shift=4000))
    return views


@pytest.fixture(scope="module")
def asked():
    """(split, views, question) of many."""
    return [
        (split, views, question)
        for split in SPLITS
        for seed in range(60)
        for views in [views_of(seed, split)]
        for question in ask_all(views, np.random.default_rng(seed))
    ]


@pytest.mark.parametrize("kind", PHRASINGS)
def test_every_answer_is_the_one_that_the_plan_gives(asked, kind):
    checked = 0
    for _, views, question in asked:
        if asked_kind(question.text)[0] == kind:
            said = question.answer
            assert (spoken(said) if said[0].isdigit() else said) == truth(views, question.text), (
                question,
                views,
            )
            checked += 1
    assert checked > 50


@pytest.mark.parametrize("split", SPLITS)
def test_every_kind_is_asked_in_every_way(asked, split):
    questions = [question for of, _, question in asked if of == split]
    assert {question.kind for question in questions} == set(KINDS)
    frames = [re.escape(way) for ways in PHRASINGS.values() for way in ways]
    for frame in frames:
        pattern = re.sub(r"\\{\w+\\}", r"[\\w: ]+", frame).replace(r"\ a\ ", " an? ")
        assert any(re.fullmatch(pattern, question.text) for question in questions), pattern


def test_a_kind_is_told_by_its_words_but_for_what_is_absent(asked):
    for _, _, question in asked:
        is_absent = question.answer in ABSTENTIONS
        expected = "absent" if is_absent else asked_kind(question.text)[0]
        assert question.kind == expected


def test_yes_and_no_come_equally_often(asked):
    pairs = Counter(
        (id(views), question.answer) for _, views, question in asked if question.kind == "exist"
    )
    for views, answer in list(pairs):
        assert pairs[views, "yes"] == pairs[views, "no"], answer
    assert sum(pairs.values()) > 500


def test_what_is_said_to_be_absent_is_nowhere_to_be_seen(asked):
    counted = Counter()
    for _, views, question in asked:
        moments = shown(views)
        if question.answer == "no such thing":
            looks = {look for there in moments.values() for s in there for look in (s.name, s.look)}
            assert question.about not in looks
        elif question.kind == "absent" and question.answer == "not visible":
            time = spoken(re.search(r"[\d:]{4,}", question.text)[0])
            assert question.about not in [sight.name for sight in moments.get(time, [])]
        counted[question.answer if question.kind == "absent" else ""] += 1
    assert set(counted) == {"", *ABSTENTIONS}
    assert min(counted.values()) > 20


def test_times_that_are_not_shown_lie_before_between_and_after_what_is():
    sides = Counter()
    for seed in range(1, 200, 2):
        views = views_of(seed, "seeds")
        first, last = views
        for question in ask_all(views, np.random.default_rng(seed)):
            if asked_kind(question.text)[0] == "at" and question.kind == "absent":
                time = question.text.rstrip("?").rsplit(" ", 1)[1]
                seconds = sum(
                    int(part) * 60**power for power, part in enumerate(time.split(":")[::-1])
                )
                outside = {
                    "before": seconds < first.moments[0],
                    "between": first.moments[-1] + 1 < seconds < last.moments[0] + 4000,
                    "after": seconds > last.moments[-1] + 4001,
                }
                assert sum(outside.values()) == 1, (views, question)
                sides[next(side for side, so in outside.items() if so)] += 1
    assert set(sides) == {"before", "between", "after"}


def test_less_is_asked_in_vain_than_in_earnest(asked):
    vain, earnest = Counter(), Counter()
    for _, _, question in asked:
        kind = asked_kind(question.text)[0]
        (vain if question.kind == "absent" else earnest)[kind] += 1
    assert set(vain) == {"when", "where", "direction", "change", "at", "where at"}
    assert vain.total() < sum(earnest[kind] for kind in vain)
    # Clips of one frame show no motion, so that of this kind there is a little more.
    assert all(number < 1.2 * earnest[kind] for kind, number in vain.items())


def test_what_is_absent_mostly_shares_a_feature_with_what_is_shown(asked):
    like = []
    for _, views, question in asked:
        if question.kind == "exist" and question.answer == "no":
            words = {w for there in shown(views).values() for s in there for w in s.look.split()}
            like.append(bool(words & set(question.about.split())))
    assert np.mean(like) > 0.75


@pytest.mark.parametrize("split", ["training", "seeds", "backgrounds"])
def test_unseen_pairs_are_named_in_no_other_split(asked, split):
    for of, _, question in asked:
        if of == split:
            said = f"{question.text} {question.answer} {question.about}"
            assert not any(pair in said for pair in UNSEEN_PAIRS)


def test_unseen_pairs_are_asked_about_in_their_split_whether_they_are_there_or_not(asked):
    answers = Counter(
        question.answer
        for split, _, question in asked
        if split == "pairs" and question.kind == "exist" and question.about in UNSEEN_PAIRS
    )
    assert answers["no"] == answers["yes"] > 50


def test_each_question_says_what_it_is_about(asked):
    for _, views, question in asked:
        kind, named = asked_kind(question.text)
        names = {look for t in shown(views).values() for s in t for look in (s.name, s.look)}
        if kind in ("count", "number") or question.answer in ("nothing",) or named == ():
            assert question.about == ""
        elif kind == "at":
            assert question.about == ("" if question.kind == "absent" else question.answer)
        elif kind in ("colour", "shape"):
            assert named[0] in question.about.split()
            assert question.answer in question.about.split()
            assert question.about in names
        else:
            assert question.about == named[0]


def test_near_a_border_no_place_is_asked_about(asked):
    looked_at = 0
    for _, views, question in asked:
        if question.kind in ("where", "where at"):
            kind, named = asked_kind(question.text)
            moments = shown(views)
            times = moments if kind == "where" else [spoken(named[1])]
            for sight in (s for time in times for s in moments[time] if s.name == named[0]):
                borders = [
                    abs(at - border) for at in (sight.x, sight.y) for border in (1 / 3, 2 / 3)
                ]
                assert min(borders) >= CLEAR
                looked_at += 1
    assert looked_at > 200


def test_an_article_fits_the_colour(asked):
    for _, _, question in asked:
        article = re.search(r"\b(an?) (\w)", question.text)
        assert article is None or (article[1] == "an") == (article[2] == "o")


def test_questions_of_the_same_random_numbers_are_the_same():
    views = views_of(1, "seeds")
    one, other = (ask_all(views, np.random.default_rng(5)) for _ in range(2))
    assert one == other
    assert ask_all(views, np.random.default_rng(6)) != one


def test_a_view_shows_the_scenes_and_things_of_its_moments_only():
    film = storyboard()
    view = View(film, (7, 10, 11, 20, 21))
    assert view.scenes == list(film.scenes[:3])
    named = {thing.name: moments for thing, moments in view.sightings.items()}
    assert named == {"blue circle": [7], "red square": [11], "green triangle": [20, 21]}


def test_times_follow_the_shift():
    asked_later = ask_all([View(storyboard(), (*range(8, 16),), 3600)], np.random.default_rng(0))
    answers = {q.about: q.answer for q in asked_later if q.kind == "when"}
    assert answers == {"red square": "01:00:11"}


def test_nothing_is_asked_about_a_thing_by_a_colour_that_is_not_shown():
    film = next(
        film
        for seed in range(100)
        for film in [plan_film(seed, 1, split="seeds")]
        if any(thing.turns for thing in film.things)
    )
    thing = next(thing for thing in film.things if thing.turns)
    later = View(film, (*range(thing.turns[0], thing.vanishes),))
    questions = ask_all([later], np.random.default_rng(0))
    assert questions
    assert not any(thing.name in question.text for question in questions)


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize("column", range(3))
def test_places_are_ninths_of_the_picture(row, column):
    thing = Thing("red", "star", 0.1, (column + 0.5) / 3, (row + 0.5) / 3, None, 0.0, 0, 1)
    words = (("top", "", "bottom")[row], ("left", "", "right")[column])
    assert place(thing, 0) == (" ".join(word for word in words if word) or "centre")


@pytest.mark.parametrize(
    "said", ["Red square.", "the red  square", " RED SQUARE", "A red square ."]
)
def test_answers_are_compared_without_case_articles_and_full_stops(said):
    assert normalise(said) == "red square"


def test_no_right_answer_is_changed_into_another_by_comparing():
    answers = [*COLOURS, *SHAPES, *HEADINGS, *DIGITS, *ABSTENTIONS, "nothing", "top left", "00:12"]
    assert [normalise(answer) for answer in answers] == answers
