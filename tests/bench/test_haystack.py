"""One small film that is really ingested, and what is read of it in each way."""

from dataclasses import replace

import pytest

from streamvlm.bench.haystack import (
    BLIND,
    MEMORY,
    ORACLE,
    WAYS,
    WINDOW,
    Haystack,
    likeness,
    newest,
    uniform,
)
from streamvlm.bench.world import Film, Scene, Thing
from streamvlm.bench.world.drawing import write_film
from streamvlm.bench.world.needles import Needle
from streamvlm.bench.world.questions import Question
from streamvlm.config import load
from streamvlm.memory.store import Memory
from streamvlm.types import Evidence

BUDGET = 60
"""Tokens that the window holds."""
FRAME = 36
"""Tokens of a frame of the demo model."""


def thing(name: str, life: tuple[int, int], place=(0.2, 0.2)) -> Thing:
    colour, shape = name.split()
    return Thing(colour, shape, 0.15, *place, None, 0.0, *life)


def scene(start: int, *things: Thing, number: Thing | None = None) -> Scene:
    return Scene(start, start + 8, "still", "clouds", start, things, number)


RED = thing("red square", (10, 13), (0.8, 0.8))
FILM = Film(
    7,
    "seeds",
    (
        scene(0, thing("blue circle", (0, 8))),
        scene(8, RED),
        scene(16, thing("red ring", (16, 24)), thing("cyan square", (18, 24), (0.8, 0.8))),
        scene(24, thing("red star", (24, 30)), number=thing("white seven", (24, 32), (0.8, 0.2))),
        scene(32, thing("yellow square", (32, 40))),
    ),
)
NEEDLE = Needle(
    RED, Question("where", "Where is the red square?", "bottom right", RED.name), (10, 13), 30
)


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_film(FILM, tmp_path_factory.mktemp("film") / "film.mp4", fps=1, size=192)


@pytest.fixture(scope="module")
def vlm(film):
    with load().build() as built:
        built.ingest(film)
        yield built


@pytest.fixture(scope="module")
def memory(vlm):
    with Memory.open(vlm.folder, writable=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def haystack(vlm, memory, film):
    (stream,) = vlm.streams()
    last = tuple(Evidence(record, 1.0) for record in newest(memory, stream, BUDGET))
    few, many = (uniform(vlm, film, load(), frames) for frames in (16, 64))
    evidence = {"uniform 16": few, "uniform 64": many, WINDOW: last, BLIND: ()}
    return Haystack(FILM, 0, stream, vlm, memory, evidence)


@pytest.fixture(scope="module")
def find(haystack):
    return haystack.look_for(NEEDLE)


def test_the_record_that_holds_the_needle_is_found_first_and_read_by_memory(find):
    assert (find.rank, find.instead, find.holders, find.records) == (0, "", 1, 5)
    assert find.replies[MEMORY].sees
    assert 0 < find.replies[MEMORY].tokens <= load().limits.max_tokens


def test_every_way_is_marked_against_the_truth(find):
    assert list(find.replies) == list(WAYS)
    for reply in find.replies.values():
        assert reply.mark.expected == "bottom right"
        assert reply.mark.right == (reply.mark.said == "bottom right")
        assert reply.mark.frames == FILM.seconds


def test_the_demo_model_answers_where_a_lone_thing_is_from_the_right_record(find):
    assert find.replies[ORACLE].mark.right
    assert find.replies[MEMORY].mark.right


def test_the_oracle_reads_the_needle_and_the_window_of_the_end_does_not(find):
    assert find.replies[ORACLE].sees
    assert not find.replies[WINDOW].sees
    assert 0 < find.replies[WINDOW].tokens <= BUDGET


def test_who_is_blind_reads_nothing(find):
    assert find.replies[BLIND].tokens == 0
    assert not find.replies[BLIND].sees


def test_uniform_frames_are_all_tokens_of_frames_all_over_the_film(haystack, find):
    (few,) = haystack.evidence["uniform 16"]
    seconds = few.record.tokens.seconds
    assert find.replies["uniform 16"].tokens == len(seconds)
    assert len(few.record.frame_seconds) in (14, 15, 16)
    assert len(seconds) == FRAME * len(few.record.frame_seconds)
    assert seconds.min() == 0
    assert seconds.max() >= FILM.seconds - 4
    (many,) = haystack.evidence["uniform 64"]
    assert len(many.record.frame_seconds) == FILM.seconds  # the film has no more


def test_a_needle_that_is_searched_under_another_name_is_not_found_first(haystack):
    question = replace(NEEDLE.question, text="Where is the blue circle?")
    found = haystack.look_for(replace(NEEDLE, question=question))
    assert found.rank
    assert found.instead == "nothing like it"


def test_a_needle_of_which_no_picture_is_kept_is_lost(haystack):
    lost = replace(NEEDLE, span=(100, 103))
    found = haystack.look_for(lost)
    assert (found.holders, found.rank) == (0, None)
    assert not found.replies[MEMORY].sees
    assert found.replies[ORACLE].tokens == 0


def test_the_window_is_the_newest_records_within_its_budget(memory, vlm):
    (stream,) = vlm.streams()
    every = list(newest(memory, stream, 10**6))
    assert [record.start for record in every] == [32, 24, 16, 8, 0]
    sizes = [len(record.tokens) for record in every]
    assert len(list(newest(memory, stream, sum(sizes[:2])))) == 2
    assert len(list(newest(memory, stream, sum(sizes[:2]) - 1))) == 1


def test_the_window_holds_one_record_even_if_that_alone_is_too_much(memory, vlm):
    (stream,) = vlm.streams()
    assert [record.start for record in newest(memory, stream, 1)] == [32]


@pytest.mark.parametrize(
    ("seconds", "like"),
    [
        (16, "its colour on another shape"),
        (18, "its colour and its shape, on two things"),
        (32, "its shape in another colour"),
        (0, "nothing like it"),
        (8, "an empty picture"),
    ],
)
def test_it_is_said_in_what_a_picture_is_like_the_needle(seconds, like):
    assert likeness(FILM, NEEDLE, seconds) == like


def test_a_digit_of_the_needles_colour_is_told_from_another_shape():
    white = replace(NEEDLE, thing=replace(RED, colour="white"))
    assert likeness(FILM, white, 31) == "its colour on a digit"
    both = replace(FILM.scenes[3], things=(thing("white star", (24, 32)),))
    film = replace(FILM, scenes=(*FILM.scenes[:3], both, FILM.scenes[4]))
    assert likeness(film, white, 31) == "its colour on another shape"
