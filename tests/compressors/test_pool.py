from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamvlm.compressors.pool import Pool


def test_two_by_two_blocks_become_their_means(clip):
    tokens = clip((1, 4, 4), width=1)
    tokens = replace(tokens, features=torch.arange(16.0)[:, None])
    pooled = Pool(keep=0.25)(tokens)
    # Rows 0 1 2 3 / 4 5 6 7 / …: the first block is 0, 1, 4, 5.
    assert pooled.features.flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert pooled.weight.tolist() == [4, 4, 4, 4]
    # All four are equally near the middle of their block: the first stands for it.
    assert pooled.flat_index.tolist() == [0, 2, 8, 10]


def test_the_head_of_a_cell_is_its_middle_token(clip):
    pooled = Pool(keep=1 / 9)(clip((2, 3, 6)))
    assert pooled.position.tolist() == [[0, 1, 1], [0, 1, 4], [1, 1, 1], [1, 1, 4]]
    assert pooled.seconds.tolist() == [0, 0, 0.5, 0.5]


@pytest.mark.parametrize(
    ("grid", "keep", "cells"),
    [
        ((8, 14, 14), 0.25, 7 * 7),
        ((8, 14, 14), 0.1, 3 * 6),
        ((8, 14, 14), 13 / 196, 3 * 4),  # a 13×1 grid has more cells, but of no use
        ((3, 1, 9), 0.5, 4),
        ((3, 9, 1), 0.5, 4),
        ((2, 5, 7), 0.8, 4 * 7),
    ],
)
def test_the_grid_has_the_most_cells_that_are_not_long_and_thin(clip, grid, keep, cells):
    pooled = Pool(keep=keep)(clip(grid))
    assert torch.bincount(pooled.position[:, 0]).tolist() == [cells] * grid[0]


def test_steps_are_averaged_when_there_are_fewer_tokens_than_steps(clip):
    tokens = clip((6, 1, 2), width=1)
    tokens = replace(tokens, features=torch.arange(12.0)[:, None])
    pooled = Pool(keep=2 / 12)(tokens)
    assert pooled.features.flatten().tolist() == [2.5, 8.5]
    assert pooled.weight.tolist() == [6, 6]
    assert pooled.position[:, 0].tolist() == [1, 4]


def test_means_are_weighted_and_nothing_is_dropped(clip):
    tokens = clip((4, 6, 6))
    weight = torch.randint(1, 5, (len(tokens),)).float()
    tokens = replace(tokens, weight=weight)
    pooled = Pool(keep=0.25)(tokens)
    assert pooled.weight.sum() == weight.sum()
    ours, theirs = pooled.weight @ pooled.features, weight @ tokens.features
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


def test_pooling_twice_is_pooling_once_when_the_grids_fit(clip):
    tokens = clip((3, 8, 8))
    twice, once = Pool(keep=0.25)(Pool(keep=0.25)(tokens)), Pool(keep=1 / 16)(tokens)
    torch.testing.assert_close(twice.features, once.features)
    assert torch.equal(twice.weight, once.weight)


def test_cells_without_tokens_give_none(clip):
    dense = clip((2, 4, 4))
    left = dense.select((dense.position[:, 1] < 2).nonzero().flatten())
    pooled = Pool(keep=0.5)(left)
    assert len(pooled) <= 8
    assert (pooled.position[:, 1] < 2).all()
    assert pooled.weight.sum() == 16


def test_golden(clip):
    # Made by this code; a change of any number is a change of the method.
    out = Pool(keep=0.05)(clip((4, 5, 7), "scenes"))
    assert out.flat_index.tolist() == [17, 52, 87, 122]
    torch.testing.assert_close(
        out.features[:, 0], torch.tensor([-0.0647, -0.045, -0.1187, -0.0212]), atol=1e-4, rtol=0
    )
