"""Questions have one right answer, read off the plan, and yes and no are balanced."""

from collections import Counter

import numpy as np
import pytest

from streamvlm.bench.questions import PHRASINGS, View, ask_all, clock, normalise, place
from streamvlm.bench.storyboard import storyboard
from streamvlm.bench.world import HELD_OUT, plan_film


def asked_about(film, moments, shift=0):
    return ask_all([View(film, tuple(moments), shift)], np.random.default_rng(0))


@pytest.fixture(scope="module")
def many():
    films = [plan_film(HELD_OUT + seed, 2) for seed in range(60)]
    return [(film, question) for film in films for question in asked_about(film, range(9))]


def test_every_kind_is_asked(many):
    assert {question.kind for _, question in many} == set(PHRASINGS)


def test_yes_and_no_come_equally_often(many):
    answers = Counter(question.answer for _, question in many if question.kind == "exist")
    assert answers["yes"] == answers["no"] > 50


def test_what_is_said_to_be_absent_is_absent(many):
    for film, question in many:
        if question.kind == "exist":
            seen = {t.name for t in film.things if any(t.is_seen(m) for m in range(9))}
            assert (question.about in seen) == (question.answer == "yes")


def test_a_thing_appears_when_it_is_first_shown(many):
    for film, question in many:
        if question.kind == "when":
            thing = next(t for t in film.things if t.name == question.about)
            assert question.answer == clock(thing.appears)


def test_what_two_things_share_is_not_asked_of_one(many):
    for film, question in many:
        if question.kind == "colour":
            shape = question.about.split()[1]
            seen = [t for t in film.things if any(t.is_seen(m) for m in range(9))]
            assert sum(t.shape == shape for t in seen) == 1


def test_times_follow_the_shift():
    answers = {
        question.about: question.answer
        for question in asked_about(storyboard(), range(8, 16), shift=3600)
        if question.kind == "when"
    }
    assert answers == {"red square": "01:00:11"}


def test_the_demo_phrases_are_among_the_phrasings(many):
    texts = [question.text for _, question in many]
    for start in (
        "What colour is the ",
        "When does the ",
        "Where is the ",
        "Which way does the ",
        "Is there a ",
    ):
        assert any(text.startswith(start) for text in texts)


def test_places_are_ninths_of_the_picture():
    named = {thing.name: thing for thing in storyboard().things}
    assert place(named["blue circle"], 0) == "bottom left"
    assert place(named["white cross"], 34) == "top"


@pytest.mark.parametrize("said", ["Red square.", "the red  square", " RED SQUARE"])
def test_answers_are_compared_without_case_articles_and_full_stops(said):
    assert normalise(said) == "red square"
