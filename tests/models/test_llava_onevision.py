"""What is special to LLaVA-OneVision; what all families must do is in `test_families.py`."""

from dataclasses import replace

import pytest
import torch
from transformers import LlavaOnevisionForConditionalGeneration

from streamvlm.errors import ModelError
from streamvlm.pixels import normalise, read_preprocessing, resize
from streamvlm.plugins import Recipe, summary
from streamvlm.protocols import Answerer, Encoder
from streamvlm.types import Clip

DENSE = 9  # tokens a frame: 5×5 patches pooled to 3×3


def stock_pixels(folder, clip):
    """(1, T, 3, S, S) float32: the whole clip at once, as stock transformers takes it."""
    how = read_preprocessing(folder, "video")
    pictures = [resize(frame.image, how.size, how.resample) for frame in clip.frames]
    return normalise(torch.stack(pictures), how)[None]


def stored_logits(network, inputs):
    with torch.no_grad():
        return network(**inputs).logits


def test_the_layout_without_timestamps_is_that_of_the_stock_processor(
    load, clip, evidence, question
):
    model, video = load(timestamps=False), clip(frames=2)
    inputs = model.prompt(question, [evidence(model.encode(video), video)])
    content = [{"type": "video"}, {"type": "text", "text": question.text}]
    tokenizer = model._voice.tokenizer
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    expected = tokenizer.encode(text.replace("<video>", "<video>" * (2 * DENSE + 1)))
    assert inputs["input_ids"][0].tolist() == expected
    assert inputs["position_ids"][0].tolist() == list(range(len(expected)))


def test_the_layout_with_timestamps_reads_time_then_tokens_then_one_newline_slot(
    load, clip, evidence, question
):
    model, video = load(), clip(frames=2, start=3661.5)
    inputs = model.prompt(question, [evidence(model.encode(video), video)])
    frame = "<video>" * DENSE
    text = (
        f"<|im_start|>user 01:01:01{frame}01:01:02{frame}<video>\n{question.text}"
        "<|im_end|><|im_start|>assistant\n"
    )
    assert inputs["input_ids"][0].tolist() == model._voice.tokenizer.encode(text)


def test_the_slot_after_the_last_step_holds_the_newline_vector(load, clip, evidence, question):
    model, video = load(), clip()
    inputs = model.prompt(question, [evidence(model.encode(video), video)])
    features = inputs["mm_encoder_outputs"]["video"].pooler_output
    assert features.shape == (1, 3 * DENSE + 1, 24)
    assert torch.equal(features[0, -1], model.network.model.image_newline)


def test_a_step_that_lost_all_its_tokens_leaves_no_trace(load, clip, evidence, question):
    model, video = load(), clip(frames=3)
    dense = model.encode(video)
    thinned = dense.select(dense.position[:, 0] != 1)
    inputs = model.prompt(question, [evidence(thinned, video)])
    ends = Clip(video.stream, 0, 3, (video.frames[0], video.frames[2]))
    expected = model.prompt(question, [evidence(model.encode(ends), ends)])
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    assert torch.equal(inputs["position_ids"], expected["position_ids"])
    assert torch.equal(stored_logits(model.network, inputs), stored_logits(model.network, expected))


def test_encoding_and_answering_are_deterministic(load, clip, evidence, question):
    video, answers = clip(), []
    for model in (load(), load()):
        tokens = model.encode(video)
        assert torch.equal(tokens.features, model.encode(video).features)
        answers.append(list(model.answer(question, [evidence(tokens, video)])))
    assert answers[0] == answers[1]


def test_the_attention_cue_equals_that_of_eager_attention(load, folder, clip):
    video = clip(frames=3)
    eager = LlavaOnevisionForConditionalGeneration.from_pretrained(
        folder, attn_implementation="eager", local_files_only=True
    )
    with torch.no_grad():
        seen = eager.model.vision_tower(stock_pixels(folder, video)[0], output_attentions=True)
    patches = seen.attentions[-1].mean((1, 2)).reshape(3, 1, 5, 5)
    expected = torch.nn.functional.interpolate(patches, size=(3, 3), mode="bilinear")
    found = load(with_cues=("attention",)).encode(video).cues["attention"]
    torch.testing.assert_close(found, expected.flatten(), rtol=0, atol=1e-6)
    assert found.std() > 1e-4


def test_the_frame_vector_is_the_mean_of_the_towers_normalised_output(load, folder, clip):
    video = clip(frames=3)
    model = load(with_cues=("frame_vector",))
    with torch.no_grad():
        seen = model.network.model.vision_tower(stock_pixels(folder, video)[0])
    found = model.encode(video).frame_cues["frame_vector"]
    torch.testing.assert_close(found, seen.last_hidden_state.mean(1), rtol=0, atol=1e-6)


def test_frames_of_changing_size_make_one_clip(load, clip):
    video = clip(frames=2)
    cropped = replace(video.frames[1], image=video.frames[1].image[:20, ::-1])
    tokens = load().encode(replace(video, frames=(video.frames[0], cropped)))
    assert tokens.grid == (2, 3, 3)


def test_holes_that_reach_beyond_the_context_are_refused_with_the_way_out(
    load, clip, evidence, question
):
    model, video = load(), clip(frames=22)
    tokens = model.encode(video)
    items = [evidence(tokens.select(tokens.flat_index % DENSE == 8), video)]
    with pytest.raises(ModelError, match='set positions: "compact"'):
        model.answer(question, items)
    assert list(load(positions="compact").answer(question, items))


@pytest.mark.parametrize(
    "options",
    [
        {"batch": 0},
        {"max_new_tokens": 0},
        {"temperature": -1.0},
        {"with_cues": ("depth",)},
        {"with_cues": "attention"},
        {"stop": "word"},
        {"stop": ("",)},
    ],
)
def test_options_out_of_range_are_refused(load, options):
    with pytest.raises(ValueError, match=r"must be|may name"):
        load(**options)


def test_it_is_found_and_built_by_name(folder):
    recipe = Recipe("models", "llava_onevision", {"weights": str(folder), "batch": 2})
    assert recipe.plugin.cues == {"attention", "attention_middle", "keys", "frame_vector"}
    assert recipe.build().batch == 2
    assert "2408.03326" in summary("models", "llava_onevision")


def test_it_is_an_encoder_and_an_answerer(load):
    model = load()
    assert isinstance(model, Encoder)
    assert isinstance(model, Answerer)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_tokens_and_words_are_those_of_the_cpu(load, clip, evidence, question):
    here, there, video = load(), load(device="cuda", with_cues=("attention",)), clip()
    tokens = there.encode(video)
    assert tokens.features.device.type == "cuda"
    torch.testing.assert_close(
        tokens.features.cpu(), here.encode(video).features, rtol=0, atol=1e-3
    )
    items = [evidence(tokens, video)]
    assert [str(w) for w in there.answer(question, items)] == [
        str(w) for w in here.answer(question, items)
    ]
