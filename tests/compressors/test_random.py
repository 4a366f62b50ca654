from __future__ import annotations

import torch

from streamvlm.compressors.random import Random


def test_the_lot_is_blind_to_content(clip):
    one, other = clip((8, 5, 7), "noise", seed=1), clip((8, 5, 7), "still", seed=2)
    assert torch.equal(Random(keep=0.1)(one).position, Random(keep=0.1)(other).position)


def test_another_seed_is_another_lot(clip):
    tokens = clip((8, 5, 7))
    lots = {tuple(Random(keep=0.1, seed=seed)(tokens).flat_index.tolist()) for seed in range(5)}
    assert len(lots) == 5


def test_the_global_dice_are_left_alone(clip):
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    Random(keep=0.1)(clip((8, 5, 7)))
    assert torch.equal(torch.rand(4), expected)


def test_every_place_has_an_equal_chance(clip):
    tokens = clip((4, 3, 3))
    counts = torch.zeros(len(tokens))
    for seed in range(400):
        counts[Random(keep=0.25, seed=seed)(tokens).flat_index] += 1
    # 400 draws of chance 1/4: mean 100, standard deviation 8.7; four of them either side.
    assert counts.sum() == 400 * 9
    assert counts.min() > 65
    assert counts.max() < 135


def test_golden(clip):
    # Made by this code; a change of any number is a change of the method.
    out = Random(keep=0.05)(clip((4, 5, 7), "scenes"))
    assert out.flat_index.tolist() == [4, 23, 29, 92, 94, 105, 121]
    torch.testing.assert_close(
        out.features[:, 0],
        torch.tensor([-0.9032, 0.605, 0.2853, 0.3353, 0.3951, -0.9755, 0.2637]),
        atol=1e-4,
        rtol=0,
    )
