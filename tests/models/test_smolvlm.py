"""SmolVLM's own facts; what it shares with all families is in `test_families.py`."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers.models.smolvlm import processing_smolvlm
from transformers.models.smolvlm.processing_smolvlm import DEFAULT_CHAT_TEMPLATE, SmolVLMProcessor

from streamvlm.errors import ModelError
from streamvlm.models.smolvlm import SmolVLM
from streamvlm.types import Query
from tests.models.bytewise import read_prompt, write_tokenizer
from tests.models.tiny import FAMILIES, SMOLVLM_SPECIAL

TINY = next(tiny for tiny in FAMILIES if tiny.plugin == "smolvlm")
QUESTION = Query("What colour is the star?")
FAKE = "<fake_token_around_image>"
RUN = f"{FAKE}<global-img>" + "<image>" * 9 + FAKE
WITHOUT_VIDEO = DEFAULT_CHAT_TEMPLATE.replace(
    "{% elif line['type'] == 'video' %}{{ '<video>' }}", ""
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = TINY.save(tmp_path_factory.mktemp("weights") / "tiny")
    write_tokenizer(path, SMOLVLM_SPECIAL, DEFAULT_CHAT_TEMPLATE)
    return path


@pytest.fixture
def load(folder):
    return lambda **options: SmolVLM(weights=str(folder), **options)


@pytest.fixture
def changed(folder, tmp_path):
    """A copy of the checkpoint with other settings of its preprocessor."""

    def make(**settings):
        path = shutil.copytree(folder, tmp_path / "changed")
        file = path / "preprocessor_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
        return path

    return make


def seen(model, clip, evidence, *seconds, stream="/v/a.mp4"):
    """Evidence of one frame for each second given."""
    video = clip(len(seconds), stream=stream)
    later = [replace(f, seconds=s) for f, s in zip(video.frames, seconds, strict=True)]
    video = replace(video, frames=tuple(later), start=seconds[0], end=seconds[-1] + 1)
    return evidence(model.encode(video), video)


def stock_video(monkeypatch, seconds):
    """What the stock processor writes for a video; its num2words is not installed here."""
    monkeypatch.setattr(processing_smolvlm, "num2words", {1: "one", 3: "three"}.get)
    stock = SimpleNamespace(
        image_seq_len=9,
        image_token="<image>",
        fake_image_token=FAKE,
        global_image_token="<global-img>",
    )
    metadata = SimpleNamespace(fps=1, timestamps=seconds, duration=seconds[-1])
    frames = {"pixel_values": torch.zeros(1, len(seconds)), "video_metadata": [metadata]}
    return SmolVLMProcessor.replace_video_token(stock, frames, 0)


@pytest.mark.parametrize("template", [DEFAULT_CHAT_TEMPLATE, WITHOUT_VIDEO])
@pytest.mark.parametrize("seconds", [[0], [0, 1, 2], [7.5, 65, 4503]])
def test_the_prompt_is_that_of_the_stock_processor_whatever_the_checkpoints_template(
    folder, tmp_path, clip, evidence, monkeypatch, template, seconds
):
    """Stock transformers takes its own template for a video, whatever the checkpoint has."""
    path = shutil.copytree(folder, tmp_path / "copy")
    tokenizer = write_tokenizer(path, SMOLVLM_SPECIAL, template)
    model = SmolVLM(weights=str(path))
    content = [{"type": "video"}, {"type": "text", "text": QUESTION.text}]
    turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}],
        chat_template=DEFAULT_CHAT_TEMPLATE,
        tokenize=False,
        add_generation_prompt=True,
    )
    whole = turn.replace("<video>", stock_video(monkeypatch, seconds))
    expected = tokenizer(whole, return_tensors="pt")["input_ids"]
    items = [seen(model, clip, evidence, *seconds)]
    assert torch.equal(model.prompt(QUESTION, items)["input_ids"], expected)


def test_without_times_frames_follow_one_another_like_images(load, clip, evidence):
    model = load(timestamps=False)
    prompt = read_prompt(model, QUESTION, [seen(model, clip, evidence, 0, 1)])
    assert f"User: {RUN}{RUN}\n\nWhat colour" in prompt


def test_each_stream_is_a_video_of_its_own_with_its_name(load, clip, evidence):
    model = load()
    items = [
        seen(model, clip, evidence, 0, 61),
        seen(model, clip, evidence, 4, stream="/v/<image>.mp4"),
    ]
    assert (
        "User: <image>.mp4\nYou are provided the following series of one frames from a 0:00:04 "
        f"[H:MM:SS] video.\n\nFrame from 00:04:{RUN}\n\n"
        "a.mp4\nYou are provided the following series of two frames from a 0:01:01 "
        f"[H:MM:SS] video.\n\nFrame from 00:00:{RUN}\nFrame from 01:01:{RUN}\n\nWhat colour"
    ) in read_prompt(model, QUESTION, items)
    # The name of a placeholder in the name of a file is no placeholder.
    ids = model.prompt(QUESTION, items)["input_ids"]
    assert (ids == model.network.config.image_token_id).sum() == 27


def test_a_frame_of_zeros_is_seen_like_any_other(changed, clip):
    model, video = SmolVLM(weights=str(changed(image_mean=[0.4, 0.6, 0.2]))), clip(3)
    grey = np.empty_like(video.frames[1].image)
    grey[:] = (102, 153, 51)
    frames = (video.frames[0], replace(video.frames[1], image=grey), video.frames[2])
    video = replace(video, frames=frames)
    pixels, _ = next(iter(model.pixels([frame.image for frame in frames])))
    assert not pixels[1].any()

    features = model.encode(video).features.unflatten(0, (3, 9))
    stock = model.network.model.get_image_features
    dropped = stock(pixels[None, :3]).pooler_output[0].unflatten(0, (-1, 9))
    assert len(dropped) == 2
    torch.testing.assert_close(features[[0, 2]], dropped, rtol=0, atol=1e-5)
    # Where nothing else is there, stock does not drop it either.
    alone = stock(pixels[None, 1:2]).pooler_output[0]
    torch.testing.assert_close(features[1], alone, rtol=0, atol=1e-5)


def test_the_frame_vector_is_the_mean_of_the_towers_output(load, clip):
    model, video = load(with_cues=("frame_vector",)), clip(3)
    pixels, _ = next(iter(model.pixels([frame.image for frame in video.frames])))
    expected = model.network.model.vision_model(pixels)[0][:3].mean(1)
    assert torch.equal(model.encode(video).frame_cues["frame_vector"], expected)


def test_pictures_that_the_tower_does_not_take_are_refused(changed):
    path = changed(max_image_size={"longest_edge": 20})
    with pytest.raises(ModelError, match=r"makes \(20, 20\) pictures, but the tower takes 24×24"):
        SmolVLM(weights=str(path))


def test_tokens_of_another_first_resize_are_of_another_space(load, changed):
    other = SmolVLM(weights=str(changed(size={"longest_edge": 96})))
    assert other.model.split()[1] != load().model.split()[1]
