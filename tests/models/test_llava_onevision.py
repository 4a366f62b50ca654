"""LLaVA-OneVision against stock transformers, on a tiny random model."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlavaOnevisionForConditionalGeneration

from streamvlm.errors import ModelError
from streamvlm.pixels import normalise, read_preprocessing, resize
from streamvlm.plugins import Recipe, summary
from streamvlm.protocols import Answerer, Encoder
from streamvlm.types import Clip, Query

DENSE = 9  # tokens a frame: 5×5 patches pooled to 3×3


def stock_pixels(folder, clip):
    """(1, T, 3, S, S) float32: the whole clip at once, as stock transformers takes it."""
    how = read_preprocessing(folder, "video")
    pictures = [resize(frame.image, how.size, how.resample) for frame in clip.frames]
    return normalise(torch.stack(pictures), how)[None]


def stock_logits(network, inputs, pixels, **more):
    with torch.no_grad():
        return network(input_ids=inputs["input_ids"], pixel_values_videos=pixels, **more).logits


def stored_logits(network, inputs):
    with torch.no_grad():
        return network(**inputs).logits


def without_last_word(inputs):
    return {name: inputs[name] for name in ("input_ids", "attention_mask")}


@pytest.mark.parametrize("batch", [5, 8])  # 5: as many frames a pass as the stock path
@pytest.mark.parametrize("timestamps", [False, True])
def test_logits_from_stored_tokens_equal_those_from_pixels(
    load, folder, clip, evidence, question, timestamps, batch
):
    model, video = load(timestamps=timestamps, batch=batch), clip(frames=5)
    tokens = model.encode(video)
    inputs = model.prompt(question, [evidence(tokens, video)])
    expected = stock_logits(model.network, inputs, stock_pixels(folder, video))
    difference = (stored_logits(model.network, inputs) - expected).abs().max().item()

    backwards = replace(tokens, features=tokens.features.flip(0))
    wrong = model.prompt(question, [evidence(backwards, video)])
    control = (stored_logits(model.network, wrong) - expected).abs().max().item()
    label = f"timestamps {timestamps}, batch {batch}"
    print(f"{label}: max abs difference {difference}, control {control:.2f}")  # noqa: T201
    assert difference <= 1e-5
    assert control > 0.1


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


def test_encoding_clip_by_clip_equals_encoding_whole(load, clip):
    model, whole = load(batch=4), clip(frames=10)
    parts = [
        Clip(whole.stream, start, start + 5, whole.frames[start : start + 5]) for start in (0, 5)
    ]
    pieces = torch.cat([model.encode(part).features for part in parts])
    # Where a frame lies in its batch may decide which thread rounds it: the last place only.
    torch.testing.assert_close(pieces, model.encode(whole).features, rtol=0, atol=1e-5)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(pieces.flip(0), model.encode(whole).features, rtol=0, atol=1e-1)


def test_the_batch_size_does_not_change_the_tokens(load, clip):
    video = clip(frames=7)
    cues = ("attention", "frame_vector")
    made = {batch: load(batch=batch, with_cues=cues).encode(video) for batch in (1, 2, 3, 7, 8)}
    for tokens in made.values():
        # Another batch size may take another kernel, which rounds differently in the last place.
        torch.testing.assert_close(tokens.features, made[8].features, rtol=0, atol=1e-5)
        attention = tokens.cues["attention"]
        torch.testing.assert_close(attention, made[8].cues["attention"], rtol=0, atol=1e-6)


def test_tokens_know_their_step_place_and_second(load, clip):
    model, video = load(), clip(frames=2, start=10.0)
    tokens = model.encode(video)
    assert tokens.grid == (2, 3, 3)
    assert tokens.is_dense
    assert tokens.flat_index.tolist() == list(range(18))
    assert tokens.position[11].tolist() == [1, 0, 2]
    assert tokens.seconds.tolist() == [10.0] * 9 + [11.0] * 9
    assert tokens.weight.tolist() == [1.0] * 18
    assert tokens.model == model.model


def kept_one_third(tokens):
    torch.manual_seed(5)
    scores = torch.rand(len(tokens) // DENSE, DENSE)
    return torch.cat(
        [step.topk(3).indices.sort().values + DENSE * i for i, step in enumerate(scores)]
    )


def hiding(hidden):
    """(1, 1, S, S) additive: causal, and nobody sees the hidden places."""
    size = len(hidden)
    seen = torch.ones(size, size, dtype=torch.bool).tril() & ~hidden
    seen |= torch.eye(size, dtype=torch.bool)  # a row that sees nothing would be NaN
    return torch.zeros(1, 1, size, size).masked_fill(~seen, torch.finfo(torch.float32).min)


@pytest.mark.parametrize("timestamps", [False, True])
def test_a_kept_token_sits_where_it_sat_before_the_others_were_dropped(
    load, folder, clip, evidence, question, timestamps
):
    model, video = load(timestamps=timestamps), clip(frames=4)
    dense = model.encode(video)
    index = kept_one_third(dense)
    whole = model.prompt(question, [evidence(dense, video)])
    slots = (whole["input_ids"][0] == model.network.config.video_token_id).nonzero()[:-1, 0]
    hidden = torch.zeros_like(whole["input_ids"][0], dtype=torch.bool)
    hidden[slots] = True
    hidden[slots[index]] = False
    expected = stock_logits(
        model.network, whole, stock_pixels(folder, video), attention_mask=hiding(hidden)
    )[0, ~hidden]

    subset = [evidence(dense.select(index), video)]
    full = model.prompt(question, subset)
    found = stored_logits(model.network, full)[0]
    assert full["position_ids"][0].tolist() == (~hidden).nonzero()[:, 0].tolist()
    difference = (found - expected).abs().max().item()
    assert difference <= 1e-4

    compact = load(timestamps=timestamps, positions="compact").prompt(question, subset)
    control = stored_logits(model.network, compact)[0]
    assert compact["position_ids"][0].tolist() == list(range(len(expected)))
    apart = (control[-1] - expected[-1]).abs().max().item()
    print(f"subset: max abs difference {difference}, compact {apart:.2f} away")  # noqa: T201
    assert apart > 0.01


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


def test_records_are_read_in_time_order_whatever_order_they_come_in(load, clip, evidence, question):
    model = load()
    items = [evidence(model.encode(c), c) for c in (clip(2, start=0.0), clip(2, start=4.0, seed=1))]
    first = model.prompt(question, items)
    second = model.prompt(question, items[::-1])
    assert torch.equal(first["input_ids"], second["input_ids"])
    assert torch.equal(stored_logits(model.network, first), stored_logits(model.network, second))


def test_without_evidence_only_the_question_is_read(load, question):
    model = load()
    inputs = model.prompt(question, [])
    assert (inputs["input_ids"] == model.network.config.video_token_id).sum() == 1
    assert list(model.answer(question, []))


def test_tokens_come_back_from_a_file_as_they_went_in(load, clip, evidence, question, tmp_path):
    model, video = load(), clip()
    tokens = model.encode(video)
    save_file({"features": tokens.features}, tmp_path / "tokens.safetensors")
    stored = replace(tokens, features=load_file(tmp_path / "tokens.safetensors")["features"])
    fresh, again = (
        stored_logits(model.network, model.prompt(question, [evidence(t, video)]))
        for t in (tokens, stored)
    )
    assert torch.equal(fresh, again)


def test_greedy_words_are_those_of_stock_generate_from_pixels(
    load, folder, clip, evidence, question
):
    model, video = load(max_new_tokens=20), clip()
    items = [evidence(model.encode(video), video)]
    inputs = model.prompt(question, items)
    config = model.network.config
    sequence = model.network.generate(
        **without_last_word(inputs),
        pixel_values_videos=stock_pixels(folder, video),
        suppress_tokens=[config.image_token_id, config.video_token_id],
        do_sample=False,
        max_new_tokens=20,
    )[0, inputs["input_ids"].shape[1] :]
    expected = model._voice.tokenizer.decode(sequence, skip_special_tokens=True)
    found = "".join(word.text for word in model.answer(question, items))
    assert found == expected
    assert len(found) > 5


def test_a_placeholder_in_the_question_adds_no_slot(load, clip, evidence):
    model, video = load(), clip()
    items = [evidence(model.encode(video), video)]
    inputs = model.prompt(Query("what is <video> <image> <|im_end|> <|im_start|> ?"), items)
    ids = inputs["input_ids"][0].tolist()
    assert ids.count(5) == 3 * DENSE + 1
    assert ids.count(4) == 0
    assert ids.count(3) == 1  # the template's own <|im_end|>
    assert list(model.answer(Query("<video>"), items))


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


def test_cues_cost_no_change_of_the_features(load, clip):
    video = clip()
    plain = load().encode(video)
    cued = load(with_cues=("attention", "frame_vector")).encode(video)
    assert torch.equal(plain.features, cued.features)
    assert dict(plain.cues) == {}
    assert set(cued.cues) | set(cued.frame_cues) == {"attention", "frame_vector"}


def test_half_precision_runs_and_is_another_space(load, clip, evidence, question):
    model, video = load(dtype="bfloat16"), clip()
    tokens = model.encode(video)
    assert tokens.features.dtype is torch.bfloat16
    assert list(model.answer(question, [evidence(tokens, video)]))
    assert model.model != load().model


def test_frames_of_changing_size_make_one_clip(load, clip):
    video = clip(frames=2)
    cropped = replace(video.frames[1], image=video.frames[1].image[:20, ::-1])
    tokens = load().encode(replace(video, frames=(video.frames[0], cropped)))
    assert tokens.grid == (2, 3, 3)


def test_tokens_of_other_weights_are_refused(load, clip, evidence, question):
    model, video = load(), clip()
    foreign = replace(model.encode(video), model="llava_onevision/other")
    with pytest.raises(ModelError, match=r"llava_onevision/other.*load those weights or ingest"):
        model.answer(question, [evidence(foreign, video)])


def test_a_prompt_beyond_the_context_is_refused_at_the_call(load, clip, evidence, question):
    model, video = load(), clip(frames=22)
    items = [evidence(model.encode(video), video)]
    with pytest.raises(ModelError, match=r"has room for 192 before its answer; ask with a smaller"):
        model.answer(question, items)


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
    [{"batch": 0}, {"max_new_tokens": 0}, {"temperature": -1.0}, {"with_cues": ("depth",)}],
)
def test_options_out_of_range_are_refused(load, options):
    with pytest.raises(ValueError, match=r"must be|may name"):
        load(**options)


def test_it_is_found_and_built_by_name(folder):
    recipe = Recipe("models", "llava_onevision", {"weights": str(folder), "batch": 2})
    assert recipe.plugin.cues == {"attention", "frame_vector"}
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
