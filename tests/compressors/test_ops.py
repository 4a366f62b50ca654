from __future__ import annotations

import pytest
import torch

from streamvlm.compressors import _ops
from streamvlm.errors import ConfigError


@pytest.mark.parametrize(
    ("total", "claims", "rooms", "seats"),
    [
        (10, [1, 1, 1, 1, 1], [9] * 5, [2, 2, 2, 2, 2]),
        (4, [3, 3, 1], [9] * 3, [2, 2, 0]),  # quotas 1.71, 1.71, 0.57
        (9, [1, 1], [2, 3], [2, 3]),  # no room for more
        (3, [0, 5], [9, 9], [0, 3]),
        (0, [1, 1], [9, 9], [0, 0]),
        (3, [], [], []),
    ],
)
def test_seats_go_by_largest_remainders(total, claims, rooms, seats):
    assert _ops.apportion(total, claims, rooms) == seats


def test_what_a_full_room_cannot_take_goes_to_the_others():
    # Quotas are 2, 2, 2; one place of the full room is dealt out anew.
    assert sorted(_ops.apportion(6, [1, 1, 1], [1, 9, 9])) == [1, 2, 3]


def test_seats_sum_to_the_total_and_stay_near_their_quotas():
    dice = torch.Generator().manual_seed(0)
    for _ in range(200):
        claims = torch.randint(1, 50, (20,), generator=dice).tolist()
        total = int(torch.randint(0, sum(claims) + 1, (1,), generator=dice))
        seats = _ops.apportion(total, claims, claims)
        assert sum(seats) == total
        for claim, seat in zip(claims, seats, strict=True):
            assert abs(seat - total * claim / sum(claims)) < 1
            assert seat <= claim


def test_equal_remainders_do_not_favour_an_end():
    seats = _ops.apportion(8, [1] * 32, [1] * 32)
    quarters = [sum(seats[at : at + 8]) for at in range(0, 32, 8)]
    assert max(quarters) - min(quarters) <= 1


def test_ranks_start_anew_in_each_group():
    score = torch.tensor([1.0, 5, 5, 2, 9, 3])
    group = torch.tensor([0, 0, 0, 2, 2, 2])
    assert _ops.ranks_within(score, group).tolist() == [2, 0, 1, 2, 0, 1]


def test_means_are_weighted_by_shares_and_rows_may_serve_twice():
    table = torch.tensor([[0.0], [4], [10]])
    (means,), totals = _ops.weighted_means(
        [table],
        row=torch.tensor([1, 0, 2, 1]),
        group=torch.tensor([0, 0, 2, 2]),
        share=torch.tensor([1.0, 3, 1, 1]),
        groups=3,
    )
    assert means.tolist() == [[1], [0], [7]]
    assert totals.tolist() == [4, 0, 2]


def test_the_peaks_of_two_clumps_come_before_their_other_points():
    clump = torch.tensor([[0.0, 0], [0.1, 0], [-0.1, 0], [0, 0.1], [0, -0.1]])
    points = torch.cat((clump, clump[1:] + 5, clump[:1] + 5))
    score = _ops.density_peaks(points[None], torch.ones(1, 10, dtype=torch.bool))[0]
    assert set(score.topk(2).indices.tolist()) == {0, 9}


def test_density_peaks_equal_their_definition():
    dice = torch.Generator().manual_seed(1)
    points = torch.randn(2, 12, 5, generator=dice, dtype=torch.float64)
    valid = torch.rand(2, 12, generator=dice) < 0.8
    score = _ops.density_peaks(points, valid)
    for b in range(2):
        real = points[b, valid[b]]
        d = torch.stack([((real - one) ** 2).sum(1).sqrt() / 5**0.5 for one in real])
        rho = [torch.exp(-row.sort().values[:4].square().mean()) for row in d]
        for i in range(len(real)):
            farther = [d[i, j] for j in range(len(real)) if rho[j] > rho[i]]
            delta = min(farther) if farther else d.max()
            torch.testing.assert_close(score[b, valid[b]][i].exp(), rho[i] * delta)
    assert (score[~valid] == -torch.inf).all()


def test_equal_points_rank_by_index_without_nan():
    score = _ops.density_peaks(torch.ones(1, 6, 3), torch.ones(1, 6, dtype=torch.bool))
    assert score.isfinite().all()
    assert score.argsort(descending=True, stable=True).flatten().tolist() == list(range(6))


def test_far_apart_points_do_not_underflow():
    points = 1e3 * torch.randn(1, 20, 8, generator=torch.Generator().manual_seed(0))
    score = _ops.density_peaks(points, torch.ones(1, 20, dtype=torch.bool))
    assert len(score.unique()) == 20


def test_a_missing_cue_is_named_beside_those_there_are():
    with pytest.raises(ConfigError, match=r"'attention' is missing .*\(they carry: depth\)"):
        _ops.cue({"depth": torch.ones(1)}, "attention")
