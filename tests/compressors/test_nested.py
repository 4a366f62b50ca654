from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamvlm.compressors.nested import Nested
from streamvlm.memory.age.thin import foremost
from streamvlm.types import VisualTokens


def line(clip, *values: float) -> VisualTokens:
    """One step of tokens with one feature each."""
    tokens = clip((1, 1, len(values)), width=1)
    return replace(tokens, features=torch.tensor(values)[:, None])


def test_a_case_computed_by_hand(clip):
    # The mean is 2; squared distances from it are 4, 1, 1, 1, 36, 9: 8 stands out most. Squared
    # distances to it, times these, are 0: 64·4 = 256, 1: 49·1 = 49 (twice), 3: 25·1 = 25,
    # -1: 81·9 = 729. So -1 is next. Then 0: 1·4 = 4, 1: 4·1 = 4 (twice), 3: 16·1 = 16.
    tokens = line(clip, 0, 1, 1, 3, 8, -1)
    out = Nested(keep=0.5)(tokens)
    assert out.features.flatten().tolist() == [3, 8, -1]
    assert out.rank.tolist() == [2, 0, 1]


def test_equal_importance_goes_to_the_lower_index(clip):
    out = Nested(keep=0.25)(line(clip, 5, 0, 0, 5))
    assert out.features.flatten().tolist() == [5]
    assert out.flat_index.tolist() == [0]


@pytest.mark.parametrize("width", [16, 96])
@pytest.mark.parametrize("kind", ["noise", "scenes"])
def test_a_smaller_budget_later_is_the_smaller_budget_now(clip, kind, width):
    tokens = clip((9, 5, 7), kind, width=width)
    large = Nested(keep=0.5)(tokens)
    for keep in (0.02, 0.1, 0.3):
        small = Nested(keep=keep)(tokens)
        cut = foremost(large, len(small))
        assert torch.equal(cut.position, small.position)
        assert torch.equal(cut.rank, small.rank)


@pytest.mark.parametrize("width", [16, 256])
def test_things_before_a_background_come_first_and_each_before_any_twice(clip, width):
    tokens = clip((8, 5, 7), "noise", width=width)
    wall = 0.3 * tokens.features + 1
    looks = torch.randn(3, width, generator=torch.Generator().manual_seed(3)) * 4
    at = torch.tensor([3, 40, 77, 110, 150, 200])
    things = wall.index_add(0, at, looks.repeat(2, 1))
    out = Nested(keep=0.5)(replace(tokens, features=things))
    first = foremost(out, 3).flat_index.tolist()
    assert sorted(at.tolist().index(token) % 3 for token in first) == [0, 1, 2]


def test_a_still_clip_is_kept_once_whatever_its_noise(clip):
    tokens = clip((128, 5, 7), "still", width=64)
    look = tokens.features.view(128, 35, 64)
    noisy = look[:1] + 0.05 * (look - look.mean(0))
    out = Nested(keep=0.1)(replace(tokens, features=noisy.reshape(-1, 64)))
    assert len(out) == 35
    # As it was first seen, although the noise of later steps stands out more.
    assert out.flat_index.tolist() == list(range(35))


def test_of_a_thing_that_stays_the_first_sight_is_kept(clip):
    tokens = clip((8, 5, 7), "noise", width=16)
    wall = 0.1 * tokens.features
    stays = torch.arange(3, 8) * 35 + 17
    wall[stays] += 5 + 0.03 * torch.arange(5.0)[:, None]
    out = Nested(keep=0.01)(replace(tokens, features=wall))
    assert foremost(out, 1).flat_index.tolist() == [3 * 35 + 17]


def test_a_higher_floor_stops_earlier(clip):
    tokens = clip((9, 5, 7), "scenes")
    few, many = (len(Nested(keep=0.8, floor=floor)(tokens)) for floor in (0.5, 0))
    assert few < many == round(0.8 * len(tokens))


def test_what_is_left_out_is_nearly_equal_to_what_is_kept(clip):
    tokens = clip((9, 5, 7), "scenes")
    out = Nested(keep=0.9, floor=0.3)(tokens)
    variance = (tokens.features - tokens.features.mean(0)).square().sum(1).mean()
    nearest = torch.cdist(tokens.features, out.features).amin(1).square()
    assert len(out) < round(0.9 * len(tokens))
    assert nearest.max() <= 0.3 * variance * 1.001


def test_golden(clip):
    out = Nested(keep=0.05)(clip((4, 5, 7), "scenes"))
    assert out.flat_index.tolist() == GOLDEN_INDEX
    assert out.rank.tolist() == GOLDEN_RANK


GOLDEN_INDEX = [25, 33, 108, 109, 126, 129, 133]
GOLDEN_RANK = [6, 3, 5, 4, 0, 2, 1]
