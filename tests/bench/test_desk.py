from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
import torch

from streamvlm.bench.compress import Plan, measure_compress
from streamvlm.bench.desk import Desk, Refused
from streamvlm.bench.exam import examinee, papers, sit
from streamvlm.compressors.uniform import Uniform
from streamvlm.config import load
from streamvlm.errors import BadOption, ModelError
from streamvlm.plugins import names


@dataclass(frozen=True)
class Nearest:
    """A guest: the tokens nearest to any word of the question, and one more for each call."""

    needs = frozenset({"question", "attention"})
    seen: list = field(default_factory=list)

    def __call__(self, tokens, previous=None):
        self.seen.append(tokens)
        near = tokens.cues["question"].amax(1).argsort(descending=True)
        return tokens.select(near[: len(self.seen)].sort().values)


@pytest.fixture(scope="module")
def model():
    return examinee(load(), ("attention", "frame_vector"))


@pytest.fixture(scope="module")
def paper():
    return next(paper for paper in papers(5, 2, split="seeds", frames=2) if paper.number == 1)


def test_who_reads_the_question_compresses_the_clip_anew_for_each(model, paper):
    compress, desk = Nearest(), Desk(model, paper)
    sitting = desk.sit(compress)
    cues = [tokens.cues["question"] for tokens in compress.seen]
    assert len(cues) == len(paper.questions) == len(sitting.marks)
    assert any(one.shape != cues[0].shape or not torch.equal(one, cues[0]) for one in cues)
    assert [mark.expected for mark in sitting.marks] == [
        mark.expected for mark in desk.blind().marks
    ]
    assert sitting.kept == pytest.approx((len(cues) + 1) / 2)


def test_it_gets_the_cues_that_it_needs_and_no_others(model, paper):
    compress = Nearest()
    Desk(model, paper).sit(compress)
    for tokens in compress.seen:
        assert tokens.cues.keys() == {"question", "attention"}
        assert not tokens.frame_cues


@dataclass(frozen=True)
class All:
    needs = frozenset({"question"})

    def __call__(self, tokens, previous=None):
        return tokens


def test_what_was_read_before_is_not_read_again(model, paper, monkeypatch):
    desk = Desk(model, paper)
    ceiling = desk.seen(desk.dense)
    asked = Counter()
    does = type(model).answer_all

    def count(*words):
        asked["all"] += 1
        return does(*words)

    monkeypatch.setattr(type(model), "answer_all", count)
    assert desk.sit(Uniform(keep=1.0)).marks is ceiling.marks
    assert desk.sit(All()).marks == ceiling.marks
    assert not asked
    desk.sit(Uniform(keep=0.5))
    assert asked["all"] == 1


def test_the_answers_are_those_to_the_questions_asked_one_by_one(model, paper):
    desk = Desk(model, paper)
    tokens = Uniform(keep=0.2)(desk.dense)
    one_by_one = sit(model, tokens, paper)
    assert [mark.said for mark in desk.seen(tokens).marks] == [mark.said for mark in one_by_one]


@pytest.mark.skipif("mmtok" not in names("compressors"), reason="needs one that is asked")
def test_a_report_says_who_saw_the_question():
    found = measure_compress(load(), Plan(2, 1, keeps=(0.2,), compressors=("mmtok",)))
    seen = {trial.method.name: trial.sees_question for trial in found.ranking.trials}
    assert seen == {"random": False, "uniform": False, "mmtok": True}
    accuracy, *_ = found.tables()
    assert {row[0]: row[-1] for row in accuracy.rows}["mmtok"] == "seen"
    assert "Seen is the question by mmtok, which" in accuracy.note
    assert [spread.best for spread in found.ranking.spreads] == ["uniform"]
    assert "mmtok (question seen)" in found.picture().svg.decode()


@dataclass(frozen=True)
class Picky:
    needs = frozenset()

    def __call__(self, tokens, previous=None):
        raise BadOption("it takes nothing")


def test_a_compressor_that_refuses_is_told_apart_from_a_model_that_fails(model, paper):
    desk = Desk(model, paper)
    with pytest.raises(Refused, match="it takes nothing"):
        desk.sit(Picky())
    foreign = replace(desk.dense, model="another")
    with pytest.raises(ModelError, match="load those weights"):
        desk.seen(foreign.select(torch.arange(3)))
