from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamvlm.compressors.fastervlm import FasterVLM
from streamvlm.errors import ConfigError

CUES = FasterVLM.needs


def with_attention(tokens, attention):
    return replace(tokens, cues={"cls_attention": torch.as_tensor(attention)})


def test_a_case_computed_by_hand(clip):
    # 4 of 8: two of each step, wherever the clip's highest attention is, in place order.
    tokens = with_attention(clip((2, 1, 4)), [0.1, 0.4, 0.2, 0.3, 5.0, 7.0, 8.0, 6.0])
    assert FasterVLM(keep=0.5)(tokens).flat_index.tolist() == [1, 3, 5, 6]


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize("steps", [8, 9, 32, 33, 128])
def test_it_equals_the_published_algorithm_by_loops(clip, kind, steps):
    tokens = clip((steps, 4, 5), kind, cues=CUES)
    attention = tokens.cues["cls_attention"].view(steps, 20).tolist()
    expected = [
        step * 20 + place
        for step in range(steps)
        for place in sorted(sorted(range(20), key=lambda n: -attention[step][n])[:5])
    ]
    out = FasterVLM(keep=0.25)(tokens)
    assert out.flat_index.tolist() == expected
    assert torch.equal(out.features, tokens.features[expected])


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 33])
@pytest.mark.parametrize("keep", [0.01, 0.05, 0.1, 0.46, 0.8, 0.99])
def test_the_budget_is_met_exactly(clip, steps, keep):
    tokens = clip((steps, 5, 7), cues=CUES)
    out = FasterVLM(keep=keep)(tokens)
    assert len(out) == max(1, round(keep * len(tokens)))
    per_step = out.position[:, 0].bincount(minlength=steps)
    assert per_step.max() - per_step.min() <= 1


def test_equal_attention_goes_to_the_earlier_token(clip):
    tokens = with_attention(clip((3, 1, 6)), torch.ones(18))
    assert FasterVLM(keep=1 / 3)(tokens).flat_index.tolist() == [0, 1, 6, 7, 12, 13]


def test_what_a_step_keeps_does_not_depend_on_other_steps(clip):
    tokens = clip((9, 5, 7), cues=CUES)
    attention = tokens.cues["cls_attention"].clone()
    attention[: 4 * 35] = attention[: 4 * 35].flip(0) * 9
    out, other = (FasterVLM(keep=0.2)(t) for t in (tokens, with_attention(tokens, attention)))
    assert torch.equal(out.flat_index[out.position[:, 0] >= 4], other.flat_index[4 * 7 :])
    assert not torch.equal(out.flat_index, other.flat_index)


def test_golden_numbers(clip):
    out = FasterVLM(keep=0.1)(clip((3, 4, 5), "scenes", cues=CUES))
    assert out.flat_index.tolist() == [9, 14, 26, 31, 43, 57]


def test_a_missing_cue_is_named(clip):
    with pytest.raises(ConfigError, match="'cls_attention'"):
        FasterVLM()(clip(cues={"attention"}))
