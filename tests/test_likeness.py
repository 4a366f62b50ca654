"""What a query looks for: its words, pictures, and moments of the memory."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import streamvlm
from streamvlm.errors import BadOption, MemoryStoreError, SourceError
from streamvlm.likeness import at_moment, match_stream, nothing_found, parse_moment, picture
from streamvlm.memory.forget import forget
from streamvlm.memory.store import Memory
from streamvlm.types import Query, Span
from streamvlm.video.sources import Sampling, open_source


@pytest.fixture(scope="module")
def memory_folder(tmp_path_factory, shapes_film) -> Path:
    folder = tmp_path_factory.mktemp("likeness") / "memory"
    with streamvlm.load(memory=folder, overrides=["memory.sync=process"]) as vlm:
        vlm.ingest(shapes_film)
    return folder


@pytest.fixture
def vlm(memory_folder):
    with streamvlm.load(memory=memory_folder) as vlm:
        yield vlm


@pytest.fixture(scope="module")
def star(shapes_film) -> np.ndarray:
    """A picture of the yellow star, as it is seen from 00:24 on."""
    frames = open_source(str(shapes_film), Sampling())
    return next(frame.image for frame in frames if frame.seconds >= 25)


def starts(sightings) -> list[float]:
    return [each.start for each in sightings]


def test_a_picture_finds_the_moment_that_looks_like_it(vlm, star, tmp_path):
    Image.fromarray(star).save(tmp_path / "star.png")
    for like in (star, tmp_path / "star.png", str(tmp_path / "star.png")):
        found = vlm.sightings(vlm.query(like=[like]))
        assert found[0].start == 24.0
        assert found[0].score > 0.9
        best = max(vlm.search(vlm.query(like=[like], max_records=8)), key=lambda each: each.score)
        assert best.record.start == 24.0


def test_words_and_pictures_are_sought_together(vlm, star):
    def scores(text="", **how):
        found = vlm.search(vlm.query(text, max_records=8, **how))
        return {each.record.start: each.score for each in found}

    words, looks, both = (
        scores("a red square"),
        scores(like=[star]),
        scores("a red square", like=[star]),
    )
    assert len(both) == 5
    for start, score in both.items():
        assert score == pytest.approx((words[start] + looks[start]) / 2, abs=0.01)


def test_a_question_with_a_picture_is_answered_in_words(vlm, star):
    answer = vlm.ask(vlm.query("What shape is the yellow thing?", like=[star]))
    assert answer.text == "star"
    assert [each.record.start for each in answer.evidence] == [24.0]


def test_a_picture_alone_can_be_searched_for_but_not_answered(vlm, star):
    with pytest.raises(BadOption, match="asked in words"):
        vlm.ask(vlm.query(like=[star]))
    with pytest.raises(BadOption, match="empty"):
        vlm.query(" ")


def test_moments_like_one_are_elsewhere(vlm, shapes_film):
    """The scene with the red square looks like the last one, which has the same background."""
    found = vlm.sightings(vlm.query(like=[f"{shapes_film.name}@00:14"], max_records=8))
    assert found
    assert all(each.end < 8.0 or each.start > 16.0 for each in found)
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert all(
        each.record.start != 8.0
        for each in vlm.search(vlm.query(like=[f"{shapes_film.name}@00:14"], max_records=8))
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.jpg", "no such picture"),
        ("text.jpg", "no picture"),
        (".", "cannot be read"),
        ("other.mp4@00:10", "is not in the memory"),
        ("shapes.mp4@10:00", "nothing of .* was seen at 600 s .it is 40 s long."),
    ],
)
def test_what_cannot_be_looked_at_is_said_in_one_sentence(
    vlm, tmp_path, monkeypatch, name, message
):
    monkeypatch.chdir(tmp_path)
    Path("text.jpg").write_text("this is not a picture")
    with pytest.raises((SourceError, MemoryStoreError), match=message) as caught:
        vlm.sightings(vlm.query(like=[name]))
    assert "\n" not in str(caught.value)


def test_a_picture_is_upright_rgb(tmp_path):
    grey = Image.fromarray(np.arange(6, dtype=np.uint8).reshape(2, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # a camera held upright
    grey.save(tmp_path / "a.jpg", exif=exif)
    assert picture(tmp_path / "a.jpg").shape == (3, 2, 3)
    Image.fromarray(np.zeros((2, 3, 4), np.uint8)).save(tmp_path / "b.png")
    assert picture(tmp_path / "b.png").shape == (2, 3, 3)


@pytest.mark.parametrize("pixels", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((0, 4, 3))])
def test_pixels_of_another_shape_or_type_are_refused(pixels):
    with pytest.raises(BadOption, match=r"\(H, W, 3\) uint8"):
        picture(pixels)


def test_a_moment_is_a_stream_and_a_time():
    assert parse_moment("/videos/a.mp4@1:02:03") == ("/videos/a.mp4", 3723.0)
    assert parse_moment("rtsp://user@host/door@00:40") == ("rtsp://user@host/door", 40.0)
    assert parse_moment("a.mp4@90.5") == ("a.mp4", 90.5)
    for other in ("a.mp4", "@00:40", "a.mp4@", "me@home.jpg", "a.mp4@1:2:3:4", "a.mp4@later"):
        assert parse_moment(other) is None


def test_a_file_wins_over_a_moment_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("a@40").touch()
    assert parse_moment("a@40") is None


def test_the_record_of_a_moment_is_the_one_that_shows_it(memory_folder):
    with Memory.open(memory_folder, writable=False) as memory:
        stream = memory.streams()[0].stream
        shown = {second: at_moment(memory, stream, second).start for second in (0, 7.9, 8, 31)}
        assert shown == {0: 0.0, 7.9: 0.0, 8: 8.0, 31: 24.0}
        assert at_moment(memory, stream, 39.5).start == 32.0  # still
        for outside in (-1.0, 40.0, 1e9):
            with pytest.raises(MemoryStoreError, match="nothing of"):
                at_moment(memory, stream, outside)


def test_around_a_moment_everything_is_shown_in_time_order(vlm, shapes_film):
    found = vlm.around(shapes_film.name, 20.0, 5.0)
    assert [each.record.start for each in found] == [8.0, 16.0, 24.0]
    scores = [each.score for each in found]
    assert max(scores) == scores[1] == pytest.approx(1.0, abs=1e-3)
    assert [each.record.start for each in vlm.around(shapes_film.name, 20.0, 1.0)] == [16.0]
    assert len(vlm.around(shapes_film.name, 20.0)) == 5


def test_around_a_moment_needs_no_weights(memory_folder, shapes_film):
    with streamvlm.load(memory=memory_folder, overrides=["embedder.weights=nowhere/at-all"]) as vlm:
        assert vlm.around(shapes_film.name, 20.0)


@pytest.mark.parametrize("width", [0.0, -1.0, 3601.0, float("nan")])
def test_around_is_at_most_an_hour(vlm, shapes_film, width):
    with pytest.raises(BadOption, match="at most 3600"):
        vlm.around(shapes_film.name, 20.0, width)


def test_queries_with_pictures_can_be_compared_and_hashed(vlm, star):
    query = vlm.query("a star", like=[star])
    assert query == replace(query, text="a star")
    assert len({query, replace(query, text="a ring")}) == 2


def test_a_name_that_fits_several_streams_is_refused():
    known = ["/a/x.mp4", "/b/x.mp4", "/b/y.mp4"]
    assert match_stream("b/x.mp4", known) == "/b/x.mp4"
    with pytest.raises(MemoryStoreError, match="any of several"):
        match_stream("x.mp4", known)


def test_that_a_moment_was_forgotten_is_said(memory_folder, tmp_path, shapes_film):
    folder = shutil.copytree(memory_folder, tmp_path / "memory")
    forget(folder, before=16.0)
    with streamvlm.load(memory=folder) as vlm:
        with pytest.raises(MemoryStoreError, match=r"at 3 s was forgotten, as was all before 16 s"):
            vlm.around(shapes_film.name, 3.0)
        assert vlm.around(shapes_film.name, 17.0, 1.0)
        (coverage,) = vlm.coverage()
        (again,) = vlm.ingest(shapes_film)
    assert coverage.spans[0] == Span(0.0, 16.0, "gap", "forgotten")
    assert coverage.share("gap") == pytest.approx(16.0 / 40.0)
    assert again.coverage == coverage


def test_a_stream_that_is_read_can_be_looked_at_although_its_beginning_was_forgotten(
    memory_folder, tmp_path
):
    folder = shutil.copytree(memory_folder, tmp_path / "memory")
    with Memory.open(folder, sync="process") as memory:
        (info,) = memory.streams()
        none = replace(info.coverage, spans=())
        memory.put_stream(replace(info, seconds=0.0, coverage=none, complete=False))
        memory.forget(info.stream, before=16.0)
        assert at_moment(memory, info.stream, 26.0).start == 24.0
        with pytest.raises(MemoryStoreError, match="was forgotten"):
            at_moment(memory, info.stream, 3.0)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({}, "Nothing was found."),
        ({"streams": ("a.mp4",)}, "Nothing was found of those streams."),
        ({"since": 5.0}, "Nothing in the memory lies within those limits."),
        ({"like": ("a.mp4@00:14",)}, "Nothing else was found: the moment itself and its"),
        ({"like": ("a.mp4@00:14",), "until": 5.0}, "Nothing else was found within those limits: "),
        ({"like": ("a.jpg",), "until": 5.0}, "Nothing in the memory lies within those limits."),
    ],
)
def test_why_nothing_was_found_is_said_as_it_is(limits, said):
    assert nothing_found(Query("a red square", **limits)).startswith(said)
