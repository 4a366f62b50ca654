import json
import subprocess
import sys

import pytest

from streamvlm.bench.exam import examinee, papers
from streamvlm.bench.films import camera_film
from streamvlm.bench.speed import (
    ENCODED,
    FIRST_WORD,
    Figure,
    answering,
    compressors,
    conditions,
    decoding,
    table,
)
from streamvlm.config import load
from streamvlm.plugins import names


@pytest.fixture(scope="module")
def model():
    return examinee(load())


def test_the_conditions_name_the_model_that_is_measured(model):
    assert conditions(load()).model == model.model


def test_seeing_and_speaking_are_timed_on_tokens_not_read_before(model):
    clips = [paper.clip for paper in papers(1, 3, split="seeds", frames=1)]
    encoded, first_word = answering(model, clips)
    assert (encoded.name, first_word.name) == (ENCODED, FIRST_WORD)
    assert encoded.value > 0
    assert first_word.value > 0
    assert "median of 2" in first_word.how
    assert "36 tokens" in first_word.how


def test_of_a_single_clip_no_speed_is_known(model):
    assert list(answering(model, [])) == []


def test_figures_make_a_table():
    figures = [Figure("decode", 1.5, "CPU s", "30 frames"), Figure("ffmpeg", None, "×")]
    made = table(figures)
    assert made.rows == (("decode", 1.5, "CPU s", "30 frames"), ("ffmpeg", None, "×", ""))


def test_every_compressor_is_measured():
    figures = list(compressors(steps=2, side=4, width=8))
    assert [figure.name for figure in figures] == [f"compress, {n}" for n in names("compressors")]
    assert all(figure.value > 0 for figure in figures)


def test_decoding_is_compared_with_ffmpeg_where_there_is_one(tmp_path):
    film = camera_film(tmp_path / "film.mp4", seconds=3, width=320, height=180)
    spent, ratio = decoding(film)
    assert spent.value > 0
    assert "not installed" in ratio.how if ratio.value is None else ratio.value > 0


@pytest.mark.slow
def test_the_whole_benchmark_prints_its_conditions_first():
    command = [sys.executable, "-m", "streamvlm", "bench", "speed", "--seconds", "16", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    first, *figures = (json.loads(line) for line in ran.stdout.splitlines())
    assert "commit" in first["conditions"]
    found = {figure["name"]: figure for figure in figures}
    assert "0 frames decoded" in found["second question, to the first word"]["how"]
    assert found[ENCODED]["value"] > 0
    shares = [f["value"] for name, f in found.items() if name.startswith("ingest, share of")]
    assert sum(shares) == pytest.approx(100)
