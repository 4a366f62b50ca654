"""InternVL's own facts; what it shares with all families is in `test_families.py`."""

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers.models.internvl.processing_internvl import InternVLProcessor

from streamvlm.errors import ModelError
from streamvlm.models.internvl import InternVL
from streamvlm.types import Query
from tests.models.bytewise import read_prompt, write_tokenizer
from tests.models.tiny import FAMILIES, INTERNVL_SPECIAL

TINY = next(tiny for tiny in FAMILIES if tiny.plugin == "internvl")
QUESTION = Query("What colour is the star?")
RUN = "<img>" + "<IMG_CONTEXT>" * 9 + "</img>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = TINY.save(tmp_path_factory.mktemp("weights") / "tiny")
    write_tokenizer(path, INTERNVL_SPECIAL)
    return path


@pytest.fixture
def load(folder):
    return lambda **options: InternVL(weights=str(folder), **options)


def seen(model, clip, evidence, *frames, stream="/v/a.mp4"):
    """Evidence of one frame for each second given."""
    video = clip(len(frames), stream=stream)
    later = [replace(f, seconds=s) for f, s in zip(video.frames, frames, strict=True)]
    video = replace(video, frames=tuple(later), start=frames[0], end=frames[-1] + 1)
    return evidence(model.encode(video), video)


def test_without_times_the_prompt_is_that_of_the_stock_processor(load, clip, evidence):
    model = load(timestamps=False)
    tokenizer = model._voice.tokenizer
    stock = SimpleNamespace(
        start_image_token="<img>",
        end_image_token="</img>",
        image_token="<IMG_CONTEXT>",
        image_seq_length=9,
    )
    three = {"pixel_values_videos": [torch.zeros(3, 3, 24, 24)]}
    video = InternVLProcessor.replace_video_token(stock, three, 0)
    content = [{"type": "video"}, {"type": "text", "text": QUESTION.text}]
    turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    expected = tokenizer(turn.replace("<video>", video), return_tensors="pt")["input_ids"]
    items = [seen(model, clip, evidence, 0, 1, 2)]
    assert torch.equal(model.prompt(QUESTION, items)["input_ids"], expected)


def test_with_times_each_frame_has_its_number_and_its_time(load, clip, evidence):
    model = load()
    prompt = read_prompt(model, QUESTION, [seen(model, clip, evidence, 7, 65, 3605)])
    lines = f"Frame1 at 00:07: {RUN}\nFrame2 at 01:05: {RUN}\nFrame3 at 01:00:05: {RUN}\n"
    assert f"user {lines}What colour" in prompt


def test_each_stream_has_its_name_and_frames_numbered_from_one(load, clip, evidence):
    model = load()
    items = [
        seen(model, clip, evidence, 0, 1),
        seen(model, clip, evidence, 4, stream="/v/<img>.mp4"),
    ]
    assert (
        f"user <img>.mp4\nFrame1 at 00:04: {RUN}\n"
        f"a.mp4\nFrame1 at 00:00: {RUN}\nFrame2 at 00:01: {RUN}\nWhat colour"
    ) in read_prompt(model, QUESTION, items)
    # The name of a special token in the name of a file stays a name.
    ids = model.prompt(QUESTION, items)["input_ids"]
    assert (ids == model._voice.tokenizer.convert_tokens_to_ids("<img>")).sum() == 3


def test_a_frame_of_which_nothing_was_kept_leaves_no_line(load, clip, evidence):
    model = load()
    item = seen(model, clip, evidence, 0, 1, 2)
    tokens = item.record.tokens
    kept = tokens.select(tokens.position[:, 0] != 1)
    prompt = read_prompt(model, QUESTION, [replace(item, record=replace(item.record, tokens=kept))])
    assert f"Frame1 at 00:00: {RUN}\nFrame2 at 00:02: {RUN}\nWhat" in prompt


@pytest.mark.parametrize("is_mean", [True, False])
def test_the_frame_vector_is_the_summary_that_the_configuration_names(load, clip, is_mean):
    model, video = load(with_cues=("frame_vector",)), clip(3)
    model.network.config.vision_config.use_mean_pooling = is_mean
    pixels, _ = next(iter(model.pixels([frame.image for frame in video.frames])))
    states = model.network.model.vision_tower(pixels)[0][:3]
    expected = states[:, 1:].mean(1) if is_mean else states[:, 0]
    assert torch.equal(model.encode(video).frame_cues["frame_vector"], expected)


@pytest.mark.parametrize(("size", "tower"), [([20, 20], [24, 24]), ([24, 28], [24, 28])])
def test_pictures_that_the_tower_does_not_take_are_refused(load, folder, tmp_path, size, tower):
    """A tower's positions belong to one square; stock transformers would stumble later."""
    model = load()
    model.network.config.vision_config.image_size = tower
    settings = json.loads((folder / "preprocessor_config.json").read_text())
    settings["size"] = {"height": size[0], "width": size[1]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    model._how = model.preprocessing(tmp_path)
    with pytest.raises(ModelError, match=r"preprocessor makes \(2\d, 2\d\) pictures"):
        model.check(None)
