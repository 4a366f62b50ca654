from __future__ import annotations

import pytest
import torch

from streamvlm.compressors.uniform import Uniform


def test_each_kept_token_lies_in_the_middle_of_an_equal_stretch(clip):
    # 12 tokens, 4 stretches of 3; 5 stretches of 2.4: middles 1.2, 3.6, 6.0, 8.4, 10.8.
    tokens = clip((3, 2, 2))
    assert Uniform(keep=1 / 3)(tokens).flat_index.tolist() == [1, 4, 7, 10]
    assert Uniform(keep=5 / 12)(tokens).flat_index.tolist() == [1, 3, 6, 8, 10]


def test_one_token_is_the_middle_one(clip):
    assert Uniform(keep=0.01)(clip((3, 1, 3))).flat_index.tolist() == [4]


@pytest.mark.parametrize("keep", [0.02, 0.1, 0.37, 0.8])
def test_steps_get_equal_parts_to_within_one_token(clip, keep):
    kept = Uniform(keep=keep)(clip((33, 5, 7)))
    counts = torch.bincount(kept.position[:, 0], minlength=33)
    assert len(kept) == round(keep * 33 * 35)
    assert counts.max() - counts.min() <= 1


def test_golden(clip):
    # Made by this code; a change of any number is a change of the method.
    out = Uniform(keep=0.05)(clip((4, 5, 7), "scenes"))
    assert out.flat_index.tolist() == [10, 30, 50, 70, 90, 110, 130]
    torch.testing.assert_close(
        out.features[:, 0],
        torch.tensor([0.7635, -0.7172, -2.1131, -1.2119, 0.3687, 0.1248, -0.9533]),
        atol=1e-4,
        rtol=0,
    )
