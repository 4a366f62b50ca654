"""The reference must do the same work as ours, or the race means nothing."""

import pytest
import torch

from streamvlm.bench.published import divprune
from streamvlm.compressors.divprune import DivPrune
from streamvlm.types import VisualTokens


def make(features: torch.Tensor, grid: tuple[int, int, int]) -> VisualTokens:
    position = torch.cartesian_prod(*(torch.arange(size) for size in grid))
    return VisualTokens(
        model="test",
        features=features,
        position=position,
        seconds=position[:, 0].double(),
        grid=grid,
        weight=torch.ones(len(position)),
    )


@pytest.mark.parametrize("drift", [1.0, 0.3], ids=["noise", "scenes"])
@pytest.mark.parametrize("steps", [8, 33])
@pytest.mark.parametrize("keep", [0.02, 0.1, 0.3])
def test_it_chooses_what_ours_chooses(drift, steps, keep):
    dice = torch.Generator().manual_seed(steps)
    scenes = torch.randn(steps, 35, 16, generator=dice)[torch.arange(steps) // 6]
    features = (scenes + drift * torch.randn(steps, 35, 16, generator=dice)).view(-1, 16)
    tokens = make(features, (steps, 5, 7))
    ours = DivPrune(keep=keep, compat="official")(tokens)
    assert torch.equal(divprune.compress(tokens, keep), ours.features)


def test_a_case_computed_by_hand():
    # At 0, 10, 40, 90 and 95 degrees the nearest others are 10, 10, 30, 5 and 5 degrees away: 40 is
    # first. Then 95 (55 degrees from it) and 0 (40 degrees; 90 is only 5 from 95).
    angle = torch.tensor([0.0, 10, 40, 90, 95]).deg2rad()
    tokens = make(torch.stack((angle.cos(), angle.sin()), 1), (1, 1, 5))
    assert torch.equal(divprune.compress(tokens, 0.2), tokens.features[[2]])
    assert torch.equal(divprune.compress(tokens, 0.4), tokens.features[[2, 4]])
    assert torch.equal(divprune.compress(tokens, 0.6), tokens.features[[0, 2, 4]])
