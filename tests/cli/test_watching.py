"""Searching by words, pictures and moments, as a user types it."""

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

import streamvlm
from streamvlm.cli import app, show
from streamvlm.types import Usage
from streamvlm.video.sources import Sampling, open_source


@pytest.fixture(scope="module")
def place(tmp_path_factory, shapes_film) -> Path:
    """A folder with a memory of the film and a picture out of it."""
    folder = tmp_path_factory.mktemp("watching")
    with streamvlm.load(memory=folder / "lobby", overrides=["memory.sync=process"]) as vlm:
        vlm.ingest(shapes_film)
    frames = open_source(str(shapes_film), Sampling())
    star = next(frame.image for frame in frames if frame.seconds >= 25)
    Image.fromarray(star).save(folder / "star.png")
    (folder / "text.txt").write_text("this is not a picture")
    return folder


@pytest.fixture
def run(place, monkeypatch):
    monkeypatch.chdir(place)
    runner = CliRunner()
    return lambda *words: runner.invoke(app, list(words))


def lines(ran):
    assert ran.exit_code == 0, ran.stderr
    return [json.loads(line) for line in ran.stdout.splitlines()]


def test_a_search_prints_stretches_of_time_the_best_first(run):
    found = lines(run("search", "-m", "lobby", "a red square", "--json"))
    assert (found[0]["start"], found[0]["end"]) == (8.0, 16.0)
    assert found[0]["records"] == [found[0]["best"]["id"]]
    assert Path(found[0]["thumbnail"]).stem == found[0]["best"]["id"]
    scores = [each["score"] for each in found]
    assert scores == sorted(scores, reverse=True)
    ran = run("search", "-m", "lobby", "a red square", "--most", "2")
    assert ran.stdout.splitlines()[0] == "a red square"
    assert len(ran.stdout.splitlines()) == 3
    assert re.match(r"  shapes.mp4  00:08–00:16  score 0\.\d{3}  thumb", ran.stdout.splitlines()[1])


def test_a_search_can_be_for_a_picture(run):
    first, *_ = lines(run("search", "-m", "lobby", "--like", "star.png", "--json"))
    assert (first["query"], first["start"]) == ("", 24.0)
    ran = run("search", "-m", "lobby", "--like", "star.png")
    assert ran.stdout.splitlines()[0] == "like star.png"


def test_a_search_can_be_for_words_and_a_picture_and_a_moment(run):
    words = ("a yellow star", "--like", "star.png", "--like", "shapes.mp4@00:02")
    ran = run("search", "-m", "lobby", *words)
    heading, first, *_ = ran.stdout.splitlines()
    assert heading == "a yellow star like star.png like shapes.mp4@00:02"
    assert "00:24–" in first
    found = lines(run("search", "-m", "lobby", *words, "--json"))
    assert 0.0 not in [each["start"] for each in found]


def test_an_answer_can_be_about_what_looks_like_a_picture(run):
    asked = "What shape is the yellow thing?"
    (answer,) = lines(run("ask", "-m", "lobby", asked, "--like", "star.png", "--json"))
    assert answer["text"] == "star"
    assert answer["query"]["like"] == ["star.png"]


def test_around_a_moment_everything_is_shown(run):
    found = lines(run("around", "shapes.mp4@00:20", "-m", "lobby", "--seconds", "5", "--json"))
    assert [each["start"] for each in found] == [8.0, 16.0, 24.0]
    assert all(Path(each["thumbnail"]).exists() for each in found)
    ran = run("around", "shapes.mp4@00:20", "-m", "lobby", "--seconds", "1")
    assert re.match(r"shapes.mp4  00:16–00:24  score 1\.000  thumb", ran.stdout)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["search", "-m", "lobby"], 2, "no question"),
        (["search", "--like", "star.png"], 2, "no video"),
        (["search", "-m", "lobby", "--like", "absent.png"], 1, "no such picture"),
        (["search", "-m", "lobby", "--like", "text.txt"], 1, "it is no picture"),
        (["search", "-m", "lobby", "--like", "shapes.mp4@09:00"], 1, "was seen at 540 s"),
        (["search", "-m", "lobby", "--like", "other.mp4@00:01"], 1, "is not in the memory"),
        (["around", "shapes.mp4", "-m", "lobby"], 2, "is no moment"),
        (["around", "shapes.mp4@00:01", "-m", "lobby", "--seconds", "0"], 2, "at most 3600"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(run, words, code, message):
    ran = run(*words)
    assert ran.exit_code == code
    assert message in " ".join(ran.stderr.replace("│", " ").split())


def test_the_cost_of_a_second_look_is_shown(run):
    asked = ("ask", "-m", "lobby", "Is there a red square?")
    (answer,) = lines(run(*asked, "--set", "rerank.look_at=3", "--json"))
    assert answer["usage"]["looked_at"]["records"] == 3
    assert "rerank" in answer["usage"]["milliseconds"]
    usage = Usage(tokens_read=72, looked_at={"records": 3, "tokens": 180})
    assert "looked at 3 records, 180 tokens" in show.usage_line(usage)
    assert "looked" not in show.usage_line(Usage())


def test_a_search_that_finds_nothing_says_why(run):
    ran = run(
        "search", "-m", "lobby", "--like", "shapes.mp4@00:14", "--since", "10", "--until", "14"
    )
    assert ran.exit_code == 0
    assert "the moment itself and its neighbours are left out" in ran.stderr
    ran = run("search", "-m", "lobby", "a red square", "--since", "900")
    assert "Nothing in the memory lies within those limits." in ran.stderr
    assert "neighbours are left out" in " ".join(
        run("search", "--help").stdout.replace("│", " ").split()
    )
