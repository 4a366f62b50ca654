from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity

from streamvlm.compressors.aim import AIM
from streamvlm.errors import BadOption
from streamvlm.types import VisualTokens


def official_by_loops(tokens: VisualTokens) -> tuple[list[int], torch.Tensor]:
    """The published algorithm, one token at a time, in float64: indices and features."""
    steps, rows, columns = tokens.grid
    places = rows * columns
    x = tokens.features.double().view(steps, places, -1)
    result = {}
    for step in range(steps):
        left = [(step * places + place, x[step, place]) for place in range(places)]
        for removed in (places // 2, places // 4):
            left = one_round(left, removed)
        result |= dict(left)
    return sorted(result), torch.stack([result[index] for index in sorted(result)])


def one_round(left: list[tuple[int, torch.Tensor]], removed: int) -> list[tuple[int, torch.Tensor]]:
    """Unmerged evens, then odds, each the plain mean of itself and those that joined it."""
    evens, odds = left[0::2], left[1::2]
    heads = torch.stack([vector for _, vector in odds])
    similar = [cosine_similarity(vector[None], heads) for _, vector in evens]
    order = sorted(range(len(evens)), key=lambda i: -float(similar[i].max()))
    members = [[vector] for _, vector in odds]
    for i in order[:removed]:
        members[int(similar[i].argmax())].append(evens[i][1])
    merged = [torch.stack(joined).mean(0) for joined in members]
    names = [index for index, _ in odds]
    return [evens[i] for i in order[removed:]] + list(zip(names, merged, strict=True))


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize("steps", [8, 9, 32, 33, 128])
def test_official_equals_the_published_algorithm_by_loops(clip, kind, steps):
    tokens = clip((steps, 4, 6), kind)
    indices, features = official_by_loops(tokens)
    out = AIM(compat="official")(tokens)
    assert out.flat_index.tolist() == indices
    torch.testing.assert_close(out.features.double(), features, atol=1e-5, rtol=0)
    assert out.weight.sum() == len(tokens)


def angles(clip, *degrees: float) -> VisualTokens:
    """One row of unit vectors at these angles, which are their deepstack too."""
    angle = torch.tensor(degrees)
    tokens = clip((1, 1, len(degrees)), width=2)
    features = torch.stack([angle.deg2rad().cos(), angle.deg2rad().sin()], 1)
    return replace(tokens, features=features, deepstack=angle[:, None, None])


def read(out: VisualTokens) -> list[float]:
    assert out.deepstack is not None
    return [round(mean, 4) for mean in out.deepstack.flatten().tolist()]


def test_a_round_computed_by_hand(clip):
    # Evens at 0°, 2°, 90°, 50°, odds at 1°, 3.5°, 85°, 20°: the nearest are 1° apart (to 1°),
    # 1° (to 1°), 5° (to 85°) and 30° (to 20°). Three are removed: all but the last.
    row = angles(clip, 0, 1, 2, 3.5, 90, 85, 50, 20)
    out = AIM(keep=5 / 8)(row)
    assert out.flat_index.tolist() == [1, 3, 5, 6, 7]
    assert read(out) == [1, 3.5, 87.5, 50, 20]
    assert out.weight.tolist() == [3, 1, 2, 1, 1]


def two_rounds(clip) -> VisualTokens:
    # Round 1: evens 0°, 2°, 41°, 80° join odds 1°, 1°, 40°, 70°. Left are 1° (of 3), 40.5° (2),
    # 75° (2) and 30°, which nobody joined. Round 2: evens 1° and 75°, odds 40.5° and 30°; of the
    # pairs 1°–30° and 75°–40.5° the first is 29° apart, the second 34.5°.
    return angles(clip, 0, 1, 2, 40, 41, 70, 80, 30)


def test_a_second_round_weighs_what_the_first_one_merged(clip):
    tokens = two_rounds(clip)
    first = AIM(keep=4 / 8)(tokens)
    assert read(first) == [1, 40.5, 75, 30]
    assert first.weight.tolist() == [3, 2, 2, 1]
    second = AIM(keep=3 / 8)(tokens)
    assert second.flat_index.tolist() == [3, 5, 7]
    assert read(second) == [40.5, 75, (3 * 1 + 30) / 4]
    assert second.weight.tolist() == [2, 2, 4]


def test_the_official_second_round_does_not_weigh(clip):
    tokens = two_rounds(clip)
    fixed, official = AIM()(tokens), AIM(compat="official")(tokens)
    assert fixed.flat_index.tolist() == official.flat_index.tolist() == [3, 7]
    assert read(fixed) == [(40.5 + 75) / 2, (3 * 1 + 30) / 4]
    assert read(official) == [(40.5 + 75) / 2, (1 + 30) / 2]
    assert fixed.weight.tolist() == official.weight.tolist() == [4, 4]


@pytest.mark.parametrize("kind", ["noise", "scenes", "still"])
def test_fixed_equals_official_in_one_round_and_in_the_choice_of_the_second(clip, kind):
    tokens = clip((9, 6, 6), kind)
    fixed, official = AIM()(tokens), AIM(compat="official")(tokens)
    assert torch.equal(fixed.position, official.position)
    assert torch.equal(fixed.weight, official.weight)
    assert (fixed.features - official.features).abs().max() > 0.01


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 33])
@pytest.mark.parametrize("keep", [0.01, 0.05, 0.1, 0.25, 0.46, 0.5, 0.8, 0.99])
@pytest.mark.parametrize("kind", ["scenes", "constant"])
def test_the_budget_is_met_exactly(clip, steps, keep, kind):
    tokens = clip((steps, 5, 7), kind)
    out = AIM(keep=keep)(tokens)
    assert len(out) == max(1, round(keep * len(tokens)))


@pytest.mark.parametrize("keep", [0.05, 0.1, 0.25, 0.4, 0.9])
def test_nothing_is_dropped_where_each_step_has_a_token(clip, keep):
    tokens = clip((9, 5, 7), "scenes")
    tokens = replace(tokens, weight=torch.arange(len(tokens)) % 3 + 1.0)
    out = AIM(keep=keep)(tokens)
    assert torch.equal(per_step(out), per_step(tokens))
    total = tokens.weight @ tokens.features
    torch.testing.assert_close(out.weight @ out.features, total, atol=1e-3, rtol=1e-4)


def per_step(tokens: VisualTokens) -> torch.Tensor:
    return torch.zeros(tokens.grid[0]).index_add(0, tokens.position[:, 0], tokens.weight)


def test_a_step_whose_share_is_below_one_token_is_dropped(clip):
    tokens = clip((8, 5, 7))
    out = AIM(keep=5 / 280)(tokens)
    assert out.weight.tolist() == [35] * 5
    assert len(out.position[:, 0].unique()) == 5


def test_half_of_a_frame_leaves_all_odd_tokens(clip):
    out = AIM(keep=0.5)(clip((4, 4, 6)))
    assert (out.flat_index % 24 % 2 == 1).all()


def test_equally_alike_pairs_are_merged_from_the_first_on(clip):
    out = AIM(keep=4 / 6)(clip((1, 1, 6), "constant"))
    assert out.flat_index.tolist() == [1, 3, 4, 5]
    assert out.weight.tolist() == [3, 1, 1, 1]


@pytest.mark.parametrize("keep", [0.05, 0.8])
def test_half_precision_is_rounded_once_only(clip, keep):
    half = clip((33, 5, 7), dtype=torch.bfloat16)
    full = replace(half, features=half.features.float())
    expected, out = AIM(keep=keep)(full), AIM(keep=keep)(half)
    assert torch.equal(out.position, expected.position)
    assert torch.equal(out.features, expected.features.bfloat16())


def test_golden_numbers(clip):
    out = AIM(keep=0.2)(clip((2, 3, 5), "scenes", width=2))
    assert out.flat_index.tolist() == [7, 11, 13, 18, 22, 28]
    assert out.weight.tolist() == [3, 5, 7, 5, 3, 7]
    merged = torch.tensor([[1.1833, -0.156], [0.3509, 1.0783], [-0.3064, -1.3776]])
    torch.testing.assert_close(out.features[:3], merged, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("grid", "keep", "reason"),
    [
        ((8, 6, 6), 0.5, "a keep of 0.25"),
        ((8, 5, 7), 0.25, "a multiple of four tokens in a step"),
    ],
)
def test_official_is_refused_where_it_cannot_meet_the_budget(clip, grid, keep, reason):
    with pytest.raises(BadOption, match=reason):
        AIM(keep=keep, compat="official")(clip(grid))


def test_official_is_refused_for_compressed_tokens(clip):
    with pytest.raises(BadOption, match="dense tokens"):
        AIM(compat="official")(clip((8, 6, 6)).select(torch.arange(200)))


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="compat"):
        AIM(compat="letter")
