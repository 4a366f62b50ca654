"""The pictures of the evidence, from the sources that were ingested."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import streamvlm
from streamvlm.illustrate import illustrate
from streamvlm.memory.store import Memory
from streamvlm.models.openai import OpenAIChat
from streamvlm.stopwatch import Stopwatch
from streamvlm.video.sources import Sampling, open_source


@pytest.fixture(scope="module")
def video(tmp_path_factory, shapes_film) -> Path:
    return Path(shutil.copy(shapes_film, tmp_path_factory.mktemp("illustrate") / "film.mp4"))


@pytest.fixture(scope="module")
def memory(tmp_path_factory, video):
    folder = tmp_path_factory.mktemp("illustrated") / "memory"
    with streamvlm.load(
        memory=folder, overrides=["memory.sync=process", "source.max_side=200"]
    ) as vlm:
        vlm.ingest(video)
    with Memory.open(folder, writable=False) as opened:
        yield opened


@pytest.fixture(scope="module")
def evidence(memory):
    records = memory.load(memory.ids())
    return [streamvlm.types.Evidence(r, 1.0 - place / 10) for place, r in enumerate(records)]


@pytest.fixture
def show(memory):
    def make(evidence, watch=None, **options):
        answerer = OpenAIChat("http://localhost:1/v1", "seer", **options)
        return illustrate(evidence, answerer, memory, watch or Stopwatch(), allow_local=False)

    return make


def times(shown):
    return [sorted(item.pictures) for item in shown]


def test_an_answerer_that_reads_tokens_gets_the_evidence_as_it_is(evidence, show):
    watch = Stopwatch()
    assert show(evidence, watch, send="tokens") == tuple(evidence)
    assert not watch.milliseconds


def test_the_frames_of_which_tokens_were_kept_are_shown_in_full_size(evidence, show, video):
    frames = {f.seconds: f.image for f in open_source(str(video), Sampling(max_side=512))}
    shown = show(evidence, max_images=1000)
    assert times(shown) == [item.record.frame_seconds.tolist() for item in evidence]
    pictures = {s: image for item in shown for s, image in item.pictures.items()}
    assert len(pictures) >= 5
    assert all(np.array_equal(image, frames[s]) for s, image in pictures.items())


def test_a_step_without_tokens_is_not_shown(evidence, show):
    record = max((item.record for item in evidence), key=lambda each: len(each.frame_seconds))
    late = record.tokens.select(record.tokens.seconds >= record.frame_seconds[1])
    (shown,) = show([replace(evidence[0], record=replace(record, tokens=late))])
    assert sorted(shown.pictures) == record.frame_seconds[1:].tolist()


def test_a_step_of_two_frames_shows_the_first(evidence, show):
    record = max((item.record for item in evidence), key=lambda each: len(each.frame_seconds))
    first, second = record.frame_seconds[:2]
    between = torch.full_like(record.tokens.seconds, (first + second) / 2)
    pairs = replace(record, tokens=replace(record.tokens, seconds=between))
    (shown,) = show([replace(evidence[0], record=pairs)])
    assert list(shown.pictures) == [first]


def test_each_record_shows_one_picture_in_turn_the_best_first(evidence, show):
    most = len(evidence) + 1
    shown = show(evidence, max_images=most)
    assert sum(map(len, times(shown))) == most
    assert all(len(pictures) >= 1 for pictures in times(shown))
    (best,) = show(evidence, max_images=1)
    assert best.record.id == evidence[0].record.id
    assert len(best.pictures) == 1


@pytest.mark.parametrize(("wanted", "got"), [(64, 200), (300, 300), (900, 384)])
def test_pictures_are_at_least_as_large_as_sampled_and_at_most_as_stored(
    evidence, show, wanted, got
):
    (shown,) = show(evidence[:1], max_side=wanted, max_images=1)
    (image,) = shown.pictures.values()
    assert image.shape == (got, got, 3)


@pytest.mark.parametrize(("change", "reason"), [("move", "no such file"), ("edit", "was replaced")])
def test_without_its_source_a_record_has_no_pictures_and_a_warning_says_why(
    evidence, show, video, tmp_path, caplog, change, reason
):
    kept = shutil.move(video, tmp_path / "kept.mp4")
    if change == "edit":
        video.write_bytes(Path(kept).read_bytes() + b"\0")
    try:
        with caplog.at_level(logging.WARNING):
            shown = show(evidence)
    finally:
        shutil.move(kept, video)
    assert times(shown) == [[]] * len(shown)
    assert len(shown) == len(evidence)
    assert "only thumbnails are shown" in caplog.text
    assert reason in caplog.text
