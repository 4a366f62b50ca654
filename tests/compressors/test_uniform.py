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
