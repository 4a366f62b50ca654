from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamvlm.compressors.centerclip import CenterCLIP


def medoids_by_loops(x: torch.Tensor, weight: list[float], count: int, iterations: int):
    """k-medoids of one segment in float64, one token at a time: sorted places."""
    x = x.double()
    every = range(len(x))
    distance = [[float((a - b).norm()) for b in x] for a in x]
    medoids = [max(every, key=lambda i: float(x[i].norm()))]
    while len(medoids) < count:
        left = [i for i in every if i not in medoids]
        medoids.append(max(left, key=lambda i: min(distance[i][m] for m in medoids)))
    medoids = sorted(medoids)
    for _ in range(iterations):
        members = {m: [] for m in medoids}
        for i in every:
            nearest = min(medoids, key=lambda m: distance[i][m])
            members[i if i in medoids else nearest].append(i)
        medoids = sorted(
            min(own, key=lambda i: sum(weight[j] * distance[i][j] for j in own))
            for own in members.values()
        )
    return medoids


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize("steps", [8, 9, 32, 33, 128])
@pytest.mark.parametrize("iterations", [0, 3])
def test_it_equals_k_medoids_by_loops(clip, kind, steps, iterations):
    # 36 tokens in a segment; a quarter is 9 of each, and 2 of a last one of one step.
    tokens = clip((steps, 3, 3), kind)
    out = CenterCLIP(keep=0.25, iterations=iterations)(tokens)
    expected = []
    for start in range(0, len(tokens), 36):
        points = tokens.features[start : start + 36]
        count = 9 if len(points) == 36 else len(out) - len(expected)
        found = medoids_by_loops(points, [1] * 36, count, iterations)
        expected += [start + i for i in found]
    assert out.flat_index.tolist() == expected
    assert torch.equal(out.features, tokens.features[out.flat_index])


@pytest.mark.parametrize("seed", range(5))
def test_weights_count_in_the_sums_and_stay_as_they_were(clip, seed):
    tokens = clip((4, 3, 3), "scenes", seed=seed)
    dice = torch.Generator().manual_seed(seed)
    weight = torch.randint(1, 9, (36,), generator=dice).float()
    tokens = replace(tokens, weight=weight)
    out = CenterCLIP(keep=0.2, iterations=4)(tokens)
    assert out.flat_index.tolist() == medoids_by_loops(tokens.features, weight.tolist(), 7, 4)
    assert torch.equal(out.weight, weight[out.flat_index])


def on_a_line(clip, numbers: list[float], grid: tuple[int, int, int]):
    features = torch.tensor([numbers]).T
    return replace(clip(grid, width=1), features=features)


def test_a_case_computed_by_hand(clip):
    tokens = on_a_line(clip, [0, 1, 2, 10, 11, 16], (2, 1, 3))
    # 16 is the longest, and 0 the farthest from it.
    assert CenterCLIP(keep=2 / 6, iterations=0)(tokens).flat_index.tolist() == [0, 5]
    # 10 and 11 are nearer to 16 than to 0: the middles are 1 (of 0, 1, 2) and 11 (of 10, 11, 16).
    assert CenterCLIP(keep=2 / 6, iterations=1)(tokens).flat_index.tolist() == [1, 4]
    # Three: 10 is 6 from 16 and 10 from 0. It takes 11 in, to which it comes first.
    assert CenterCLIP(keep=3 / 6)(tokens).flat_index.tolist() == [1, 3, 5]


def test_it_moves_on_until_nothing_changes(clip):
    tokens = clip((4, 5, 7), "noise", width=3)
    settled = CenterCLIP(keep=0.1, iterations=50)(tokens)
    assert torch.equal(CenterCLIP(keep=0.1, iterations=51)(tokens).position, settled.position)
    assert not torch.equal(CenterCLIP(keep=0.1, iterations=1)(tokens).position, settled.position)


def test_golden(clip):
    tokens = clip((9, 5, 7), "scenes", seed=3)
    expected = [2, 12, 28, 52, 66, 69, 166, 177, 180, 263, 264, 269, 283]
    assert CenterCLIP(keep=0.04, iterations=5)(tokens).flat_index.tolist() == expected


@pytest.mark.parametrize("kind", ["noise", "scenes", "still", "constant"])
@pytest.mark.parametrize("steps", [1, 4, 50])
def test_the_budget_is_met_exactly_and_dealt_out_to_segments(clip, kind, steps):
    for clip_steps in (1, 2, 9, 33):
        tokens = clip((clip_steps, 5, 7), kind)
        for keep in (0.02, 0.1, 0.46, 0.99):
            out = CenterCLIP(keep=keep, steps=steps)(tokens)
            assert len(out) == max(1, round(keep * len(tokens)))
            share = (out.position[:, 0] // steps).bincount(minlength=-(-clip_steps // steps))
            whole = (tokens.position[:, 0] // steps).bincount()
            assert ((share - keep * whole).abs() <= 1).all()


def test_segments_know_nothing_of_one_another(clip):
    tokens, other = (clip((40, 3, 4), "scenes", seed=seed) for seed in (1, 2))
    features = torch.cat((tokens.features[:240], other.features[240:]))
    one, mixed = (CenterCLIP(keep=0.25)(t) for t in (tokens, replace(tokens, features=features)))
    assert torch.equal(one.flat_index[one.flat_index < 240], mixed.flat_index[:60])


def test_every_group_of_near_copies_keeps_its_middle(clip):
    dice = torch.Generator().manual_seed(0)
    group = torch.randperm(36, generator=dice) % 6
    middle = 9 * torch.randn(6, 16, generator=dice)
    spread = torch.randn(36, 16, generator=dice)
    tokens = replace(clip((4, 3, 3)), features=middle[group] + 0.1 * spread)
    out = CenterCLIP(keep=1 / 6)(tokens)
    assert group[out.flat_index].sort().values.tolist() == [0, 1, 2, 3, 4, 5]


def test_of_copies_the_first_is_kept(clip):
    one = clip((1, 3, 4)).features
    tokens = replace(clip((4, 3, 4)), features=one.repeat(4, 1))
    assert CenterCLIP(keep=0.25)(tokens).flat_index.tolist() == list(range(12))
    assert len(set(CenterCLIP(keep=0.5)(tokens).flat_index.tolist())) == 24


def test_a_common_offset_loses_no_digits(clip):
    tokens = clip((4, 3, 3), "noise")
    far = replace(tokens, features=tokens.features + 1e4)
    found = CenterCLIP(keep=0.25)(far).flat_index.tolist()
    assert found == medoids_by_loops(far.features, [1] * 36, 9, 3)


@pytest.mark.parametrize("options", [{"steps": 0}, {"iterations": -1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        CenterCLIP(**options)
