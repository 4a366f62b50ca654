from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from streamvlm.compressors.stc import STC
from streamvlm.types import VisualTokens

MEMORY = ("stc_channels", "stc_mean", "stc_steps")


def near(x: torch.Tensor, c: torch.Tensor) -> float:
    square = float((x - c).square().sum())
    return sum(math.exp(-square / (2 * alpha)) for alpha in (1 / 8, 1 / 4, 1 / 2, 1, 2))


def by_loops(tokens: VisualTokens, keep: float) -> list[int]:
    """The pruner with its channels fixed once, one token at a time, in float64."""
    steps, rows, columns = tokens.grid
    places = rows * columns
    x = tokens.features.double()
    variance = x[:places].var(0).tolist()
    quiet = sorted(range(len(variance)), key=lambda c: variance[c])[: len(variance) // 2]
    x = torch.stack([row[quiet] / row[quiet].norm() for row in x]).view(steps, places, -1)
    kept = []
    for t in range(steps):
        past = torch.stack([x[u].mean(0) for u in range(max(1, t))]).mean(0)
        score = [near(x[t, n], past) + near(x[t, n], x[t].mean(0)) for n in range(places)]
        many = round(keep * places * (t + 1)) - round(keep * places * t)
        kept += sorted(t * places + n for n in sorted(range(places), key=lambda n: score[n])[:many])
    return kept


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize(("steps", "keep"), [(8, 0.3), (9, 0.1), (32, 0.25), (33, 0.6), (128, 0.3)])
def test_it_equals_the_algorithm_by_loops(clip, kind, steps, keep):
    tokens = clip((steps, 5, 7), kind)
    assert STC(keep=keep)(tokens).flat_index.tolist() == by_loops(tokens, keep)


def tiny(clip, quiet: list[list[float]], loud: float = 90) -> VisualTokens:
    """Steps of three places; two of four channels are loud and say nothing."""
    wide = torch.tensor([[loud, -loud], [-loud, loud], [loud, loud]]).repeat(len(quiet) // 3, 1)
    features = torch.cat((torch.tensor(quiet), wide), 1)
    return replace(clip((len(quiet) // 3, 1, 3), width=4), features=features)


EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def test_a_case_computed_by_hand(clip):
    # One of three is kept. Step 0 (mean (⅔, ⅓)) keeps the odd one, NORTH. In step 1 the mean is
    # (0, ⅔) and the past (⅔, ⅓): d² are EAST 1.44 and 0.22, NORTH 0.11 and 0.89, WEST 1.44 and
    # 2.89: WEST. In step 2 the past is (⅓, ½) and the mean (⅓, ⅔): d² of EAST are 0.69 and 0.89,
    # of NORTH 0.36 and 0.22: EAST, the only one.
    steps = [[EAST, NORTH, EAST], [WEST, EAST, [0.0, 1.0]], [NORTH, EAST, NORTH]]
    tokens = tiny(clip, [token for step in steps for token in step])
    assert STC(keep=1 / 3)(tokens).flat_index.tolist() == [1, 3, 7]


def test_golden(clip):
    out = STC(keep=0.1)(clip((9, 3, 4), "scenes", seed=3))
    assert out.flat_index.tolist() == [8, 20, 28, 33, 36, 56, 71, 74, 86, 91, 98]
    assert out.frame_cues["stc_channels"][0, :4].tolist() == [0, 2, 3, 8]
    expected = torch.tensor([-0.092773, -0.061371, -0.078680, 0.015009])
    torch.testing.assert_close(out.frame_cues["stc_mean"][0, :4], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cut", [1, 2, 7, 20])
def test_nothing_depends_on_what_comes_after(clip, cut):
    tokens = clip((33, 5, 7), "scenes")
    whole = STC(keep=0.3)(tokens)
    short = STC(keep=0.3)(replace(tokens.select(torch.arange(cut * 35)), grid=(cut, 5, 7)))
    assert short.flat_index.tolist() == whole.flat_index[whole.position[:, 0] < cut].tolist()


def halves(tokens: VisualTokens, cut: int) -> tuple[VisualTokens, VisualTokens]:
    """The same steps as two clips."""
    steps, rows, columns = tokens.grid
    is_first = tokens.position[:, 0] < cut
    second = tokens.select(~is_first)
    moved = second.position - torch.tensor([cut, 0, 0])
    return (
        replace(tokens.select(is_first), grid=(cut, rows, columns)),
        replace(second, grid=(steps - cut, rows, columns), position=moved),
    )


def test_two_clips_give_the_choice_of_one_long_clip(clip):
    tokens = clip((18, 5, 8), "scenes")  # 10 of the 40 in each step: no budget is rounded
    compress = STC(keep=0.25)
    whole = compress(tokens)
    first, second = halves(tokens, 7)
    one = compress(first)
    two = compress(second, one)
    assert whole.flat_index.tolist() == [*one.flat_index.tolist(), *(two.flat_index + 280).tolist()]
    assert two.flat_index.tolist() != compress(second).flat_index.tolist()
    for name in MEMORY:
        torch.testing.assert_close(two.frame_cues[name][-1], whole.frame_cues[name][-1])


def test_channels_are_fixed_by_the_first_step_of_the_stream(clip):
    tokens = clip((6, 5, 8), width=4)
    scale = torch.ones(6, 4)
    scale[0, :2] = 0.1
    scale[1:, 2:] = 0.1
    loud_then_quiet = tokens.features.view(6, 40, 4) * scale[:, None]
    tokens = replace(tokens, features=loud_then_quiet.view(-1, 4))
    first, second = halves(tokens, 3)
    one = STC()(first)
    assert STC()(second, one).frame_cues["stc_channels"][-1].tolist() == [0, 1]
    assert STC()(second).frame_cues["stc_channels"][-1].tolist() == [2, 3]


def test_without_a_memory_that_fits_a_clip_starts_anew(clip):
    first, second = halves(clip((12, 5, 7), "scenes"), 6)
    compress = STC()
    fresh, one = compress(second), compress(first)
    without_steps = compress(clip((0, 5, 7)), one)
    for strange in (one.without_cues(), replace(one, model="another"), without_steps):
        out = compress(second, strange)
        assert torch.equal(out.position, fresh.position)
        assert torch.equal(out.frame_cues["stc_mean"], fresh.frame_cues["stc_mean"])


def test_what_is_remembered_does_not_grow_with_the_stream(clip):
    sizes, previous = [], None
    for seed in range(4):
        previous = STC()(clip((5, 5, 7), seed=seed), previous)
        sizes.append({name: tuple(previous.frame_cues[name].shape) for name in MEMORY})
    assert sizes == [{"stc_channels": (5, 8), "stc_mean": (5, 8), "stc_steps": (5,)}] * 4
    assert previous.frame_cues["stc_steps"].tolist() == [20] * 5
    assert len(previous.frame_cues["stc_mean"].unique(dim=0)) == 1


def test_a_clip_without_tokens_hands_the_memory_on(clip):
    one = STC()(clip((5, 5, 7)))
    nothing = clip((3, 5, 7)).select(torch.zeros(105, dtype=torch.bool))
    out = STC()(nothing, one)
    assert len(out) == 0
    for name in MEMORY:
        assert torch.equal(out.frame_cues[name][-1], one.frame_cues[name][-1])
    assert STC()(nothing).frame_cues == {}


def test_a_second_pass_hands_on_the_memory_of_the_first(clip):
    once = STC(keep=0.5)(clip((9, 5, 7)))
    twice = STC(keep=0.5)(once)
    assert len(twice) < len(once)
    for name in MEMORY:
        assert torch.equal(twice.frame_cues[name], once.frame_cues[name])


def test_other_frame_cues_are_left_alone(clip):
    tokens = clip(cues={"frame_vector"})
    out = STC()(tokens)
    assert out.frame_cues.keys() == {"frame_vector", *MEMORY}
    assert torch.equal(out.frame_cues["frame_vector"], tokens.frame_cues["frame_vector"])


@pytest.mark.parametrize("kind", ["noise", "still", "constant"])
@pytest.mark.parametrize("steps", [1, 2, 9, 33])
def test_the_budget_is_met_exactly(clip, kind, steps):
    dense = clip((steps, 5, 7), kind)
    for tokens in (dense, dense.select(dense.flat_index % 3 != 1)):
        for keep in (0.005, 0.02, 0.25, 0.7, 0.99):
            assert len(STC(keep=keep)(tokens)) == max(1, round(keep * len(tokens)))


def test_steps_of_equal_size_keep_equal_numbers_to_within_one(clip):
    for keep in (0.02, 0.3, 0.77):
        kept = STC(keep=keep)(clip((33, 5, 7))).position[:, 0].bincount(minlength=33)
        assert kept.max() - kept.min() <= 1


def test_merged_tokens_count_by_their_weight(clip):
    tokens = tiny(clip, [EAST, EAST, WEST])
    assert STC(keep=1 / 3)(tokens).flat_index.tolist() == [2]
    heavy = replace(tokens, weight=torch.tensor([1.0, 1, 9]))
    assert STC(keep=1 / 3)(heavy).flat_index.tolist() == [0]


def test_half_precision_chooses_nearly_the_same_tokens(clip):
    full = STC()(clip((33, 6, 6), "scenes", width=64))
    half = STC()(clip((33, 6, 6), "scenes", width=64, dtype=torch.float16))
    assert torch.isin(full.flat_index, half.flat_index).float().mean() >= 0.99
    assert half.frame_cues["stc_mean"].dtype == torch.float32
