"""The second look: the model says of each candidate whether it can use it."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import streamvlm
from streamvlm.errors import BadOption
from streamvlm.rerank import LISTEN, RECORDS, TOKENS, Rerank, reranked
from streamvlm.stopwatch import Stopwatch
from streamvlm.types import Evidence, MemoryRecord, Query, VisualTokens, Word
from streamvlm.video.sources import Sampling, open_source


@pytest.fixture(scope="module")
def memory_folder(tmp_path_factory, shapes_film) -> Path:
    folder = tmp_path_factory.mktemp("rerank") / "memory"
    with streamvlm.load(memory=folder, overrides=["memory.sync=process"]) as vlm:
        vlm.ingest(shapes_film)
    return folder


def found(number: int, tokens: int = 4) -> Evidence:
    made = VisualTokens(
        model="eye@1",
        features=torch.ones(tokens, 2),
        position=torch.zeros(tokens, 3, dtype=torch.int64),
        seconds=torch.zeros(tokens, dtype=torch.float64),
        grid=(1, 1, 1),
        weight=torch.ones(tokens),
    )
    record = MemoryRecord(
        id=str(number),
        stream="a",
        start=float(number),
        end=number + 1.0,
        keys=np.eye(1, 4, dtype=np.float32),
        tokens=made,
        frame_seconds=np.array([float(number)]),
        frame_hash=np.zeros(1, np.uint64),
        thumbnail=b"",
    )
    return Evidence(record, 0.5)


class Teller:
    """Says of each record what it was told to say."""

    def __init__(self, *answers: str, sure: float = 0.9) -> None:
        self.answers, self.sure = answers, sure
        self.asked: list[str] = []
        self.heard = 0

    def __call__(self, query, evidence):
        (each,) = evidence
        self.asked.append(query.text)
        for word in self.answers[int(each.record.id)].split():
            self.heard += 1
            yield Word(f" {word}", self.sure)


def ranked(teller, *evidence, ask="{question}", watch=None, **limits):
    query = Query("Where is it?", **limits)
    return reranked(evidence, query, ask, teller, watch or Stopwatch())


@pytest.mark.parametrize(
    "denial",
    ["no", "No such thing.", "not visible", "nothing", "There is no cat.", "It isn't there", "No."],
)
def test_what_the_model_denies_comes_last(denial):
    order = ranked(Teller(denial, "top left", "yes"), found(0), found(1), found(2))
    assert [each.record.id for each in order] == ["1", "2", "0"]
    assert [each.score for each in order] == pytest.approx([0.9, 0.9, -0.9])


@pytest.mark.parametrize("said", ["north", "notebook", "a yellow nose", "00:12", "yes"])
def test_other_answers_speak_for_a_record(said):
    (only,) = ranked(Teller(said), found(0))
    assert only.score == pytest.approx(0.9)


def test_a_model_that_tells_no_probabilities_sorts_into_yes_and_no():
    order = ranked(Teller("no", "yes", "yes", sure=math.nan), found(0), found(1), found(2))
    assert [(each.record.id, each.score) for each in order] == [("1", 1.0), ("2", 1.0), ("0", -1.0)]


def test_a_model_that_says_nothing_says_neither_yes_nor_no():
    order = ranked(Teller("no", "", "yes"), found(0), found(1), found(2))
    assert [each.record.id for each in order] == ["2", "1", "0"]


def test_the_question_can_be_put_in_another_way():
    teller = Teller("yes")
    ranked(teller, found(0), ask="Is this shown: {question} Say yes or no.")
    assert teller.asked == ["Is this shown: Where is it? Say yes or no."]


def test_only_the_beginning_of_an_answer_is_listened_to():
    teller = Teller("well " * 100)
    ranked(teller, found(0))
    assert teller.heard == LISTEN


def test_what_it_costs_is_counted():
    watch = Stopwatch()
    ranked(Teller("yes", "no", "no"), found(0), found(1, 6), found(2, 0), watch=watch)
    assert (watch.counts[RECORDS], watch.counts[TOKENS]) == (2, 10)
    assert "rerank" in watch.milliseconds


def test_no_more_is_shown_of_one_record_than_may_be_read():
    watch = Stopwatch()
    ranked(Teller("yes"), found(0, 100), watch=watch, max_tokens=7)
    assert watch.counts[TOKENS] == 7


def test_settings_must_make_sense():
    with pytest.raises(BadOption, match="look_at"):
        streamvlm.load(overrides=["rerank.look_at=-1"])
    with pytest.raises(BadOption, match=r"\{question\}"):
        streamvlm.load(overrides=["rerank.ask=yes or no?"])
    assert Rerank().look_at == 0


def test_the_model_looks_at_candidates_before_it_answers(memory_folder):
    question = "Is there a red square?"
    with streamvlm.load(memory=memory_folder) as vlm:
        without = vlm.ask(question)
    with streamvlm.load(memory=memory_folder, overrides=["rerank.look_at=5"]) as vlm:
        answer = vlm.ask(question)
        streamed = "".join(map(str, vlm.ask_stream(question))).strip()
        named = vlm.ask("What is there at 00:05?")
        late = vlm.ask(vlm.query(question, since=9.0, until=11.0))
    assert [each.record.start for each in answer.evidence] == [8.0]
    assert answer.text == streamed == "yes"
    assert answer.evidence[0].score > 0.9
    assert answer.usage.looked_at["records"] == 5
    assert answer.usage.looked_at["tokens"] > answer.usage.tokens_read
    assert answer.usage.milliseconds["rerank"] > 0
    assert without.usage.looked_at == {}
    assert "rerank" not in without.usage.milliseconds
    assert [each.record.start for each in named.evidence] == [0.0]
    assert late.text == "no"


def test_the_model_finds_what_the_search_ranks_last(memory_folder, shapes_film):
    """Pictures of another scene lead the search astray; the model looks and sees."""
    frames = open_source(str(shapes_film), Sampling())
    star = next(frame.image for frame in frames if frame.seconds >= 25)
    for look_at, start, text in ((0, 24.0, "no"), (5, 8.0, "yes")):
        overrides = [f"rerank.look_at={look_at}"]
        with streamvlm.load(memory=memory_folder, overrides=overrides) as vlm:
            answer = vlm.ask(vlm.query("Is there a red square?", like=[star] * 20))
        assert [each.record.start for each in answer.evidence] == [start]
        assert answer.text == text
