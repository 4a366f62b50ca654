from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity

from streamvlm.compressors.framefusion import FrameFusion
from streamvlm.errors import BadOption
from streamvlm.types import VisualTokens


def official_by_loops(tokens: VisualTokens, method: FrameFusion) -> tuple[list[int], torch.Tensor]:
    """The published merge pass, one token at a time, in float64: indices and features."""
    _, rows, columns = tokens.grid
    places = rows * columns
    x = tokens.features.double()
    similar = {
        i: float(cosine_similarity(x[i], x[i - places], dim=0)) for i in range(places, len(x))
    }
    merge = {i for i in similar if similar[i] >= method.threshold}
    cap = 1 - method.keep
    if len(merge) / len(x) >= cap:
        merge = set(sorted(similar, key=lambda i: -similar[i])[: int(cap * len(x))])
    runs: dict[int, list[int]] = {}
    head = {}
    for i in range(len(x)):
        head[i] = head[i - places] if i in merge else i
        runs.setdefault(head[i], []).append(i)
    return sorted(runs), torch.stack([x[runs[i]].mean(0) for i in sorted(runs)])


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize("steps", [8, 9, 32, 33, 128])
@pytest.mark.parametrize(("keep", "threshold"), [(0.3, 0.6), (0.1, 0.2), (0.7, 0.2)])
def test_official_equals_the_published_pass_by_loops(clip, kind, steps, keep, threshold):
    tokens = clip((steps, 5, 7), kind)
    method = FrameFusion(keep=keep, threshold=threshold, compat="official")
    indices, features = official_by_loops(tokens, method)
    out = method(tokens)
    assert out.flat_index.tolist() == indices
    torch.testing.assert_close(out.features.double(), features, atol=1e-5, rtol=0)


def test_official_meets_its_cap_where_enough_tokens_are_alike_and_else_keeps_more(clip):
    method = FrameFusion(keep=0.3, compat="official")
    assert len(method(clip((16, 5, 8), "still"))) == 640 - int(0.7 * 640)
    assert len(method(clip((16, 5, 8), "noise"))) > 0.9 * 640


def test_official_is_refused_for_compressed_tokens(clip):
    with pytest.raises(BadOption, match="dense tokens"):
        FrameFusion(compat="official")(clip().select(torch.arange(100)))


def turned(degrees: list[list[float]]) -> torch.Tensor:
    """(T·places, 2) unit vectors at these angles."""
    angles = torch.tensor(degrees).flatten() * math.pi / 180
    return torch.stack((angles.cos(), angles.sin()), 1)


def drifting(clip, steps: int, by: float) -> VisualTokens:
    """One place that turns by so many degrees a step."""
    degrees = [[step * by] for step in range(steps)]
    return replace(clip((steps, 1, 1), width=2), features=turned(degrees))


def test_a_case_computed_by_hand(clip):
    # cos 53° = 0.602 joins, cos 54° = 0.588 does not. Place 0: 0, 20, 40 form a run, 80 is too far
    # from its first (though near 40) and 90 joins 80. Place 1 jumps at once, then stands still.
    degrees = [[0, 0], [20, 54], [40, 54], [80, 54], [90, 54]]
    tokens = replace(clip((5, 1, 2), width=2), features=turned(degrees))
    out = FrameFusion(keep=0.4)(tokens)
    assert out.flat_index.tolist() == [0, 1, 3, 6]
    assert out.weight.tolist() == [3, 1, 4, 2]
    x = tokens.features
    expected = [x[[0, 2, 4]].mean(0), x[1], x[[3, 5, 7, 9]].mean(0), x[[6, 8]].mean(0)]
    torch.testing.assert_close(out.features, torch.stack(expected))


def test_golden(clip):
    out = FrameFusion(keep=0.25)(clip((9, 3, 4), "scenes", seed=3))
    assert out.flat_index.tolist() == [*range(12), 26, *range(72, 84)]
    assert out.weight.tolist() == [6, 6, 2, *[6] * 9, 4, *[3] * 12]
    expected = torch.tensor([-0.076279, 0.377195, -0.662601, -0.085674])
    torch.testing.assert_close(out.features[:4, 0], expected, atol=1e-5, rtol=0)


def test_the_anchor_ends_a_slow_drift_that_the_chain_alone_merges_for_ever(clip):
    tokens = drifting(clip, 36, by=10)
    assert FrameFusion(keep=0.9, anchor=-1)(tokens).weight.tolist() == [36]
    # cos 50° is 0.64, cos 60° is 0.5: each run spans six steps.
    assert FrameFusion(keep=0.9, anchor=0.6)(tokens).weight.tolist() == [6] * 6


def test_the_chain_ends_at_a_jump_that_the_anchor_alone_would_allow(clip):
    tokens = replace(clip((3, 1, 1), width=2), features=turned([[0], [40], [-40]]))
    assert FrameFusion(keep=0.7)(tokens).weight.tolist() == [2, 1]
    assert FrameFusion(keep=0.7, threshold=-1)(tokens).weight.tolist() == [3]


def test_a_still_clip_takes_less_than_the_budget(clip):
    out = FrameFusion(keep=0.5)(clip((16, 5, 7), "still"))
    assert out.flat_index.tolist() == list(range(35))
    assert out.weight.tolist() == [16] * 35


@pytest.mark.parametrize("steps", [2, 9, 33])
@pytest.mark.parametrize("keep", [0.02, 0.25, 0.7])
def test_where_nothing_is_alike_the_budget_is_met(clip, steps, keep):
    tokens = clip((steps, 5, 7), width=64)
    assert len(FrameFusion(keep=keep)(tokens)) == round(keep * len(tokens))


def test_nothing_is_lost_unless_runs_are_dropped(clip):
    tokens = clip((12, 5, 7), "scenes")
    tokens = replace(tokens, weight=torch.arange(len(tokens)) % 3 + 1.0)
    out = FrameFusion(keep=0.5)(tokens)
    assert out.weight.sum() == tokens.weight.sum()
    total = tokens.weight @ tokens.features
    torch.testing.assert_close(out.weight @ out.features, total, atol=1e-2, rtol=1e-4)


def test_the_least_novel_runs_are_dropped_first(clip):
    # Each place shows two things: turned by 60, 90, 70 and 180 degrees.
    degrees = [[0, 0, 0, 0], [60, 90, 70, 180], [60, 90, 70, 180]]
    tokens = replace(clip((3, 1, 4), width=2), features=turned(degrees))
    out = FrameFusion(keep=0.5)(tokens)
    assert out.flat_index.tolist() == [0, 1, 2, 3, 5, 7]
    assert out.weight.tolist() == [1, 1, 1, 1, 2, 2]


def test_novelty_is_that_against_the_run_before_as_well(clip):
    # Place 0 drifts away from its first token, place 1 jumps a little less far than that.
    degrees = [[0, 0], [40, 0], [80, 70]]
    tokens = replace(clip((3, 1, 2), width=2), features=turned(degrees))
    assert FrameFusion(keep=0.5)(tokens).flat_index.tolist() == [0, 1, 4]


def test_less_than_a_frame_is_spread_over_the_first_tokens_of_the_places(clip):
    out = FrameFusion(keep=3 / 48)(clip((4, 3, 4), "still"))
    assert out.flat_index.tolist() == [2, 6, 10]
    assert out.weight.tolist() == [4, 4, 4]


@pytest.mark.parametrize("cut", [1, 5, 8, 20])
def test_merging_does_not_depend_on_what_comes_after(clip, cut):
    tokens = clip((33, 5, 7), "scenes")
    tokens = replace(tokens, deepstack=torch.eye(len(tokens))[:, None])
    short = replace(tokens.select(torch.arange(cut * 35)), grid=(cut, 5, 7))
    # With the identity as content the run of every token can be read off.
    whole, begun = (FrameFusion(keep=0.99)(each).deepstack[:, 0] > 0 for each in (tokens, short))
    early = whole[whole[:, : cut * 35].any(1)][:, : cut * 35]
    assert torch.equal(early, begun[:, : cut * 35])


def test_after_another_compressor_a_place_goes_on_from_its_last_token(clip):
    tokens = drifting(clip, 4, by=0)
    left = replace(tokens.select(torch.tensor([0, 3])), weight=torch.tensor([1.0, 3]))
    assert FrameFusion(keep=0.5)(left).weight.tolist() == [4]


def test_half_precision_chooses_nearly_the_same_tokens(clip):
    full = FrameFusion()(clip((33, 6, 6), "scenes", width=64))
    half = FrameFusion()(clip((33, 6, 6), "scenes", width=64, dtype=torch.float16))
    assert torch.isin(full.flat_index, half.flat_index).float().mean() >= 0.99


@pytest.mark.parametrize("options", [{"threshold": 1.1}, {"anchor": -2}, {"compat": "letter"}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        FrameFusion(**options)
