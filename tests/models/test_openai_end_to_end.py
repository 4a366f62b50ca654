"""A real film, the demo model's memory of it, and a chat server that answers from pictures."""

import base64
import io
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import streamvlm
from streamvlm.cli import app
from streamvlm.errors import ModelError
from streamvlm.video.sources import Sampling, open_source
from tests.models.chat_server import ChatServer, says

QUESTION = "When does the red square appear?"


@pytest.fixture(scope="module")
def server():
    with ChatServer() as running:
        running.will(says("At", " 00:11", "."))
        yield running


@pytest.fixture(scope="module")
def memory_folder(tmp_path_factory, shapes_film) -> Path:
    folder = tmp_path_factory.mktemp("asked") / "memory"
    with streamvlm.load(memory=folder, overrides=["memory.sync=process"]) as vlm:
        vlm.ingest(shapes_film)
    return folder


def settings(server, **more) -> list[str]:
    options = {"name": "openai", "url": server.url, "model": "seer", **more}
    return [f"answerer.{name}={value}" for name, value in options.items()]


def seconds_of(caption: str) -> int:
    minutes, seconds = re.fullmatch(r"Picture \d+ at (\d+):(\d+):", caption).groups()
    return 60 * int(minutes) + int(seconds)


def test_what_was_found_is_shown_to_the_server_and_its_words_are_the_answer(
    server, memory_folder, shapes_film
):
    heard = []
    overrides = [*settings(server), "answer.max_records=2", "answer.max_tokens=4096"]
    with streamvlm.load(memory=memory_folder, overrides=overrides) as vlm:
        answer = vlm.ask(QUESTION, on_word=lambda word: heard.append(word.text))
        assert "model" not in vars(vlm.stages)  # the encoder's weights are not needed to ask
    assert answer.text == "At 00:11."
    assert heard == ["At", " 00:11", "."]
    assert math.isnan(answer.confidence)
    assert answer.usage.tokens_read == 0
    assert answer.usage.milliseconds["look"] > 0
    parts = server.got[-1].parts
    assert parts[-1]["text"] == QUESTION
    expected = {s for found in answer.evidence for s in found.record.frame_seconds.tolist()}
    captions = [seconds_of(part["text"]) for part in parts[:-1:2]]
    assert captions == sorted(captions)
    assert set(captions) == {int(s) for s in expected}
    frames = {int(f.seconds): f.image for f in open_source(str(shapes_film), Sampling())}
    for seconds, part in zip(captions, parts[1:-1:2], strict=True):
        data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
        picture = np.asarray(Image.open(io.BytesIO(data)), np.float32)
        apart = {s: float(np.abs(picture - image).mean()) for s, image in frames.items()}
        assert apart[seconds] <= min(apart.values()) + 0.5
        assert apart[seconds] < max(apart.values()) / 2  # the wrong picture would be noticed


def test_stored_tokens_arrive_as_they_lie_in_the_memory(server, memory_folder):
    overrides = settings(server, send="tokens", dtype="float32")
    with streamvlm.load(memory=memory_folder, overrides=overrides) as vlm:
        answer = vlm.ask(QUESTION)
    parts = server.got[-1].parts[1:-1:2]
    sent = [
        torch.load(io.BytesIO(base64.b64decode(part["image_embeds"])), weights_only=True)
        for part in parts
    ]
    stored = [found.record.tokens.features for found in answer.evidence]
    assert torch.equal(torch.cat(sent), torch.cat(stored))
    assert answer.usage.tokens_read == sum(map(len, sent)) > 0


def test_the_command_line_asks_the_server(server, memory_folder, tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text(
        f"answerer: {{name: openai, url: '{server.url}', model: other}}\n"
        "answer: {max_records: 1, max_tokens: 4096}\n"
    )
    sets = ["--set", "answerer.model=seer", "--set", "answerer.max_images=1"]
    command = ["ask", "-m", str(memory_folder), QUESTION, "--config", str(config), *sets]
    ran = CliRunner().invoke(app, [*command, "--json"])
    assert ran.exit_code == 0, ran.output
    (line,) = [json.loads(text) for text in ran.stdout.splitlines()]
    assert line["text"] == "At 00:11."
    assert line["confidence"] is None
    assert server.got[-1].body["model"] == "seer"
    assert len(server.got[-1].parts) == 2 * 1 + 1  # of the two pictures of the moment
    spoken = CliRunner().invoke(app, command)
    assert "At 00:11." in spoken.stdout
    assert "the server does not say" in spoken.stdout
    assert "demo model" not in spoken.output  # it is not the demo model that answers


def test_an_error_of_the_server_is_one_sentence_on_the_command_line(server, memory_folder):
    sets = [f"--set={each}" for each in settings(server, key_env="NOT_SET_ANYWHERE")]
    ran = CliRunner().invoke(app, ["ask", "-m", str(memory_folder), QUESTION, *sets])
    assert ran.exit_code == 1
    assert "NOT_SET_ANYWHERE" in ran.output
    assert "Traceback" not in ran.output


def test_a_source_that_is_gone_is_asked_about_from_thumbnails(server, shapes_film, tmp_path):
    video = tmp_path / "video.mp4"
    video.write_bytes(shapes_film.read_bytes())
    with streamvlm.load(overrides=[*settings(server), "source.max_frames=16"]) as vlm:
        vlm.ingest(video)
        video.unlink()
        answer = vlm.ask(QUESTION)
    assert answer.text == "At 00:11."
    (part,) = server.got[-1].parts[1:-1:2]
    data = base64.b64decode(part["image_url"]["url"].partition(",")[2])
    assert data == answer.evidence[0].record.thumbnail


def test_a_server_that_cannot_be_asked_is_known_before_anything_is_watched(server):
    with pytest.raises(ModelError, match="NOT_SET_ANYWHERE"):
        streamvlm.load(overrides=settings(server, key_env="NOT_SET_ANYWHERE"))
