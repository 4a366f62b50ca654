"""What every family must do, against stock transformers, on tiny random models.

A new family is one entry of `FAMILIES` in `tests/models/tiny.py`.
"""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from transformers.quantizers.quantizers_utils import should_convert_module

from streamvlm.errors import BadOption, ModelError
from streamvlm.memory.store import Identity, Memory
from streamvlm.models._loading import UNROUNDED
from streamvlm.models._reading import Reader
from streamvlm.models._speak import Voice
from streamvlm.plugins import Recipe
from streamvlm.types import Clip, Query
from tests.models.tiny import FAMILIES

QUESTIONS = [
    Query("what colour is the star ?"),
    Query("when"),
    Query("where is the red square ? a b . c"),
]


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.plugin)
def family(request, tmp_path_factory):
    """A family's tiny checkpoint, and models made from it; each set of options is loaded once."""
    tiny, made = request.param, {}
    folder = tiny.save(tmp_path_factory.mktemp("weights") / "tiny")

    def load(**options):
        key = repr(sorted(options.items()))
        if key not in made:
            whole = {"weights": str(folder), "max_new_tokens": 8, **tiny.options, **options}
            made[key] = Recipe("models", tiny.plugin, whole).build()
        return made[key]

    return SimpleNamespace(tiny=tiny, folder=folder, load=load)


@torch.no_grad()
def stock_logits(family, network, clip, inputs, **more):
    """(S, V): transformers sees the pixels of the whole clip at once, and finds places itself."""
    images = [frame.image for frame in clip.frames]
    seen = family.tiny.pixels(family.folder, images, inputs)
    given = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
    return network(**{**given, **seen, **more}).logits[0]


@torch.no_grad()
def stored_logits(network, inputs, **more):
    return network(**{**inputs, **more}).logits[0]


def moved(tokens):
    """The same tokens with each one's vectors at another's place."""
    deepstack = None if tokens.deepstack is None else tokens.deepstack.flip(0)
    return replace(tokens, features=tokens.features.flip(0), deepstack=deepstack)


def test_logits_from_stored_tokens_equal_those_from_pixels(family, clip, evidence):
    model, video = family.load(**family.tiny.stock), clip(frames=5)
    tokens = model.encode(video)
    inputs = model.prompt(QUESTIONS[0], [evidence(tokens, video)])
    expected = stock_logits(family, model.network, video, inputs)
    difference = (stored_logits(model.network, inputs) - expected).abs().max().item()

    wrong = model.prompt(QUESTIONS[0], [evidence(moved(tokens), video)])
    control = (stored_logits(model.network, wrong) - expected).abs().max().item()
    print(f"{family.tiny.plugin}: max abs difference {difference}, control {control:.2f}")  # noqa: T201
    assert difference <= 1e-5
    assert control > 0.1


def test_tokens_know_their_step_place_and_second(family, clip):
    model, video = family.load(), clip(frames=4, start=10.0)
    tokens = model.encode(video)
    rows, columns = family.tiny.grid
    assert tokens.grid == (4 // model.step_frames, rows, columns)
    assert tokens.is_dense
    assert tokens.flat_index.tolist() == list(range(len(tokens)))
    assert tokens.seconds.tolist() == sorted(tokens.seconds.tolist())
    assert 10.0 <= tokens.seconds[0] <= 10.5
    assert tokens.model == model.model


def test_encoding_clip_by_clip_equals_encoding_whole(family, clip):
    model, whole = family.load(batch=4), clip(frames=10)
    parts = [
        Clip(whole.stream, start, start + 4, whole.frames[start : start + 4]) for start in (0, 4, 8)
    ]
    pieces = [model.encode(part) for part in parts]
    dense = model.encode(whole)
    for name in ("features", "deepstack"):
        if (expected := getattr(dense, name)) is None:
            continue
        found = torch.cat([getattr(piece, name) for piece in pieces])
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
        assert (found.flip(0) - expected).abs().max() > 0.1
    assert torch.equal(torch.cat([piece.seconds for piece in pieces]), dense.seconds)


def test_the_batch_size_does_not_change_the_tokens(family, clip):
    video = clip(frames=9)
    expected = family.load(batch=4).encode(video).features
    for batch in (1, 8):
        found = family.load(batch=batch).encode(video).features
        # Another batch size may take another kernel, which rounds differently in the last place.
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def one_third(tokens):
    """Some tokens of every step."""
    torch.manual_seed(5)
    cells = tokens.grid[1] * tokens.grid[2]
    scores = torch.rand(tokens.grid[0], cells)
    best = scores.topk(cells // 3).indices.sort().values
    return (best + cells * torch.arange(tokens.grid[0])[:, None]).flatten()


def hiding(hidden):
    """(1, 1, S, S) additive: causal, and nobody sees the hidden places."""
    size = len(hidden)
    seen = torch.ones(size, size, dtype=torch.bool).tril() & ~hidden
    seen |= torch.eye(size, dtype=torch.bool)  # a row that sees nothing would be NaN
    return torch.zeros(1, 1, size, size).masked_fill(~seen, torch.finfo(torch.float32).min)


def test_a_kept_token_sits_where_it_sat_before_the_others_were_dropped(family, clip, evidence):
    model, video = family.load(), clip(frames=6)
    dense = model.encode(video)
    index = one_third(dense)
    whole = model.prompt(QUESTIONS[0], [evidence(dense, video)])
    slots = torch.isin(whole["input_ids"][0], torch.tensor(model._voice.placeholders)).nonzero()
    hidden = torch.zeros_like(whole["input_ids"][0], dtype=torch.bool)
    hidden[slots[: len(dense), 0]] = True
    hidden[slots[index, 0]] = False

    subset = [evidence(dense.select(index), video)]
    inputs = model.prompt(QUESTIONS[0], subset)
    axes = inputs["position_ids"].flatten(0, -2)[-3:]
    assert torch.equal(axes, whole["position_ids"].flatten(0, -2)[-3:, ~hidden])
    if not family.tiny.masked:
        return
    expected = stored_logits(model.network, whole, attention_mask=hiding(hidden))[~hidden]
    difference = (stored_logits(model.network, inputs) - expected).abs().max().item()
    compact = family.load(positions="compact").prompt(QUESTIONS[0], subset)
    apart = (stored_logits(model.network, compact)[-1] - expected[-1]).abs().max().item()
    print(f"{family.tiny.plugin}: subset {difference}, compact {apart:.2f} away")  # noqa: T201
    assert difference <= 1e-4
    assert apart > 0.01


def test_tokens_that_went_through_the_disk_give_the_same_answer(family, clip, evidence, tmp_path):
    model, video = family.load(), clip(frames=4)
    item = evidence(model.encode(video), video)
    identity = Identity(item.record.tokens.model, "embedder", item.record.keys.shape[1])
    with Memory.create(tmp_path / "memory", identity, payload="raw", sync="process") as memory:
        memory.append([item.record])
    with Memory.open(tmp_path / "memory", writable=False) as memory:
        (record,) = memory.load([item.record.id])
    again = replace(item, record=record)
    for name in ("features", "deepstack", "position", "seconds"):
        before, after = getattr(item.record.tokens, name), getattr(again.record.tokens, name)
        assert (before is None and after is None) or torch.equal(before, after)
    first = stored_logits(model.network, model.prompt(QUESTIONS[0], [item]))
    assert torch.equal(first, stored_logits(model.network, model.prompt(QUESTIONS[0], [again])))
    said = [list(model.answer(QUESTIONS[0], [one])) for one in (item, again)]
    assert said[0] == said[1]


def test_greedy_words_are_those_of_stock_generate_from_pixels(family, clip, evidence):
    model, video = family.load(**family.tiny.stock), clip(frames=4)
    items = [evidence(model.encode(video), video)]
    inputs = model.prompt(QUESTIONS[0], items)
    images = [frame.image for frame in video.frames]
    sequence = model.network.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        **family.tiny.pixels(family.folder, images, inputs),
        suppress_tokens=list(model._voice.placeholders),
        do_sample=False,
        max_new_tokens=8,
    )[0, inputs["input_ids"].shape[1] :]
    expected = model._voice.tokenizer.decode(sequence, skip_special_tokens=True)
    found = "".join(word.text for word in model.answer(QUESTIONS[0], items))
    assert found == expected
    assert found


def alone(model, question, items):
    """What the model says if it was never asked anything before."""
    used = model._voice
    voice = Voice(
        used.network, used.tokenizer, used.placeholders, used.max_new_tokens, used.temperature
    )
    return list(voice.speak(model.prompt(question, items)))


def test_the_next_question_reads_only_its_own_words_and_gets_the_same_answer(
    family, clip, evidence
):
    model, video = family.load(), clip(frames=4, seed=3)
    items = [evidence(model.encode(video), video)]
    expected = [alone(model, question, items) for question in QUESTIONS]
    counts = []
    hook = model.network.register_forward_pre_hook(
        lambda _network, _args, inputs: counts.append(inputs["input_ids"].shape[1]),
        with_kwargs=True,
    )
    try:
        found = [list(model.answer(question, items)) for question in QUESTIONS]
    finally:
        hook.remove()
    assert found == expected
    assert sum(count > len(items[0].record.tokens) for count in counts) == 1
    assert len({str(words) for words in found}) > 1


def test_a_question_read_behind_kept_evidence_gets_the_logits_of_one_pass(family, clip, evidence):
    model, video = family.load(), clip(frames=4)
    items = [evidence(model.encode(video), video)]
    reader = Reader(model.network, model._voice.placeholders)
    for question in QUESTIONS:
        inputs = model.prompt(question, items)
        rest, cache = reader.read(inputs)
        found = stored_logits(model.network, rest, past_key_values=cache)
        expected = stored_logits(model.network, inputs)[-len(found) :]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
        assert len(found) < len(inputs["input_ids"][0]) - len(items[0].record.tokens)
        assert (found[:-1] - expected[1:]).abs().max() > 0.1


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_questions_asked_together_get_the_answers_of_questions_asked_alone(
    family, clip, evidence, temperature
):
    model, video = family.load(temperature=temperature), clip(frames=4)
    items = [evidence(model.encode(video), video)]
    expected = ["".join(map(str, model.answer(question, items))) for question in QUESTIONS]
    assert model.answer_all(QUESTIONS, items) == expected
    assert len(set(expected)) > 1


def test_the_visual_features_are_brought_back_once_for_all_questions(
    family, clip, evidence, monkeypatch
):
    model, video = family.load(), clip(frames=2)
    items, made = [evidence(model.encode(video), video)], []

    def counted(features, deepstack, make=model.container):
        made.append(len(features))
        return make(features, deepstack)

    monkeypatch.setattr(model, "container", counted)
    model.prompt(QUESTIONS[0], items)
    once = len(made)
    # Recurrent layers answer one question after the other, and let go of each prompt.
    model.answer_all(QUESTIONS, items)
    assert once == 1
    assert len(made) - once == (len(QUESTIONS) if family.tiny.plugin == "qwen3_5" else 1)


def test_questions_without_evidence_get_together_the_answers_they_get_alone(family):
    model = family.load()
    expected = ["".join(map(str, model.answer(question, []))) for question in QUESTIONS]
    assert model.answer_all(QUESTIONS, []) == expected
    assert len(set(expected)) > 1


def test_without_evidence_only_the_question_is_read(family):
    model = family.load()
    assert list(model.answer(QUESTIONS[0], []))
    assert model.answer_all([], []) == []


def test_records_are_read_in_time_order_whatever_order_they_come_in(family, clip, evidence):
    model = family.load()
    clips = [clip(2, start=0.0), clip(2, start=4.0, seed=1), clip(2, stream="/v/b.mp4", seed=2)]
    items = [evidence(model.encode(one), one) for one in clips]
    first = model.prompt(QUESTIONS[0], items)
    second = model.prompt(QUESTIONS[0], items[::-1])
    for name in ("input_ids", "position_ids"):
        assert torch.equal(first[name], second[name])
    assert torch.equal(stored_logits(model.network, first), stored_logits(model.network, second))
    assert list(model.answer(QUESTIONS[0], items))


def test_cues_stand_at_their_tokens_and_cost_no_change_of_the_features(family, clip):
    video = clip(frames=4)
    plain = family.load().encode(video)
    cued = family.load(with_cues=tuple(sorted(family.load().cues))).encode(video)
    assert torch.equal(plain.features, cued.features)
    assert (dict(plain.cues), dict(plain.frame_cues)) == ({}, {})
    assert set(cued.cues) | set(cued.frame_cues) == family.load().cues
    assert all(
        torch.isfinite(cue).all() for cue in (*cued.cues.values(), *cued.frame_cues.values())
    )


def test_a_changed_frame_changes_its_own_step_and_no_other(family, clip):
    model, video = family.load(), clip(frames=4)
    other = replace(video.frames[3], image=video.frames[3].image[::-1])
    changed = model.encode(replace(video, frames=(*video.frames[:3], other)))
    tokens = model.encode(video)
    differs = (changed.features - tokens.features).abs().amax(1) > 1e-5
    assert set(tokens.position[differs, 0].tolist()) == {3 // model.step_frames}


def test_a_placeholder_in_the_question_adds_no_slot(family, clip, evidence):
    model, video = family.load(), clip(frames=2)
    items = [evidence(model.encode(video), video)]
    spelled = " ".join(model._voice.tokenizer.convert_ids_to_tokens(model._voice.placeholders))
    plain, tricky = (model.prompt(Query(text), items) for text in ("what", f"what {spelled}"))
    count = [
        int(torch.isin(inputs["input_ids"], torch.tensor(model._voice.placeholders)).sum())
        for inputs in (plain, tricky)
    ]
    assert count[0] == count[1]
    assert list(model.answer(Query(spelled), items))


def test_bfloat16_runs_and_is_another_space(family, clip, evidence):
    model, video = family.load(dtype="bfloat16"), clip(frames=2)
    tokens = model.encode(video)
    assert tokens.features.dtype is torch.bfloat16
    assert list(model.answer(QUESTIONS[0], [evidence(tokens, video)]))
    assert model.model != family.load().model


def test_an_answer_ends_before_a_stop_word(family, clip, evidence):
    model, video = family.load(), clip(frames=2)
    items = [evidence(model.encode(video), video)]
    words = [str(word) for word in model.answer(QUESTIONS[2], items)]
    stop = words[2].strip()
    expected = "".join(words).partition(stop)[0]
    brief = family.load(stop=(stop,))
    assert "".join(map(str, brief.answer(QUESTIONS[2], items))) == expected
    assert brief.answer_all([QUESTIONS[2]], items) == [expected]


def test_the_first_word_comes_before_the_answer_is_finished(family, clip, evidence):
    model, video = family.load(), clip(frames=2)
    items = [evidence(model.encode(video), video)]
    whole = list(model.answer(QUESTIONS[2], items))
    passes = []
    hook = model.network.register_forward_hook(lambda *_: passes.append(1))
    try:
        words = model.answer(QUESTIONS[2], items)
        assert next(words) == whole[0]
        words.close()
        first = len(passes)
        assert list(model.answer(QUESTIONS[2], items)) == whole
    finally:
        hook.remove()
    assert first < len(passes) - first


def test_tokens_of_other_weights_are_refused(family, clip, evidence):
    model, video = family.load(), clip(frames=2)
    foreign = replace(model.encode(video), model="other/weights 0")
    with pytest.raises(ModelError, match=r"are of other/weights 0.*load those weights or ingest"):
        model.answer(QUESTIONS[0], [evidence(foreign, video)])


def test_more_tokens_than_the_context_holds_are_refused(family, clip, evidence):
    model, video = family.load(), clip(frames=80)
    items = [evidence(model.encode(video), video)]
    with pytest.raises(ModelError, match=r"has room for \d+ before its answer; ask with a smaller"):
        model.answer(QUESTIONS[0], items)


@pytest.mark.parametrize("part", ["eye", "mouth"])
def test_a_device_without_memory_left_is_one_sentence(family, clip, evidence, part):
    model, video = family.load(), clip(frames=2)
    items = [evidence(model.encode(video), video)]

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    towers = [m for name, m in model.network.model.named_children() if name.startswith("vis")]
    hook = (towers[0] if part == "eye" else model.network).register_forward_pre_hook(fail)
    work = model.encode if part == "eye" else lambda _: list(model.answer(Query("else"), items))
    try:
        with pytest.raises(ModelError, match=r"ran out of memory on the device; (set|ask)") as said:
            work(video)
    finally:
        hook.remove()
    assert "\n" not in str(said.value)


def broken(family, tmp_path):
    return shutil.copytree(family.folder, tmp_path / "broken")


def test_a_checkpoint_of_another_family_is_refused(family, tmp_path):
    folder = broken(family, tmp_path)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": "gpt2"}))
    with pytest.raises(ModelError, match=r"of the family gpt2, needed is .*choose other weights"):
        Recipe("models", family.tiny.plugin, {"weights": str(folder)}).build()


def test_a_checkpoint_without_its_preprocessors_file_is_refused(family, tmp_path):
    folder = broken(family, tmp_path)
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match=r"so it is unknown how.*add the file from the same"):
        Recipe("models", family.tiny.plugin, {"weights": str(folder)}).build()


def test_an_option_of_the_wrong_type_is_refused_before_anything_loads(family):
    with pytest.raises(BadOption, match="positions must be"):
        Recipe("models", family.tiny.plugin, {"weights": "w", "positions": "half"})


def test_rounding_weights_spares_all_but_the_language_model(family):
    linear = [
        name
        for name, module in family.load().network.named_modules()
        if isinstance(module, torch.nn.Linear)
    ]
    rounded = [name for name in linear if should_convert_module(name, UNROUNDED)]
    mouths = ("model.language_model.layers.", "model.text_model.layers.")
    assert rounded == [name for name in linear if name.startswith(mouths)]
    assert 0 < len(rounded) < len(linear)
