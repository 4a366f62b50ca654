"""What is special to the Qwen-VL line: sizes, steps of two frames, layouts, places, windows."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from streamvlm.errors import BadOption, ModelError
from streamvlm.plugins import Recipe
from streamvlm.types import Clip, Frame, Query
from tests.models.tiny import FAMILIES, QWEN_BUDGET, QWEN_IDS, qwen3_vl, shake

TINY = {tiny.plugin: tiny for tiny in FAMILIES}
QUESTION = Query("what ?")


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """Load a family's tiny model; each is written once."""
    folders = {}

    def make(plugin, **options):
        if plugin not in folders:
            folders[plugin] = TINY[plugin].save(tmp_path_factory.mktemp("weights") / "tiny")
        whole = {"weights": str(folders[plugin]), **QWEN_BUDGET, **options}
        return Recipe("models", plugin, whole).build()

    return make


BOTH = pytest.mark.parametrize("plugin", ["qwen2_5_vl", "qwen3_vl"])


@BOTH
def test_a_frames_tokens_do_not_depend_on_the_length_of_its_clip(load, clip, plugin):
    model, long = load(plugin), clip(frames=40)
    short = Clip(long.stream, 0, 2, long.frames[:2])
    whole, part = model.encode(long), model.encode(short)
    assert whole.grid[1:] == part.grid[1:] == (2, 4)
    torch.testing.assert_close(whole.features[:8], part.features, rtol=0, atol=1e-5)


@BOTH
def test_a_larger_budget_of_pixels_gives_more_tokens_in_another_space(load, clip, plugin):
    small, large = load(plugin), load(plugin, max_pixels=8 * 8 * 40)
    assert large.encode(clip(frames=2)).grid == (1, 4, 6)
    assert small.model != large.model


@BOTH
def test_a_budget_below_one_token_is_refused(load, plugin):
    with pytest.raises(BadOption, match=r"must rise from 64 \(one token\), found 32 and 768"):
        load(plugin, min_pixels=32)


@pytest.mark.parametrize(
    ("plugin", "seconds"), [("qwen2_5_vl", [0.0, 2.0]), ("qwen3_vl", [0.5, 2.0])]
)
def test_an_odd_last_frame_is_repeated(load, clip, plugin, seconds):
    model, odd = load(plugin), clip(frames=3)
    even = replace(odd, frames=(*odd.frames, odd.frames[2]))
    found, expected = model.encode(odd), model.encode(even)
    assert torch.equal(found.features, expected.features)
    assert found.seconds.unique().tolist() == seconds


@BOTH
def test_the_first_frame_decides_the_size_of_its_clip(load, clip, plugin):
    video = clip(frames=2)
    turned = replace(
        video.frames[1], image=np.ascontiguousarray(video.frames[1].image.swapaxes(0, 1))
    )
    assert load(plugin).encode(replace(video, frames=(video.frames[0], turned))).grid == (1, 2, 4)
    assert load(plugin).encode(replace(video, frames=(turned, video.frames[0]))).grid == (1, 4, 2)


def items_of(model, clips, evidence):
    return [evidence(model.encode(one), one) for one in clips]


def written(model, items):
    """The prompt's ids, and those of a text in which `8*` stands for eight slots."""
    ids = model.prompt(QUESTION, items)["input_ids"][0].tolist()
    return ids, lambda text: model._voice.tokenizer.encode(
        f"<|im_start|>user {text.replace('8*', '<|video_pad|>' * 8)}\nwhat ?"
        "<|im_end|><|im_start|>assistant\n"
    )


def test_qwen3_writes_each_steps_time_and_marks_the_whole_as_stock_does(load, clip, evidence):
    model = load("qwen3_vl")
    ids, encode = written(model, items_of(model, [clip(frames=4)], evidence))
    step = "<|vision_start|>8*<|vision_end|>"
    inner = f"<0.5 seconds>{step}<2.5 seconds>{step}"
    assert ids == encode(f"<|vision_start|>{inner}<|vision_end|>")


def test_qwen3_without_the_outer_pair_or_times(load, clip, evidence):
    model = load("qwen3_vl", outer_pair=False, timestamps=False)
    ids, encode = written(model, items_of(model, [clip(frames=4)], evidence))
    assert ids == encode("<|vision_start|>8*<|vision_end|>" * 2)


def test_qwen3_marks_each_stream_as_a_video_of_its_own(load, clip, evidence):
    model = load("qwen3_vl")
    clips = [clip(2), clip(2, start=4.0), clip(2, stream="/videos/b.mp4")]
    ids, encode = written(model, items_of(model, clips, evidence))
    first = "<0.5 seconds><|vision_start|>8*<|vision_end|>"
    later = first.replace("0.5", "4.5")
    assert ids == encode(
        f"a.mp4\n<|vision_start|>{first}{later}<|vision_end|>"
        f"\nb.mp4\n<|vision_start|>{first}<|vision_end|>"
    )


def test_qwen2_5_makes_one_video_of_clips_without_a_gap(load, clip, evidence):
    model = load("qwen2_5_vl")
    clips = [clip(2), clip(2, start=2.0), clip(2, start=7.0)]
    items = items_of(model, clips, evidence)
    ids, encode = written(model, items)
    assert ids == encode(
        "00:00<|vision_start|>8*8*<|vision_end|>00:07<|vision_start|>8*<|vision_end|>"
    )
    places = model.prompt(QUESTION, items)["position_ids"][1:, 0, torch.tensor(ids) == 5]
    start = places[0, 0]
    assert (places[0, ::8] - start).tolist()[:2] == [0, 4]
    assert places[:, 16].unique().numel() == 1  # the second video begins anew on all axes


def test_qwen2_5_names_streams_and_without_times_writes_what_stock_writes(load, clip, evidence):
    model = load("qwen2_5_vl")
    clips = [clip(2), clip(2, stream="/videos/b.mp4")]
    ids, encode = written(model, items_of(model, clips, evidence))
    video = "<|vision_start|>8*<|vision_end|>"
    assert ids == encode(f"a.mp4\n00:00{video}\nb.mp4\n00:00{video}")
    model = load("qwen2_5_vl", timestamps=False)
    ids, encode = written(model, items_of(model, clips[:1], evidence))
    assert ids == encode(video)


@pytest.mark.parametrize(("plugin", "more"), [("qwen2_5_vl", [2.0]), ("qwen3_vl", None)])
def test_places_are_those_of_transformers(load, clip, evidence, plugin, more):
    options = {"text_after": "hf", "timestamps": False} if more else {}
    model = load(plugin, **options)
    inputs = model.prompt(QUESTION, items_of(model, [clip(frames=20)], evidence))
    ids = inputs["input_ids"]
    expected, _ = model.network.model.get_rope_index(
        ids,
        mm_token_type_ids=(ids == QWEN_IDS["video_token_id"]).int() * 2,
        video_grid_thw=torch.tensor([[10, 4, 8]]),
        **({"second_per_grid_ts": torch.tensor(more)} if more else {}),
    )
    assert torch.equal(inputs["position_ids"][1:], expected)
    assert inputs["position_ids"][0].tolist() == [list(range(ids.shape[1]))]


def test_qwen2_5_text_goes_behind_the_last_place_unless_asked_otherwise(load, clip, evidence):
    ends = {}
    for text_after in ("max", "hf"):
        model = load("qwen2_5_vl", text_after=text_after)
        inputs = model.prompt(QUESTION, items_of(model, [clip(frames=20)], evidence))
        behind = inputs["position_ids"][1:, 0, -5]
        ends[text_after] = int(behind[0] - inputs["position_ids"][1:].max())
    assert ends["max"] > -6 > ends["hf"]


def test_the_deeper_features_of_qwen3_are_kept_and_are_read(load, clip, evidence):
    model, video = load("qwen3_vl"), clip(frames=2)
    tokens = model.encode(video)
    assert tokens.deepstack.shape == (8, 2, 24)
    flat = replace(tokens, deepstack=torch.zeros_like(tokens.deepstack))
    with torch.no_grad():
        logits = [
            model.network(**model.prompt(QUESTION, [evidence(one, video)])).logits
            for one in (tokens, flat)
        ]
    assert (logits[0] - logits[1]).abs().max() > 0.1


@BOTH
def test_a_cue_stands_at_the_token_whose_patches_it_was_read_from(load, plugin):
    """With nothing mixed before the watched layer, a poked cell changes its own keys alone."""
    model = load(plugin, with_cues=("keys",), min_pixels=1536, max_pixels=1536)
    model.network.model.visual.blocks[0].attn.proj.weight.zero_()
    model.network.model.visual.blocks[0].attn.proj.bias.zero_()
    plain = np.full((32, 48, 3), 90, np.uint8)

    def keys(picture):
        clip = Clip("s", 0, 2, tuple(Frame("s", i, i, picture) for i in range(2)))
        return model.encode(clip).cues["keys"]

    still = keys(plain)
    assert len(still) == 24
    for cell in (0, 1, 5, 8, 11, 16, 23):
        poked = plain.copy()
        row, column = 8 * (cell // 6), 8 * (cell % 6)
        poked[row : row + 8, column : column + 8] = 200
        differs = (keys(poked) - still).abs().amax(1) > 1e-4
        assert differs.nonzero()[:, 0].tolist() == [cell]


def test_a_tower_that_takes_one_frame_a_step_is_refused(tmp_path):
    def single():
        config = qwen3_vl().config
        config.vision_config.temporal_patch_size = 1
        from transformers import Qwen3VLForConditionalGeneration

        return shake(Qwen3VLForConditionalGeneration(config))

    folder = replace(TINY["qwen3_vl"], network=single).save(tmp_path / "single")
    with pytest.raises(ModelError, match=r"takes 1 frames a step, needed are 2; choose other"):
        Recipe("models", "qwen3_vl", {"weights": str(folder), **QWEN_BUDGET}).build()


def test_weights_have_to_be_named():
    with pytest.raises(BadOption, match="needs the option 'weights'"):
        Recipe("models", "qwen3_vl", {})
