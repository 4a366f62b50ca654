import math
from collections import Counter

import pytest

from streamvlm.bench.exam import Mark
from streamvlm.bench.qa import FRAMES, measure_qa
from streamvlm.config import load


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def exam(told):
    def tell(*what):
        told.append(what)

    return measure_qa(load(), seed=3, clips=8, progress=tell)


def asked(marks: tuple[Mark, ...]) -> list[tuple]:
    return [(mark.split, mark.clip, mark.kind, mark.expected) for mark in marks]


def test_half_of_the_clips_are_of_new_seeds_and_a_quarter_of_each_other_split(exam):
    clips = {(mark.split, mark.clip) for mark in exam.seeing}
    assert Counter(split for split, _ in clips) == {"seeds": 4, "backgrounds": 2, "pairs": 2}
    assert max(mark.frames for mark in exam.seeing) <= FRAMES


def test_who_is_blind_is_asked_the_very_same(exam):
    assert asked(exam.blind) == asked(exam.seeing)
    assert [mark.said for mark in exam.blind] != [mark.said for mark in exam.seeing]


def test_both_qualities_are_asked_the_very_same(exam):
    assert asked(exam.fine) == asked(exam.coarse)
    assert {mark.split for mark in exam.fine} == {"seeds"}
    assert set(asked(exam.fine)) <= set(asked(exam.seeing))


def test_the_conditions_name_the_model_and_the_seed(exam):
    assert exam.conditions.model.startswith("llava_onevision/demo")
    assert exam.conditions.seed == 3


def test_progress_is_told_up_to_the_end(exam, told):
    last = {what: (done, total) for what, done, total in told}
    assert len(last) == 5
    assert all(done == total for done, total in last.values())


def test_a_compressor_drops_tokens_before_the_questions(exam):
    config = load(overrides=["compressor.name=random", "compressor.keep=0.03"])
    with_few = measure_qa(config, seed=3, clips=4, compressed=True)
    assert set(asked(with_few.seeing)) <= set(asked(exam.seeing))
    dense = [mark for mark in exam.seeing if mark.split == "seeds" and mark.clip < 2]
    few = [mark for mark in with_few.seeing if mark.split == "seeds"]
    assert asked(dense) == asked(few)
    assert [mark.said for mark in dense] != [mark.said for mark in few]


def test_too_few_long_clips_leave_the_speed_unknown(exam):
    assert exam.speed == ()
    assert not any(math.isnan(mark.milliseconds) for mark in exam.seeing)
