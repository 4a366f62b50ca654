"""What the taps read, against transformers' own eager attention, on tiny random towers."""

import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

import pytest
import torch
from torch.overrides import TorchFunctionMode
from transformers import (
    AttentionInterface,
    CLIPVisionConfig,
    CLIPVisionModel,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.internvl.configuration_internvl import InternVLVisionConfig
from transformers.models.internvl.modeling_internvl import InternVLVisionModel
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLVisionConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import (
    Qwen2_5_VisionTransformerPretrainedModel,
)
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLVisionConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLVisionModel
from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionTransformer
from transformers.vision_utils import get_vision_window_index

from streamvlm.errors import ModelError
from streamvlm.models import _taps
from streamvlm.models._taps import KERNEL, Taps

WIDTH, HEADS, DEPTH, PATCH = 16, 2, 4, 4
ROWS, COLUMNS, UNITS = 6, 8, 3
"""Patches of a Qwen picture (merged to 3×4 tokens), and units of a clip."""
SQUARE = {
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": HEADS,
    "image_size": 5 * PATCH,
    "patch_size": PATCH,
}
QWEN = {
    "depth": DEPTH,
    "hidden_size": WIDTH,
    "intermediate_size": 24,
    "num_heads": HEADS,
    "patch_size": PATCH,
    "out_hidden_size": 24,
}


def random_weights(tower):
    torch.manual_seed(0)
    tower.eval().requires_grad_(False)
    for parameter in tower.parameters():
        # The default initialisation is so small that attention is nearly uniform.
        parameter.normal_(0, 1.5 / max(1, parameter[0].numel()) ** 0.5)
    return tower


def pictures(count=UNITS):
    return torch.randn(count, 3, 5 * PATCH, 5 * PATCH, generator=torch.Generator().manual_seed(1))


def units(count=UNITS):
    """Flattened patches of a Qwen clip: `count` units of 2 frames."""
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count * ROWS * COLUMNS, 3 * 2 * PATCH * PATCH, generator=generator)


def grid(pixels):
    return torch.tensor([[len(pixels) // (ROWS * COLUMNS), ROWS, COLUMNS]])


def siglip(**options):
    tower = SiglipVisionModel(SiglipVisionConfig(**SQUARE, **options))
    layers = [layer.self_attn for layer in tower.encoder.layers]
    return tower, layers, {}


def siglip_with_head():
    tower, layers, _ = siglip()
    return tower, layers, {"probe": tower.head.attention}


def siglip_without_head():
    return siglip(vision_use_head=False)


def clip_tower():
    tower = CLIPVisionModel(CLIPVisionConfig(**SQUARE))
    return tower, [layer.self_attn for layer in tower.encoder.layers], {"prefix": 1}


def internvit():
    tower = InternVLVisionModel(InternVLVisionConfig(**SQUARE, use_qk_norm=True))
    return tower, [layer.attention for layer in tower.encoder.layer], {"prefix": 1}


def smolvlm():
    tower = SmolVLMVisionTransformer(SmolVLMVisionConfig(**SQUARE))
    return tower, [layer.self_attn for layer in tower.encoder.layers], {}


def qwen2_5():
    config = Qwen2_5_VLVisionConfig(**QWEN, window_size=16, fullatt_block_indexes=[1, 3])
    tower = Qwen2_5_VisionTransformerPretrainedModel(config)
    return tower, [block.attn for block in tower.blocks], {"middle": 1}


def qwen3():
    config = Qwen3VLVisionConfig(
        **QWEN, num_position_embeddings=16, deepstack_visual_indexes=[0, 2]
    )
    tower = Qwen3VLVisionModel(config)
    return tower, [block.attn for block in tower.blocks], {}


TOWERS = {
    make.__name__: make
    for make in (
        siglip_with_head,
        siglip_without_head,
        clip_tower,
        internvit,
        smolvlm,
        qwen2_5,
        qwen3,
    )
}


@pytest.fixture(params=TOWERS)
def setting(request):
    """A tower, what it is called with, its attention modules, and its facts for the taps."""
    tower, attentions, facts = TOWERS[request.param]()
    is_qwen = request.param.startswith("qwen")
    pixels = units() if is_qwen else pictures()
    return SimpleNamespace(
        tower=random_weights(tower),
        attentions=attentions,
        facts=facts,
        pixels=pixels,
        is_qwen=is_qwen,
        taps=lambda **more: Taps(tower, attentions, **facts | more),
    )


def run(setting, pixels=None):
    pixels = setting.pixels if pixels is None else pixels
    if setting.is_qwen:
        return setting.tower(pixels, grid_thw=grid(pixels))
    return setting.tower(pixels)


def by_eager(setting):
    """{attention module: [(q, k, weights) of each call]}, by the eager kernel of transformers."""
    seen = {}

    def record(module, query, key, value, attention_mask, **options):
        eager = sys.modules[type(module).__module__].eager_attention_forward
        options.pop("is_causal", None)
        out, weights = eager(module, query, key, value, attention_mask, **options)
        seen.setdefault(module, []).append((query, key, weights))
        return out, weights

    AttentionInterface.register("recording", record)
    before = setting.tower.config._attn_implementation
    setting.tower.set_attn_implementation("recording")
    run(setting)
    setting.tower.set_attn_implementation(before)
    return seen


def joined(calls, prefix):
    return torch.cat([call[:, prefix:].flatten(0, 1) for call in calls])


@pytest.mark.parametrize("layer", [-1, 1])
def test_received_attention_equals_that_of_the_eager_kernel(setting, layer):
    taps = setting.taps(layer=layer)
    with taps.watch({"attention"}) as seen:
        run(setting)
    calls = by_eager(setting)[setting.attentions[layer]]
    expected = joined([weights.mean((1, 2)) for _, _, weights in calls], taps.prefix)
    assert seen.keys() == {"attention"}
    torch.testing.assert_close(seen["attention"], expected, rtol=0, atol=1e-6)
    assert expected.std() > 1e-3  # far from uniform, so that a mistake would show


def test_the_middle_layer_is_read_beside_the_last(setting):
    taps = setting.taps()
    with taps.watch({"attention", "attention_middle"}) as seen:
        run(setting)
    calls = by_eager(setting)[setting.attentions[DEPTH // 3]]
    expected = joined([weights.mean((1, 2)) for _, _, weights in calls], taps.prefix)
    torch.testing.assert_close(seen["attention_middle"], expected, rtol=0, atol=1e-6)
    assert (seen["attention_middle"] - seen["attention"]).abs().max() > 1e-3


def test_keys_are_those_of_the_kernel_averaged_over_heads(setting):
    taps = setting.taps()
    with taps.watch({"keys"}) as seen:
        run(setting)
    calls = by_eager(setting)[setting.attentions[-1]]
    expected = joined([key.mean(1) for _, key, _ in calls], taps.prefix)
    # The layers below ran the eager kernel, which rounds otherwise.
    torch.testing.assert_close(seen["keys"], expected, rtol=1e-4, atol=1e-4)
    assert seen["keys"].shape == (len(expected), WIDTH // HEADS)


@pytest.mark.parametrize("make", [clip_tower, internvit])
def test_the_class_tokens_row_equals_that_of_the_eager_kernel(make):
    tower, attentions, facts = make()
    setting = SimpleNamespace(tower=random_weights(tower), pixels=pictures(), is_qwen=False)
    with Taps(tower, attentions, **facts).watch({"cls_attention"}) as seen:
        run(setting)
    ((_, _, weights),) = by_eager(setting)[attentions[-1]]
    expected = weights.mean(1)[:, 0, 1:].flatten()
    torch.testing.assert_close(seen["cls_attention"], expected, rtol=0, atol=1e-6)
    assert expected.std() > 1e-3


def test_the_probes_attention_is_the_pooling_heads_own():
    tower, attentions, facts = siglip_with_head()
    head = random_weights(tower).head
    with Taps(tower, attentions, **facts).watch({"cls_attention"}) as seen:
        hidden = tower(pictures()).last_hidden_state
    # By hand, from the weights of the checkpoint.
    q_weight, k_weight, _ = head.attention.in_proj_weight.chunk(3)
    q_bias, k_bias, _ = head.attention.in_proj_bias.chunk(3)
    query = (head.probe[0] @ q_weight.T + q_bias).view(HEADS, 1, -1)
    keys = (hidden @ k_weight.T + k_bias).unflatten(-1, (HEADS, -1)).transpose(1, 2)
    scores = (query * (WIDTH / HEADS) ** -0.5) @ keys.mT
    expected = scores.softmax(-1).mean((1, 2)).flatten()
    torch.testing.assert_close(seen["cls_attention"], expected, rtol=0, atol=1e-6)
    assert expected.std() > 1e-3


def test_several_taps_on_one_tower_hear_the_probe_once():
    tower, attentions, facts = siglip_with_head()
    random_weights(tower)
    Taps(tower, attentions, **facts)
    with Taps(tower, attentions, **facts).watch({"cls_attention"}) as seen:
        tower(pictures())
    assert seen["cls_attention"].shape == (UNITS * 25,)


def test_the_towers_output_stays_equal_to_the_last_bit(setting):
    plain = run(setting)
    taps = setting.taps()
    quiet = run(setting)
    with taps.watch(taps.offered):
        watched = run(setting)
    for name in plain:
        if isinstance(plain[name], torch.Tensor):
            assert torch.equal(plain[name], quiet[name]), name
            assert torch.equal(plain[name], watched[name]), name
    assert setting.tower.config._attn_implementation == KERNEL


class CountSoftmax(TorchFunctionMode):
    """Counts softmaxes that are written out, as the sdpa kernel's is not."""

    count = 0

    def __torch_function__(self, function, types, arguments=(), options=None):
        self.count += getattr(function, "__name__", "") == "softmax"
        return function(*arguments, **options or {})


def test_nothing_is_computed_for_layers_that_are_not_watched(setting):
    taps = setting.taps()
    calls = UNITS if setting.is_qwen else 1
    for cues, expected in ((), 0), (("keys",), 0), (("attention",), calls):
        with CountSoftmax() as counted, taps.watch(cues):
            run(setting)
        assert counted.count == expected, cues


def test_a_window_of_memory_changes_nothing(setting, monkeypatch):
    taps = setting.taps()
    with taps.watch({"attention"}) as whole:
        run(setting)
    monkeypatch.setattr(_taps, "_AT_ONCE", 7 * HEADS * 49)
    with taps.watch({"attention"}) as parts:
        run(setting)
    torch.testing.assert_close(parts["attention"], whole["attention"], rtol=0, atol=1e-6)


def test_pictures_alone_give_what_they_give_together(setting):
    """Of Qwen2.5 too: the windows of one unit come before those of the next."""
    taps = setting.taps()
    with taps.watch({"attention", "keys"}) as whole:
        run(setting)
    chunks = []
    for pixels in setting.pixels.chunk(UNITS):
        with taps.watch({"attention", "keys"}) as seen:
            run(setting, pixels)
        chunks.append(seen)
    for name, cue in whole.items():
        together = torch.cat([chunk[name] for chunk in chunks])
        torch.testing.assert_close(together, cue, rtol=0, atol=1e-6)


def tokens(setting, cue):
    """A cue of patches, (T·P, …), as each token's, in the tower's order of tokens."""
    if not setting.is_qwen:
        return cue
    merged = cue.unflatten(0, (-1, 4)).mean(1)
    config = setting.tower.config
    if config.model_type != "qwen2_5_vl_vision":
        return merged
    order, _ = get_vision_window_index(grid(setting.pixels), 2, config.window_size, PATCH)
    return merged[order.argsort()]


def test_a_poked_pixel_changes_the_key_of_its_own_token_only(setting):
    """In the first layer: there nothing has been mixed yet."""
    taps, poked = setting.taps(layer=0), setting.pixels.clone()
    with taps.watch({"keys"}) as before:
        run(setting)
    if setting.is_qwen:
        poked[ROWS * COLUMNS + 13] += 1  # unit 1, the fourth block of 2×2 patches
        expected = [ROWS * COLUMNS // 4 + 3]
    else:
        poked[1, :, 2 * PATCH, 3 * PATCH] += 1  # picture 1, row 2, column 3
        expected = [25 + 2 * 5 + 3]
    with taps.watch({"keys"}) as after:
        run(setting, poked)
    changed = (tokens(setting, before["keys"]) != tokens(setting, after["keys"])).any(1)
    assert changed.nonzero().flatten().tolist() == expected


def test_threads_hear_only_what_they_asked_for(setting):
    taps = setting.taps()
    wanted = [("attention",), ("keys",), (), ("attention", "keys")]
    inputs = [setting.pixels + shift for shift in range(len(wanted))]
    together = Barrier(len(wanted))

    def listen(cues, pixels, wait):
        with torch.no_grad(), taps.watch(cues) as seen:
            wait()
            run(setting, pixels)
            wait()
        return seen

    tasks = list(zip(wanted, inputs, strict=True))
    alone = [listen(*task, lambda: None) for task in tasks]
    with ThreadPoolExecutor(len(tasks)) as pool:
        crowd = list(pool.map(lambda task: listen(*task, together.wait), tasks))
    for one, other in zip(alone, crowd, strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_masked_entries_receive_nothing():
    query, key = torch.randn(2, 1, HEADS, 5, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([True, True, False, True, True]).expand(1, 1, 5, 5)
    received = _taps._received(query, key, mask, 0.3)
    assert received[0, 2] == 0
    assert received.sum() == pytest.approx(1)
    torch.testing.assert_close(
        received, _taps._received(query, key, mask[:, :, :1], 0.3), rtol=0, atol=0
    )
    assert _taps._from_first(query, key, mask, 0.3)[0, 2] == 0


def test_half_precision_towers_give_full_precision_cues():
    tower, attentions, facts = siglip_with_head()
    random_weights(tower)
    taps = Taps(tower, attentions, **facts)
    with taps.watch(taps.offered) as full:
        tower(pictures())
    tower.bfloat16()
    with taps.watch(taps.offered) as half:
        tower(pictures().bfloat16())
    for name, cue in half.items():
        assert cue.dtype is torch.float32
        torch.testing.assert_close(cue, full[name], rtol=0.1, atol=0.1)


def test_offered_are_the_cues_that_can_be_had():
    always = {"attention", "attention_middle", "keys"}
    for make in TOWERS.values():
        tower, attentions, facts = make()
        taps = Taps(tower, attentions, **facts)
        summary = make in (siglip_with_head, clip_tower, internvit)
        assert taps.offered == always | ({"cls_attention"} if summary else set())
        with taps.watch({"frame_vector", "question"}) as seen:
            pass
        assert seen == {}


@pytest.mark.parametrize("layer", [DEPTH, -DEPTH - 1])
def test_a_layer_that_is_not_there_is_one_sentence(layer):
    tower, attentions, facts = internvit()
    with pytest.raises(ModelError, match=f"no layer {layer} .* choose one from 0 to {DEPTH - 1}"):
        Taps(tower, attentions, layer=layer, **facts)
    with pytest.raises(ModelError, match=f"no layer {layer}"):
        Taps(tower, attentions, middle=layer, **facts)


def test_a_tower_that_runs_another_kernel_is_one_sentence():
    tower, attentions, _ = smolvlm()
    tower.set_attn_implementation("eager")
    with pytest.raises(ModelError, match="runs eager attention; choose sdpa"):
        Taps(tower, attentions)
