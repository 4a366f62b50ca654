from __future__ import annotations

from dataclasses import replace

import torch

from streamvlm.compressors import _merge


def test_means_are_weighted_by_shares_and_rows_may_serve_twice():
    table = torch.tensor([[0.0], [4], [10]])
    (means,), totals = _merge.weighted_means(
        [table],
        row=torch.tensor([1, 0, 2, 1]),
        group=torch.tensor([0, 0, 2, 2]),
        share=torch.tensor([1.0, 3, 1, 1]),
        groups=3,
    )
    assert means.tolist() == [[1], [0], [7]]
    assert totals.tolist() == [4, 0, 2]


def test_the_nearest_head_is_of_the_own_group():
    points = torch.tensor([[1.0, 0], [0, 1], [2, 0.1], [1, 0.1], [-1, 0]])
    group = torch.tensor([0, 0, 0, 3, 3])
    is_head = torch.tensor([True, True, False, False, True])
    assert _merge.nearest_of_group(points, group, is_head).tolist() == [0, 1, 0, 4, 4]


def test_who_joins_counts_by_weight_and_who_does_not_is_dropped(clip):
    tokens = clip((1, 1, 4), width=1)
    tokens = replace(
        tokens,
        features=torch.tensor([[1.0], [4], [100], [7]]),
        weight=torch.tensor([1.0, 2, 1, 1]),
    )
    out = _merge.join(tokens, torch.tensor([0, 0, 0, 3]), torch.tensor([False, True, False, False]))
    assert out.flat_index.tolist() == [0, 3]
    assert out.features.flatten().tolist() == [3, 7]
    assert out.weight.tolist() == [3, 1]
