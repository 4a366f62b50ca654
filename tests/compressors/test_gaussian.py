from __future__ import annotations

import math

import torch

from streamvlm.compressors import _gaussian


def test_the_half_of_the_channels_that_vary_least_is_chosen():
    points = torch.tensor([[5.0, 0, 1, 100, 0], [5.2, 3, 2, 100, 9]])
    assert _gaussian.quiet_channels(points).tolist() == [0, 3]


def test_of_equal_variances_the_lower_channels_are_chosen_and_one_at_least():
    assert _gaussian.quiet_channels(torch.ones(3, 6)).tolist() == [0, 1, 2]
    assert _gaussian.quiet_channels(torch.rand(3, 1)).tolist() == [0]


def test_a_large_mean_does_not_hide_the_variance():
    points = torch.tensor([[1000.0, 0], [1000.5, 0.1]])
    assert _gaussian.quiet_channels(points.repeat(2000, 1)).tolist() == [1]


def test_rows_have_unit_length_in_the_chosen_channels_and_zero_stays_zero():
    points = torch.tensor([[3.0, 99, 4], [0, 99, 0]])
    unit = _gaussian.unit_rows(points, torch.tensor([0, 2]))
    torch.testing.assert_close(unit, torch.tensor([[0.6, 0.8], [0, 0]]))
    assert points[0].tolist() == [3, 99, 4]


def test_typicality_is_the_sum_of_five_gaussians():
    unit = torch.tensor([[1.0, 0], [0, 1], [1, 0]])
    centres = torch.tensor([[[1.0, 0], [0.5, 0.5]], [[0, 1], [0, 0]]])

    def near(square: float) -> float:
        return sum(math.exp(-square / (2 * alpha)) for alpha in (1 / 8, 1 / 4, 1 / 2, 1, 2))

    expected = [[near(0), near(0.5)], [near(2), near(0.5)], [near(2), near(1)]]
    torch.testing.assert_close(_gaussian.typicality(unit, centres, [2, 1]), torch.tensor(expected))
