from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamvlm.compressors import _kcentre
from streamvlm.compressors.divprune import DivPrune
from streamvlm.types import VisualTokens


def official_by_loops(tokens: VisualTokens, keep: float) -> list[int]:
    """The published algorithm in float64: all distances, the farthest from all chosen each time."""
    x = tokens.features.double()
    unit = x / x.norm(dim=1, keepdim=True)
    distance = 1 - unit @ unit.T
    to_others = distance + torch.eye(len(x)) * 9
    chosen = [int(to_others.min(1).values.argmax())]
    nearest = torch.full_like(distance[0], torch.inf)
    while len(chosen) < round(keep * len(x)):
        nearest = nearest.minimum(distance[chosen[-1]])
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return sorted(chosen)


def plain_greedy(unit: torch.Tensor, first: int, count: int) -> list[int]:
    """k-centre in the order of choice, with one running maximum and no shortcuts."""
    chosen, nearest = [first], unit @ unit[first]
    while len(chosen) < count:
        nearest[chosen] = torch.inf
        chosen.append(int(nearest.argmin()))
        nearest = nearest.maximum(unit @ unit[chosen[-1]])
    return chosen


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize("steps", [1, 8, 9, 32, 33, 128])
def test_official_equals_the_published_algorithm_by_loops(clip, kind, steps):
    tokens = clip((steps, 3, 4), kind)
    for keep in (0.1, 0.3):
        out = DivPrune(keep=keep, compat="official")(tokens)
        assert out.flat_index.tolist() == official_by_loops(tokens, keep)
        assert torch.equal(out.features, tokens.features[out.flat_index])


def turned(clip, degrees: list[float]) -> VisualTokens:
    """One step of unit vectors at these angles, of unequal lengths."""
    angle = torch.tensor(degrees).deg2rad()
    features = (
        torch.stack((angle.cos(), angle.sin()), 1) * (torch.arange(len(degrees)) + 1)[:, None]
    )
    return replace(clip((1, 1, len(degrees)), width=2), features=features)


def test_a_case_computed_by_hand(clip):
    tokens = turned(clip, [0, 10, 40, 90, 95])
    # The mean points to 46.6 degrees: 95 is the farthest from it. The farthest from 95 is 0; then
    # 40 (40 degrees from 0; 10 has 10, 90 has 5), then 10.
    for count, expected in ((1, [4]), (2, [0, 4]), (3, [0, 2, 4]), (4, [0, 1, 2, 4])):
        assert DivPrune(keep=count / 5)(tokens).flat_index.tolist() == expected
    # The nearest others are 10, 10, 30, 5 and 5 degrees away: officially 40 is first, then 95, 0.
    for count, expected in ((1, [2]), (2, [2, 4]), (3, [0, 2, 4])):
        official = DivPrune(keep=count / 5, compat="official")(tokens)
        assert official.flat_index.tolist() == expected


def test_golden(clip):
    tokens = clip((9, 5, 7), "scenes", seed=3)
    fixed = DivPrune(keep=0.03)(tokens).flat_index.tolist()
    assert fixed == [19, 104, 127, 132, 164, 198, 231, 290, 297]
    official = DivPrune(keep=0.03, compat="official")(tokens).flat_index.tolist()
    assert official == [11, 27, 69, 148, 168, 177, 179, 251, 277]


def large(kind: str) -> torch.Tensor:
    """(3000, 24) unit vectors, more than are looked at in a round."""
    dice = torch.Generator().manual_seed(7)
    points = torch.randn(3000, 24, generator=dice)
    if kind == "groups":
        points = points[torch.arange(3000) % 150] + 0.2 * torch.randn(3000, 24, generator=dice)
    if kind == "one side":
        points = points * torch.arange(1, 25).pow(-0.7) + 1
    return _kcentre.unit_vectors(points)


@pytest.mark.parametrize("kind", ["noise", "groups", "one side"])
@pytest.mark.parametrize("count", [1, 2, 300, 1200])
def test_many_rounds_choose_in_the_order_of_plain_greedy_choice(kind, count):
    unit = large(kind).double()
    first = _kcentre.farthest_from_mean(unit)
    found = _kcentre.farthest_first(unit, first, count).tolist()
    assert found == plain_greedy(unit, int(first), count)


@pytest.mark.parametrize("kind", ["noise", "groups", "one side"])
@pytest.mark.parametrize("frame", [1, 35, 4000])
def test_the_most_isolated_token_is_found_without_a_matrix(kind, frame):
    unit = large(kind)
    nearest = (unit @ unit.T).fill_diagonal_(-1).amax(1)
    assert int(_kcentre.most_isolated(unit, frame)) == int(nearest.argmin())


@pytest.mark.parametrize("compat", ["fixed", "official"])
@pytest.mark.parametrize("kind", ["noise", "scenes", "still", "constant"])
def test_the_budget_is_met_exactly(clip, compat, kind):
    for steps in (1, 2, 9, 33):
        tokens = clip((steps, 5, 7), kind)
        for keep in (0.02, 0.1, 0.46, 0.99):
            out = DivPrune(keep=keep, compat=compat)(tokens)
            assert len(out) == max(1, round(keep * len(tokens)))


def test_of_copies_the_first_are_kept(clip):
    one = clip((1, 5, 7))
    tokens = replace(clip((60, 5, 7)), features=one.features.repeat(60, 1))
    out = DivPrune(keep=70 / 2100)(tokens)
    # Each of the 35 once, wherever; then copies in index order.
    assert len(set((out.flat_index % 35).tolist())) == 35
    assert out.flat_index.tolist()[:36] == list(range(36))


def test_of_thousands_of_copies_of_two_the_first_are_kept(clip):
    copies = torch.eye(16)[(torch.arange(3000) >= 2500).long()]
    tokens = replace(clip((30, 10, 10)), features=copies)
    out = DivPrune(keep=0.3)(tokens)
    assert out.flat_index.tolist() == [*range(899), 2500]


@pytest.mark.parametrize("compat", ["fixed", "official"])
def test_zero_vectors_come_last(clip, compat):
    tokens = clip((9, 5, 7), "scenes")
    is_zero = torch.arange(len(tokens)) % 3 == 0
    tokens = replace(tokens, features=tokens.features.masked_fill(is_zero[:, None], 0))
    out = DivPrune(keep=0.5, compat=compat)(tokens)
    assert (out.flat_index % 3 != 0).all()
    more = DivPrune(keep=0.7, compat=compat)(tokens)
    assert more.features.norm(dim=1).eq(0).sum() == len(more) - 210


def test_lengths_and_positions_play_no_part(clip):
    tokens = clip((9, 5, 7), "scenes")
    shuffled = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(0))
    scaled = tokens.features[shuffled] * (torch.arange(len(tokens)) % 5 + 1)[:, None]
    out = DivPrune(keep=0.2)(replace(tokens, features=scaled))
    expected = DivPrune(keep=0.2)(tokens).flat_index
    assert torch.equal(shuffled[out.flat_index].sort().values, expected)


def test_half_precision_chooses_nearly_the_same_tokens(clip):
    full = DivPrune(keep=0.25)(clip((33, 6, 6), "scenes", width=64))
    half = DivPrune(keep=0.25)(clip((33, 6, 6), "scenes", width=64, dtype=torch.float16))
    assert torch.isin(full.flat_index, half.flat_index).float().mean() >= 0.97


def test_another_compat_is_refused():
    with pytest.raises(ValueError, match="compat"):
        DivPrune(compat="letter")
