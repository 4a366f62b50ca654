from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamvlm.compressors import _kcentre
from streamvlm.compressors.todre import ToDRE


def by_loops(features: torch.Tensor, count: int) -> list[int]:
    """The order of choice in float64, from a matrix of all distances."""
    x = features.double()
    unit = x / x.norm(dim=1, keepdim=True)
    distance = 1 - unit @ unit.T
    chosen = [int(distance.sum(1).argmax())]
    total = torch.zeros_like(distance[0])
    while len(chosen) < count:
        total += distance[chosen[-1]]
        total[chosen] = -torch.inf
        chosen.append(int(total.argmax()))
    return chosen


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize("steps", [1, 8, 9, 32, 33, 128])
def test_it_equals_the_algorithm_by_loops(clip, kind, steps):
    tokens = clip((steps, 3, 4), kind)
    for keep in (0.1, 0.3):
        out = ToDRE(keep=keep)(tokens)
        assert out.flat_index.tolist() == sorted(by_loops(tokens.features, len(out)))
        assert torch.equal(out.features, tokens.features[out.flat_index])


def test_a_case_computed_by_hand(clip):
    angle = torch.tensor([0.0, 10, 40, 90, 95]).deg2rad()
    features = torch.stack((angle.cos(), angle.sin()), 1) * torch.arange(1.0, 6)[:, None]
    tokens = replace(clip((1, 1, 5), width=2), features=features)
    # The mean points to 46.6 degrees: 95 is the farthest from it, and 0 the farthest from 95. Their
    # sum points to 47.5: the farthest from there is 90, though it is nearly a copy of 95; then 10.
    for count, expected in ((1, [4]), (2, [0, 4]), (3, [0, 3, 4]), (4, [0, 1, 3, 4])):
        assert ToDRE(keep=count / 5)(tokens).flat_index.tolist() == expected


def test_golden(clip):
    tokens = clip((9, 5, 7), "scenes", seed=3)
    assert ToDRE(keep=0.03)(tokens).flat_index.tolist() == [
        52,
        70,
        104,
        171,
        222,
        243,
        274,
        290,
        297,
    ]


@pytest.mark.parametrize("kind", ["noise", "groups", "one side", "far side"])
@pytest.mark.parametrize("count", [1, 2, 300, 900])
def test_many_rounds_choose_in_the_order_of_plain_greedy_choice(kind, count):
    dice = torch.Generator().manual_seed(7)
    points = torch.randn(3000, 24, generator=dice)
    if kind == "groups":
        points = points[torch.arange(3000) % 150] + 0.2 * torch.randn(3000, 24, generator=dice)
    if "side" in kind:
        points = points * torch.arange(1, 25).pow(-0.7) + (1 if kind == "one side" else 5)
    unit = _kcentre.unit_vectors(points.double())
    first = _kcentre.farthest_from_mean(unit)
    found = _kcentre.largest_sum(unit, first, count).tolist()
    assert found == by_loops(points, count)


@pytest.mark.parametrize("kind", ["noise", "scenes", "still", "constant"])
def test_the_budget_is_met_exactly(clip, kind):
    for steps in (1, 2, 9, 33):
        tokens = clip((steps, 5, 7), kind)
        for keep in (0.02, 0.1, 0.46, 0.99):
            assert len(ToDRE(keep=keep)(tokens)) == max(1, round(keep * len(tokens)))


def test_zero_vectors_come_last(clip):
    tokens = clip((9, 5, 7), "scenes")
    is_zero = torch.arange(len(tokens)) % 3 == 0
    tokens = replace(tokens, features=tokens.features.masked_fill(is_zero[:, None], 0))
    assert (ToDRE(keep=0.5)(tokens).flat_index % 3 != 0).all()
    more = ToDRE(keep=0.7)(tokens).flat_index
    assert len(more) == round(0.7 * 315)
    assert more[more % 3 == 0].tolist() == list(range(0, 3 * (len(more) - 210), 3))


def test_of_equal_sums_the_lower_index_is_kept(clip):
    # Axis vectors: as long as an axis is left, all that are left are equally far.
    axes = torch.eye(16).repeat(3, 1)
    tokens = replace(clip((3, 4, 4)), features=axes)
    assert ToDRE(keep=5 / 48)(tokens).flat_index.tolist() == [0, 1, 2, 3, 4]
    assert ToDRE(keep=20 / 48)(tokens).flat_index.tolist() == list(range(20))
