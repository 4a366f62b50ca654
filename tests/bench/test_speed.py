import json
import subprocess
import sys

import pytest

from streamvlm.bench.films import camera_film
from streamvlm.bench.speed import compressors, conditions, decoding
from streamvlm.plugins import names


def test_the_conditions_say_what_the_figures_depend_on():
    assert {"commit", "machine", "load", "versions"} <= conditions().keys()
    assert "torch" in conditions()["versions"]


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
    command = [sys.executable, "-m", "streamvlm", "bench", "--seconds", "10", "--json"]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    first, *figures = (json.loads(line) for line in ran.stdout.splitlines())
    assert "commit" in first["conditions"]
    found = {figure["name"]: figure for figure in figures}
    assert "0 frames decoded" in found["second question, to the first word"]["how"]
    shares = [f["value"] for name, f in found.items() if name.startswith("ingest, share of")]
    assert sum(shares) == pytest.approx(100)
