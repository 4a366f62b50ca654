"""A prompt read in two passes, against one pass over the whole."""

from types import SimpleNamespace

import pytest
import torch
from transformers import Qwen2Config, Qwen3VLConfig, Qwen3VLForConditionalGeneration
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from streamvlm.models._reading import Reader
from streamvlm.types import Query

QUESTIONS = [Query(text) for text in ("what colour is the star ?", "when", "where is a b : red ?")]


@pytest.fixture
def read(load, clip, evidence):
    """A model and evidence of three frames, from which a share of the tokens was kept."""

    def make(kept=1.0, **options):
        model, video = load(**options), clip()
        torch.manual_seed(3)
        tokens = model.encode(video)
        return model, evidence(tokens.select(torch.rand(len(tokens)) < kept), video)

    return make


def causal(size):
    """(1, 1, S, S): all see all before them, told so that nothing is left to transformers."""
    return torch.ones(size, size, dtype=torch.bool).tril()[None, None]


@torch.no_grad()
def logits_in_one_pass(network, inputs):
    size = inputs["input_ids"].shape[1]
    return network(**{**inputs, "attention_mask": causal(size)}).logits[0]


@torch.no_grad()
def logits_of_the_rest(network, reader, inputs):
    rest, cache = reader.read(inputs)
    return network(**rest, past_key_values=cache, use_cache=True).logits[0]


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("positions", ["full", "compact"])
@pytest.mark.parametrize("kept", [1.0, 0.3])
def test_logits_equal_those_of_one_pass_over_the_whole_prompt(read, kept, positions, timestamps):
    model, item = read(kept, positions=positions, timestamps=timestamps)
    reader = Reader(model.network, (4, 5))
    for question in QUESTIONS:
        inputs = model.prompt(question, [item])
        found = logits_of_the_rest(model.network, reader, inputs)
        expected = logits_in_one_pass(model.network, inputs)[-len(found) :]
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)

        inputs["position_ids"] = inputs["position_ids"].clone()
        inputs["position_ids"][:, : -len(found)] //= 2
        wrong = logits_of_the_rest(model.network, Reader(model.network, (4, 5)), inputs)
        assert (wrong - expected).abs().max() > 0.01


class Recorder:
    """A network that notes what it is given and remembers nothing."""

    def __init__(self):
        self.config = Qwen2Config(num_hidden_layers=1)
        self.given = []

    def __call__(self, **inputs):
        self.given.append(inputs)
        return SimpleNamespace(logits=torch.zeros(1, 1, 4))


def prompt(ids, **more):
    ids = torch.tensor([ids])
    places = torch.arange(ids.shape[1]).expand(3, 1, -1)  # three axes, as multimodal RoPE has
    mask = torch.ones_like(ids)
    return {"input_ids": ids, "attention_mask": mask, "position_ids": places, **more}


def test_a_prompt_is_cut_behind_its_last_placeholder_on_every_axis_of_its_places():
    network = Recorder()
    inputs = prompt([1, 9, 9, 2, 8, 3, 4], features=[torch.zeros(3, 2)])
    rest, _ = Reader(network, (8, 9)).read(inputs)
    (given,) = network.given
    assert given["input_ids"].tolist() == [[1, 9, 9, 2, 8]]
    assert given["position_ids"].tolist() == [[[0, 1, 2, 3, 4]]] * 3
    assert given["attention_mask"].shape == (1, 5)
    assert given["features"] is inputs["features"]
    assert rest["input_ids"].tolist() == [[3, 4]]
    assert rest["position_ids"].tolist() == [[[5, 6]]] * 3
    assert rest["attention_mask"].shape == (1, 7)
    assert "features" not in rest


@pytest.mark.parametrize("ids", [[1, 2, 3], [1, 9, 2, 9]])
def test_without_visual_tokens_or_words_behind_them_the_rest_is_the_whole_prompt(ids):
    network, inputs = Recorder(), prompt(ids)
    rest, cache = Reader(network, (8, 9)).read(inputs)
    assert network.given == []
    assert rest is inputs
    assert cache.get_seq_length() == 0


@pytest.mark.parametrize(
    ("first", "second", "passes"),
    [
        ({"a": (torch.ones(2), 1)}, {"a": (torch.ones(2), 1)}, 1),
        ({"a": (torch.ones(2), 1)}, {"a": (torch.ones(2), 2)}, 2),
        ({"a": [torch.ones(2)]}, {"a": [torch.ones(2), torch.ones(2)]}, 2),
        ({"a": torch.ones(2)}, {"b": torch.ones(2)}, 2),
        ({"a": torch.ones(2)}, {"a": torch.ones(2, dtype=torch.float64)}, 2),
        ({"a": torch.ones(2)}, {"a": torch.ones(1, 2)}, 2),
        ({"a": torch.ones(2)}, {"a": None}, 2),
    ],
)
def test_visual_features_are_compared_by_name_type_shape_and_value(first, second, passes):
    network = Recorder()
    reader = Reader(network, (9,))
    for features in (first, second):
        reader.read(prompt([1, 9, 2], features=features))
    assert len(network.given) == passes


def test_going_on_from_a_cache_writes_nothing_into_what_is_kept(read):
    model, item = read()
    reader, inputs = Reader(model.network, (4, 5)), model.prompt(QUESTIONS[0], [item])
    _, untouched = reader.read(inputs)
    before = [(layer.keys.clone(), layer.values.clone()) for layer in untouched.layers]
    rest, cache = reader.read(inputs)
    for layer in cache.layers:
        layer.keys.zero_()
    model.network(**rest, past_key_values=cache)
    _, again = reader.read(inputs)
    for layer, (keys, values) in zip(again.layers, before, strict=True):
        assert torch.equal(layer.keys, keys)
        assert torch.equal(layer.values, values)


def test_the_logits_of_the_demo_model_equal_those_of_one_pass(demo):
    model, item = demo
    reader = Reader(model.network, (4, 5))
    for text in ("What colour is the star?", "Where is the red square?", "When?"):
        inputs = model.prompt(Query(text), [item])
        found = logits_of_the_rest(model.network, reader, inputs)
        expected = logits_in_one_pass(model.network, inputs)[-len(found) :]
        torch.testing.assert_close(found, expected, rtol=0, atol=5e-5)


@pytest.fixture(scope="module")
def qwen():
    """A tiny random Qwen3-VL: places on three axes, and visual features for deeper layers."""
    torch.manual_seed(0)
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
    config = Qwen3VLConfig(
        vision_config={
            "depth": 1,
            "hidden_size": 16,
            "num_heads": 2,
            "intermediate_size": 16,
            "out_hidden_size": 24,
        },
        text_config={
            "vocab_size": 32,
            "hidden_size": 24,
            "intermediate_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "head_dim": 8,
            "rope_parameters": {**rope, "mrope_interleaved": True},
        },
        image_token_id=4,
        video_token_id=5,
    )
    network = Qwen3VLForConditionalGeneration(config).eval().requires_grad_(False)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 1.5 / parameter[0].numel() ** 0.5)
    return network


def test_it_serves_a_family_with_places_on_three_axes_and_deeper_features(qwen):
    torch.manual_seed(1)
    grid = torch.cartesian_prod(torch.tensor([2]), 2 + torch.arange(2), 2 + torch.arange(3)).T
    features, deep = torch.randn(6, 24), torch.randn(2, 6, 24)
    reader, counts = Reader(qwen, (4, 5)), []
    hook = qwen.register_forward_pre_hook(lambda *_: counts.append(1))
    for deeper, words in ((deep, [7, 8]), (deep, [9, 10, 11]), (deep.flip(0), [9, 10, 11])):
        text = [torch.arange(2).expand(3, -1), 5 + torch.arange(len(words)).expand(3, -1)]
        out = BaseModelOutputWithDeepstackFeatures(
            pooler_output=(features,), deepstack_features=[(layer,) for layer in deeper]
        )
        inputs = prompt([10, 6, *[5] * 6, *words], mm_encoder_outputs={"video": out})
        inputs["position_ids"] = torch.cat([text[0], grid, text[1]], dim=1)[:, None]
        expected = logits_in_one_pass(qwen, inputs)[-len(words) :]
        found = logits_of_the_rest(qwen, reader, inputs)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    hook.remove()
    assert len(counts) == 3 + 3 + 2  # in one pass, the words, the evidence
