"""What stands at patches, pooled to tokens, against the order in which the families merge them."""

import pytest
import torch
from transformers.models.internvl.modeling_internvl import InternVLModel
from transformers.models.smolvlm.modeling_smolvlm import SmolVLMConnector

from streamvlm.models._squares import mean_of_squares


def internvl(grid, factor):
    return InternVLModel.pixel_shuffle(None, grid, 1 / factor)


def smolvlm(grid, factor):
    return SmolVLMConnector.pixel_shuffle(None, grid.flatten(1, 2), factor)


@pytest.mark.parametrize(
    ("stock", "side", "factor"), [(internvl, 4, 2), (smolvlm, 3, 3), (smolvlm, 2, 4)]
)
def test_a_tokens_cue_is_the_mean_over_the_patches_that_stock_merges_into_it(stock, side, factor):
    torch.manual_seed(0)
    cue = torch.rand(3, side * factor, side * factor, 1)
    merged = stock(cue, factor).reshape(3, side, side, factor**2)
    found = mean_of_squares(cue.flatten(), side, factor)
    torch.testing.assert_close(found, merged.mean(-1))
    assert not torch.allclose(found.mT, merged.mean(-1), atol=1e-3)


def test_vectors_are_pooled_like_numbers():
    torch.manual_seed(0)
    cue = torch.rand(2 * 36, 5)
    found = mean_of_squares(cue, 2, 3)
    assert found.shape == (2, 2, 2, 5)
    assert torch.equal(found[..., 1], mean_of_squares(cue[:, 1], 2, 3))
