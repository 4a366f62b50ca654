from __future__ import annotations

import torch

from streamvlm.compressors import _places


def test_each_token_is_compared_with_the_latest_left_at_its_place(clip):
    tokens = clip((4, 2, 3), "scenes")
    x = tokens.features.view(4, 6, -1)
    full = _places.similarity_before(tokens).view(4, 6)
    assert (full[0] == -torch.inf).all()
    expected = torch.cosine_similarity(x[1:], x[:-1], dim=-1)
    torch.testing.assert_close(full[1:], expected)
    # Without step 1, step 2 is compared with step 0.
    left = _places.similarity_before(tokens.select(tokens.position[:, 0] != 1)).view(3, 6)
    torch.testing.assert_close(left[1], torch.cosine_similarity(x[2], x[0], dim=-1))
    torch.testing.assert_close(left[2], full[3])


def test_a_zero_token_is_like_none():
    assert _places.cosines(torch.zeros(1, 3), torch.ones(1, 3)).tolist() == [0]
