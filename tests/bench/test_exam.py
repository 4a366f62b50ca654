from collections import Counter
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from streamvlm.bench.exam import (
    OF_A_KIND,
    QUESTIONS,
    RAREST_FIRST,
    chosen,
    examinee,
    fingerprint,
    papers,
    shown,
    sit,
    sit_at_once,
)
from streamvlm.bench.world import UNSEEN_PAIRS
from streamvlm.bench.world.drawing import picture
from streamvlm.bench.world.planning import plan_film
from streamvlm.bench.world.questions import KINDS, Question
from streamvlm.config import load
from streamvlm.errors import ConfigError
from streamvlm.types import Query, Word


class Reader:
    """Says what it was taught; remembers what it was shown."""

    def __init__(self, answers):
        self.answers, self.shown = answers, []

    def answer(self, query, evidence):
        self.shown.append(evidence)
        for piece in self.answers[query.text].partition(" "):
            yield Word(piece, 1.0)


@pytest.fixture(scope="module")
def exam():
    return list(papers(1, 4, split="seeds", frames=3))


@pytest.fixture(scope="module")
def model():
    return examinee(load())


def same(one, other) -> bool:
    pictures = zip(one.clip.frames, other.clip.frames, strict=True)
    return one.questions == other.questions and all(
        np.array_equal(a.image, b.image) for a, b in pictures
    )


def test_a_longer_exam_begins_with_the_same_papers(exam):
    again = islice(papers(1, 9, split="seeds", frames=3), 2)
    assert all(same(*both) for both in zip(again, exam, strict=False))


def test_other_seeds_and_splits_are_other_papers(exam):
    others = (("seeds", 2), ("backgrounds", 1))
    for split, seed in others:
        (other,) = papers(seed, 1, split=split, frames=3)
        assert other.split == split
        assert not same(other, exam[0])


def test_clips_have_all_lengths_in_turn_at_one_frame_a_second(exam):
    assert [len(paper.clip.frames) for paper in exam] == [1, 2, 3, 1]
    assert [paper.number for paper in exam] == [0, 1, 2, 3]
    for paper in exam:
        first = paper.clip.start
        times = [frame.seconds for frame in paper.clip.frames]
        assert times == [first + index for index in range(len(times))]
        assert paper.clip.end == first + len(times)


def test_pictures_are_those_of_the_film_after_compression(exam):
    for paper in exam[:2]:
        film = plan_film(1_000_000 + paper.number, 3, split="seeds")
        for frame in paper.clip.frames:
            drawn = picture(film, frame.seconds, 384).astype(float)
            difference = np.abs(frame.image - drawn).mean()
            assert 0 < difference < 6


def test_quality_changes_the_pictures_and_not_the_questions(exam):
    coarse = next(papers(1, 1, split="seeds", frames=3, crf=40))
    assert coarse.questions == exam[0].questions
    assert not same(coarse, exam[0])


def test_each_kind_has_its_place_among_the_rare_ones():
    assert sorted(RAREST_FIRST) == sorted(KINDS)


def test_a_paper_has_few_questions_of_a_kind_and_the_rare_ones_first():
    many = [Question(kind, f"{kind} {n}?", "yes", "") for kind in KINDS for n in range(5)]
    asked = chosen(many, np.random.default_rng(0))
    assert len(asked) == QUESTIONS
    assert [question.kind for question in asked] == list(RAREST_FIRST[:QUESTIONS])
    few = [question for question in many if question.kind in ("exist", "change")]
    asked = chosen(few, np.random.default_rng(0))
    assert Counter(question.kind for question in asked) == {
        "change": OF_A_KIND,
        "exist": OF_A_KIND,
    }


def test_what_training_never_shows_is_asked_first():
    unseen = min(UNSEEN_PAIRS)
    many = [Question("when", f"{n}?", "00:01", "") for n in range(20)]
    many.insert(13, Question("when", "unseen?", "00:01", unseen))
    assert chosen(many, np.random.default_rng(0))[0].about == unseen


def test_every_question_is_marked_after_normalising(exam):
    paper = exam[2]
    wrong, *rest = paper.questions
    taught = {question.text: f" The {question.answer.upper()}." for question in rest}
    taught[wrong.text] = "no idea at all"
    marks = sit(Reader(taught), None, paper)
    assert [mark.right for mark in marks] == [False] + [True] * len(rest)
    assert marks[0].said == "no idea at all"
    for mark, question in zip(marks, paper.questions, strict=True):
        assert (mark.kind, mark.about) == (question.kind, question.about)
        assert (mark.clip, mark.frames, mark.split) == (2, 3, "seeds")
        assert mark.milliseconds > 0


def test_who_is_blind_is_shown_nothing_and_who_sees_the_same_each_time(exam, model):
    paper = exam[1]
    reader = Reader({question.text: "yes" for question in paper.questions})
    sit(reader, None, paper)
    assert set(reader.shown) == {()}
    reader.shown.clear()
    tokens = model.encode(paper.clip)
    sit(reader, tokens, paper)
    ((found,), *others) = reader.shown
    assert found.record.tokens.features is tokens.features
    assert (found.record.start, found.record.end) == (paper.clip.start, paper.clip.end)
    assert all(other[0] is found for other in others)


def test_evidence_carries_no_cues(exam):
    cued = examinee(load(), ["attention"]).encode(exam[0].clip)
    assert cued.cues
    assert not shown(cued, exam[0].clip).record.tokens.cues


def test_the_demo_model_answers_more_from_pictures_than_without(exam, model):
    def score(see):
        marks = [mark for paper in exam for mark in sit(model, see(paper), paper)]
        return np.mean([mark.right for mark in marks])

    assert score(lambda paper: model.encode(paper.clip)) > score(lambda _: None) + 0.15


def test_a_configuration_whose_answers_come_from_elsewhere_is_refused():
    elsewhere = load("openai")
    with pytest.raises(ConfigError, match="lets openai answer; measure one without"):
        examinee(elsewhere)


def test_questions_asked_at_once_get_the_answers_that_they_get_one_by_one(exam, model):
    for paper in exam[:4]:
        tokens = model.encode(paper.clip)
        one_by_one = sit(model, tokens, paper)
        at_once = sit_at_once(model, (shown(tokens, paper.clip),), paper)
        assert [replace(mark, milliseconds=0.0) for mark in at_once] == [
            replace(mark, milliseconds=0.0) for mark in one_by_one
        ]
        assert all(mark.milliseconds > 0 for mark in at_once)


def test_who_cannot_answer_at_once_is_asked_one_by_one(exam):
    paper = exam[0]
    answers = {question.text: question.answer for question in paper.questions}
    reader = Reader(answers)
    marks = sit_at_once(reader, (), paper)
    assert all(mark.right for mark in marks)
    assert len(reader.shown) == len(paper.questions)


def test_without_questions_nothing_is_asked(exam, model):
    assert sit_at_once(model, (), replace(exam[0], questions=())) == []


def test_an_examinee_is_reduced_as_the_configuration_says_and_the_conditions_say_it():
    config = load("default", ["reducer.name=fastv", "reducer.layer=1"])
    model = examinee(config)
    assert fingerprint(config, model).endswith(", reducer fastv (keep 0.222, layer 1)")
    paper = next(papers(3, 1, split="seeds", frames=1))
    query = Query(paper.questions[0].text)
    evidence = (shown(model.encode(paper.clip), paper.clip),)
    (reduced,) = list(model.answer(query, evidence))[:1]
    (whole,) = list(examinee(load("default")).answer(query, evidence))[:1]
    assert reduced.probability != whole.probability
