from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from streamvlm.compressors.vidcom2 import VidCom2
from streamvlm.errors import BadOption
from streamvlm.types import VisualTokens


def near(x: torch.Tensor, c: torch.Tensor) -> float:
    square = float((x - c).square().sum())
    return sum(math.exp(-square / (2 * alpha)) for alpha in (1 / 8, 1 / 4, 1 / 2, 1, 2))


def official_by_loops(tokens: VisualTokens, keep: float) -> list[int]:
    """The published algorithm, one token at a time, in float64."""
    steps, rows, columns = tokens.grid
    places = rows * columns
    x = tokens.features.double()
    variance = x.var(0).tolist()
    quiet = sorted(range(len(variance)), key=lambda c: variance[c])[: len(variance) // 2]
    x = torch.stack([row[quiet] / row[quiet].norm() for row in x]).view(steps, places, -1)
    clip_mean = x.mean((0, 1))
    v = [[near(x[t, n], clip_mean) for n in range(places)] for t in range(steps)]
    f = [[near(x[t, n], x[t].mean(0)) for n in range(places)] for t in range(steps)]
    u = [-sum(row) / places for row in v]
    p = [math.exp((one - max(u)) / 0.01) for one in u]
    p = [one / sum(p) for one in p]
    kept = []
    for t in range(steps):
        ratio = min(1, keep * (1 + p[t] - sum(p) / steps))
        best = sorted(range(places), key=lambda n: v[t][n] + f[t][n])[: round(ratio * places)]
        kept += [t * places + n for n in sorted(best)]
    return kept


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize(
    ("steps", "keep"), [(8, 0.25), (9, 0.1), (32, 0.25), (33, 0.6), (128, 0.25), (1, 0.25)]
)
def test_official_equals_the_published_algorithm_by_loops(clip, kind, steps, keep):
    tokens = clip((steps, 5, 7), kind)
    out = VidCom2(keep=keep, compat="official")(tokens)
    assert out.flat_index.tolist() == official_by_loops(tokens, keep)


def test_fixed_equals_official_where_no_share_is_rounded(clip):
    # Steps that are all alike weigh the same: 7 of 35 each.
    tokens = clip((8, 5, 7))
    tokens = replace(tokens, features=tokens.features[:35].repeat(8, 1))
    fixed, official = (VidCom2(keep=0.2, compat=c)(tokens) for c in ("fixed", "official"))
    assert torch.equal(fixed.position, official.position)
    assert len(fixed) == 56


@pytest.mark.parametrize("kind", ["noise", "scenes", "still", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 9, 33])
def test_the_budget_is_met_exactly(clip, kind, steps):
    dense = clip((steps, 5, 7), kind)
    for tokens in (dense, dense.select(dense.flat_index % 3 != 1)):
        for keep in (0.02, 0.25, 0.7, 0.95):
            assert len(VidCom2(keep=keep)(tokens)) == max(1, round(keep * len(tokens)))


def tiny(clip) -> VisualTokens:
    """Two steps of two places; two of four channels are loud and say nothing."""
    quiet = torch.tensor([[1.0, 0], [1, 0], [1, 0], [0, 1]])
    loud = torch.tensor([[90.0, -90], [-90, 90], [90, 90], [-90, -90]])
    return replace(clip((2, 1, 2), width=4), features=torch.cat((quiet, loud), 1))


def test_a_case_computed_by_hand(clip):
    # The clip's mean is (.75, .25): three tokens at d² = .125 are typical by 4.176, the last one at
    # 1.125 by 1.766. u = −4.18, −2.97, so p = (0, 1): claims 0.5 and 1.5 for each token. Of three
    # the second step takes 2 (2.25 is more than it has), the first one its lower place.
    assert VidCom2(keep=0.25)(tiny(clip)).flat_index.tolist() == [3]
    assert VidCom2(keep=0.75)(tiny(clip)).flat_index.tolist() == [0, 2, 3]


def test_golden(clip):
    out = VidCom2(keep=0.1)(clip((9, 3, 4), "scenes", seed=3))
    assert out.flat_index.tolist() == [8, 15, 20, 28, 33, 36, 56, 63, 74, 86, 102]


def test_loud_channels_are_not_looked_at(clip):
    tokens = clip((9, 5, 7), "scenes")
    features = torch.cat((tokens.features, 50 * clip((9, 5, 7), seed=4).features), 1)
    other = torch.cat((tokens.features, 50 * clip((9, 5, 7), seed=5).features), 1)
    one, two = (VidCom2()(replace(tokens, features=each)) for each in (features, other))
    assert torch.equal(one.position, two.position)


def test_an_unusual_step_keeps_up_to_twice_as_much(clip):
    tokens = clip((16, 5, 8))
    features = tokens.features[:40].repeat(16, 1) + 4
    features[9 * 40 : 10 * 40] *= -1
    kept = VidCom2(keep=0.25)(replace(tokens, features=features)).position[:, 0].bincount()
    # Claims are 1 + 1 − 1/16 for that step and 1 − 1/16 for the others: 160 · 1.9375 / 16 = 19.4.
    assert kept[9] in (19, 20)
    assert kept[:9].sum() + kept[10:].sum() == 160 - kept[9]
    assert set(kept[torch.arange(16) != 9].tolist()) <= {9, 10}


def test_merged_tokens_count_by_their_weight(clip):
    quiet, loud = torch.tensor([1.0, 1, 1, -1]), torch.tensor([9.0, -9, 9, -9])
    tokens = replace(clip((1, 1, 4), width=2), features=torch.stack((quiet, loud), 1))
    assert VidCom2()(tokens).flat_index.tolist() == [3]
    heavy = replace(tokens, weight=torch.tensor([1.0, 1, 1, 9]))
    assert VidCom2()(heavy).flat_index.tolist() == [0]


def test_equally_typical_tokens_go_to_the_lower_place(clip):
    tokens = replace(clip((1, 1, 8), width=1), features=torch.tensor([[1.0], [-1]] * 4))
    assert VidCom2(keep=0.5)(tokens).flat_index.tolist() == [0, 1, 2, 3]


def test_official_is_refused_for_compressed_tokens_and_where_none_is_left(clip):
    with pytest.raises(BadOption, match="dense tokens"):
        VidCom2(compat="official")(clip().select(torch.arange(100)))
    with pytest.raises(BadOption, match="keeps none of 35 tokens"):
        VidCom2(keep=0.005, compat="official")(clip())


def test_half_precision_chooses_nearly_the_same_tokens(clip):
    full = VidCom2()(clip((33, 6, 6), "scenes", width=64))
    half = VidCom2()(clip((33, 6, 6), "scenes", width=64, dtype=torch.float16))
    assert torch.isin(full.flat_index, half.flat_index).float().mean() >= 0.99


def test_a_compat_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match="compat"):
        VidCom2(compat="letter")
