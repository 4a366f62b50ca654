from __future__ import annotations

import pytest
import torch

from streamvlm.bench.published import fastvid
from streamvlm.compressors.fastvid import FastVID
from streamvlm.types import VisualTokens


def clip(steps: int, scene: int) -> VisualTokens:
    """A clip of 20 places that shows something new each `scene` steps."""
    dice = torch.Generator().manual_seed(steps)
    position = torch.cartesian_prod(torch.arange(steps), torch.arange(4), torch.arange(5))
    shown = torch.arange(steps) // scene
    features = torch.randn(steps, 20, 16, generator=dice)[shown]
    features += 0.3 * torch.randn(features.shape, generator=dice)
    vectors = torch.randn(steps, 8, generator=dice)[shown]
    vectors += 0.01 * torch.randn(vectors.shape, generator=dice)
    return VisualTokens(
        model="test",
        features=features.flatten(0, 1),
        position=position,
        seconds=position[:, 0].double(),
        grid=(steps, 4, 5),
        weight=torch.ones(len(position)),
        cues={"attention": torch.rand(len(position), generator=dice)},
        frame_cues={"frame_vector": vectors},
    )


@pytest.mark.parametrize("keep", [0.2, 0.3, 0.4])
@pytest.mark.parametrize("scene", [1, 6, 128])
@pytest.mark.parametrize("steps", [8, 9, 33, 128])
def test_it_gives_the_tokens_of_our_own_official_form(steps, scene, keep):
    tokens = clip(steps, scene)
    out = FastVID(keep=keep, compat="official")(tokens)
    torch.testing.assert_close(fastvid.compress(tokens, keep), out.features, atol=1e-5, rtol=0)


def test_the_tokens_are_left_as_they_were():
    tokens = clip(33, 6)
    before = tokens.features.clone()
    fastvid.compress(tokens, 0.3)
    assert torch.equal(tokens.features, before)
