from __future__ import annotations

import math
from dataclasses import replace

import torch

from streamvlm.compressors.evs import EVS


def turned(degrees: list[list[float]]):
    """(T·places, 2) unit vectors at these angles."""
    angles = torch.tensor(degrees).flatten() * math.pi / 180
    return torch.stack((angles.cos(), angles.sin()), 1)


def test_the_places_that_turned_most_are_kept(clip):
    # Turns of step 1: 0, 10, 50, 90 degrees; of step 2: 20, 0, 40, 0.
    degrees = [[0, 0, 0, 0], [0, 10, 50, 90], [20, 10, 90, 90]]
    tokens = replace(clip((3, 2, 2), width=2), features=turned(degrees))
    assert EVS(keep=4 / 12)(tokens).flat_index.tolist() == [0, 1, 2, 3]
    assert EVS(keep=6 / 12)(tokens).flat_index.tolist() == [0, 1, 2, 3, 6, 7]
    assert EVS(keep=8 / 12)(tokens).flat_index.tolist() == [0, 1, 2, 3, 6, 7, 8, 10]


def test_brightness_alone_is_nothing_new(clip):
    degrees = [[0, 0], [0, 30], [0, 30]]
    features = turned(degrees) * torch.tensor([1.0, 1, 9, 1, 5, 1])[:, None]
    tokens = replace(clip((3, 1, 2), width=2), features=features)
    assert EVS(keep=0.5)(tokens).flat_index.tolist() == [0, 1, 3]


def test_less_than_a_frame_is_spread_over_the_first_one(clip):
    assert EVS(keep=3 / 48)(clip((4, 3, 4))).flat_index.tolist() == [2, 6, 10]


def test_after_another_compressor_a_place_is_compared_with_its_last_token(clip):
    degrees = [[0, 0], [80, 80], [5, 0], [5, 60]]
    tokens = replace(clip((4, 1, 2), width=2), features=turned(degrees))
    left = tokens.select(torch.tensor([0, 1, 4, 5, 6, 7]))
    assert EVS(keep=0.5)(left).flat_index.tolist() == [0, 1, 7]
    # A place that appears late has no predecessor and counts as new.
    late = tokens.select(torch.tensor([0, 2, 4, 6, 7]))
    assert EVS(keep=0.6)(late).flat_index.tolist() == [0, 2, 7]


def test_dense_and_sparse_paths_agree(clip):
    dense = clip((9, 5, 7), "scenes")
    longer = clip((10, 5, 7), "scenes")
    longer = replace(longer, features=torch.cat((dense.features, longer.features[-35:])))
    sparse = replace(dense, grid=(10, 5, 7))
    assert not sparse.is_dense
    assert torch.equal(EVS(keep=0.3)(dense).position, EVS(keep=0.3)(sparse).position)


def test_a_still_clip_keeps_its_first_frame(clip):
    frame = clip((1, 3, 3)).features
    tokens = replace(clip((4, 3, 3)), features=frame.repeat(4, 1))
    assert EVS(keep=0.25)(tokens).flat_index.tolist() == list(range(9))


def test_golden(clip):
    # Made by this code; a change of any number is a change of the method.
    out = EVS(keep=0.05)(clip((4, 5, 7), "scenes"))
    assert out.flat_index.tolist() == [2, 7, 12, 17, 22, 27, 32]
    torch.testing.assert_close(
        out.features[:, 0],
        torch.tensor([-0.5462, 0.236, 0.0003, -0.1353, 0.8321, 2.3962, -0.273]),
        atol=1e-4,
        rtol=0,
    )
