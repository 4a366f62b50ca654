from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch.nn.functional import cosine_similarity

from streamvlm.compressors.dycoke import DyCoke
from streamvlm.errors import BadOption
from streamvlm.types import VisualTokens


def official_by_loops(tokens: VisualTokens, prune: float) -> list[int]:
    """The published selection, step by step, in float64: indices in order of place."""
    steps, rows, columns = tokens.grid
    places = rows * columns
    x = tokens.features.double().view(steps, places, -1)
    fewer = int((1 - prune) * places)

    def least_similar(step: int, reference: int) -> list[int]:
        similar = [
            float(cosine_similarity(x[step, n], x[reference, n], dim=0)) for n in range(places)
        ]
        return sorted(range(places), key=lambda n: similar[n])[:fewer]

    kept = {step: list(range(places)) for step in range(steps)}
    for even in range(0, steps - 1, 2):
        kept[even + 1] = least_similar(even + 1, even)
    for first in range(0, steps - 4, 4):
        kept[first + 2] = least_similar(first + 2, first)
    return sorted(step * places + n for step in kept for n in kept[step])


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize(("steps", "prune"), [(6, 0.7), (8, 0.7), (10, 0.5), (32, 0.7), (128, 0.7)])
def test_official_equals_the_published_selection_by_loops(clip, kind, steps, prune):
    tokens = clip((steps, 5, 7), kind)
    out = DyCoke(keep=0.99, prune=prune, compat="official")(tokens)
    assert out.flat_index.tolist() == official_by_loops(tokens, prune)


def test_the_official_share_is_that_of_the_sheet(clip):
    method = DyCoke(compat="official")
    assert round(len(method(clip((32, 14, 14), width=2))) / (32 * 196), 3) == 0.494
    assert round(len(method(clip((128, 14, 14), width=2))) / (128 * 196), 3) == 0.477


@pytest.mark.parametrize("steps", [2, 4, 5, 9, 33])
def test_official_is_refused_where_the_published_code_fails(clip, steps):
    with pytest.raises(BadOption, match="even number of steps from 6 on"):
        DyCoke(keep=0.9, compat="official")(clip((steps, 5, 7)))


def test_official_is_refused_for_compressed_tokens(clip):
    tokens = clip((8, 5, 7)).select(torch.arange(200))
    with pytest.raises(BadOption, match="dense tokens"):
        DyCoke(keep=0.9, compat="official")(tokens)


def test_official_is_refused_above_the_budget(clip):
    # 8 steps: 35 + 10 + 10 + 10 + 35 + 10 + 35 + 10 = 155 of 280, more than a half.
    with pytest.raises(BadOption, match=r"keeps 155 of these 280 tokens, more than keep 0\.5"):
        DyCoke(compat="official")(clip((8, 5, 7)))
    assert len(DyCoke(keep=155 / 280, compat="official")(clip((8, 5, 7)))) == 155


def turned(degrees: list[list[float]]) -> torch.Tensor:
    """(T·places, 2) unit vectors at these angles."""
    angles = torch.tensor(degrees).flatten() * math.pi / 180
    return torch.stack((angles.cos(), angles.sin()), 1)


def test_a_case_computed_by_hand(clip):
    # 8 of 16; claims are 1 : 0.3 : 0.3 : 0.3. The first step could take 4.2 and has 4; of the other
    # 4 each gets 1, and one the odd one. Turned from the reference: step 1 by 0 10 50 20, step 2
    # (from step 0) by 30 0 5 40, step 3 (from step 2) by 0 60 0 0.
    degrees = [[0, 0, 0, 0], [0, 10, 50, 20], [30, 0, 5, 40], [30, 60, 5, 40]]
    tokens = replace(clip((4, 1, 4), width=2), features=turned(degrees))
    assert DyCoke(keep=0.5)(tokens).flat_index.tolist() == [0, 1, 2, 3, 6, 8, 11, 13]


def test_golden(clip):
    out = DyCoke(keep=0.1)(clip((9, 3, 4), "scenes", seed=3))
    assert out.flat_index.tolist() == [0, 9, 14, 26, 50, 53, 65, 75, 94, 98, 102]


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 8, 9, 33])
@pytest.mark.parametrize("prune", [0, 0.7, 1])
def test_the_budget_is_met_exactly(clip, steps, prune):
    dense = clip((steps, 5, 7), "scenes")
    for tokens in (dense, dense.select(dense.flat_index % 3 != 1)):
        for keep in (0.02, 0.1, 0.46, 0.9):
            out = DyCoke(keep=keep, prune=prune)(tokens)
            assert len(out) == max(1, round(keep * len(tokens)))


def test_a_first_step_keeps_as_much_more_as_published(clip):
    tokens = clip((32, 10, 10))
    kept = DyCoke(keep=0.19, prune=0.7)(tokens).position[:, 0].bincount(minlength=32)
    assert kept.view(8, 4).tolist() == [[40, 12, 12, 12]] * 8


def test_half_of_a_long_clip_leaves_first_steps_whole(clip):
    kept = DyCoke()(clip((32, 10, 10))).position[:, 0].bincount(minlength=32).view(8, 4)
    assert (kept[:, 0] == 100).all()
    assert kept[:, 1:].unique().tolist() == [33, 34]


def test_a_first_step_keeps_what_differs_from_the_one_before(clip):
    still = [[0.0, 0, 0, 0]] * 4
    tokens = clip((8, 1, 4), width=2)
    tokens = replace(tokens, features=turned([*still, [0, 0, 30, 0], *still[1:]]))
    out = DyCoke(keep=0.06, prune=1)(tokens)  # two tokens: one of each first step
    assert out.flat_index.tolist()[1] == 4 * 4 + 2


def test_the_first_step_is_covered_evenly(clip):
    kept = DyCoke(keep=0.25)(clip((1, 8, 8))).position
    quadrant = kept[:, 1] // 4 * 2 + kept[:, 2] // 4
    assert quadrant.bincount(minlength=4).tolist() == [4, 4, 4, 4]


def test_a_place_that_is_empty_in_the_reference_is_taken_first(clip):
    tokens = replace(clip((2, 1, 4), width=2), features=turned([[0, 0, 0, 0], [90, 80, 0, 70]]))
    left = tokens.select(torch.tensor([0, 1, 3, 4, 5, 6, 7]))
    out = DyCoke(keep=2 / 7, prune=0)(left)  # one of each step
    assert out.flat_index.tolist()[1] == 6


def test_later_steps_do_not_change_what_earlier_ones_keep(clip):
    tokens = clip((12, 5, 7), "scenes")
    features = tokens.features.clone()
    features[7 * 35 :] = clip((5, 5, 7), seed=9).features
    one, other = (DyCoke(keep=0.4)(each) for each in (tokens, replace(tokens, features=features)))
    assert not torch.equal(one.position, other.position)
    early = [each.flat_index[each.position[:, 0] < 7] for each in (one, other)]
    assert torch.equal(*early)


def test_equally_similar_tokens_go_to_the_lower_place(clip):
    out = DyCoke(keep=0.5, prune=0)(clip((2, 1, 8), "constant"))
    assert out.flat_index[out.position[:, 0] == 1].tolist() == [8, 9, 10, 11]


def test_half_precision_chooses_nearly_the_same_tokens(clip):
    full = DyCoke()(clip((33, 6, 6), "scenes", width=64))
    half = DyCoke()(clip((33, 6, 6), "scenes", width=64, dtype=torch.float16))
    assert torch.isin(full.flat_index, half.flat_index).float().mean() >= 0.99


@pytest.mark.parametrize("options", [{"prune": -0.1}, {"prune": 1.1}, {"compat": "letter"}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        DyCoke(**options)
