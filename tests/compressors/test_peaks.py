from __future__ import annotations

import torch

from streamvlm.compressors import _peaks


def peaks(points, valid, **options):
    return _peaks.density_peaks(_peaks.squared_distances(points, valid), valid, **options)


def test_the_peaks_of_two_clumps_come_before_their_other_points():
    clump = torch.tensor([[0.0, 0], [0.1, 0], [-0.1, 0], [0, 0.1], [0, -0.1]])
    points = torch.cat((clump, clump[1:] + 5, clump[:1] + 5))
    score = peaks(points[None], torch.ones(1, 10, dtype=torch.bool))[0]
    assert set(score.topk(2).indices.tolist()) == {0, 9}


def test_density_peaks_equal_their_definition():
    dice = torch.Generator().manual_seed(1)
    points = torch.randn(2, 12, 5, generator=dice, dtype=torch.float64)
    valid = torch.rand(2, 12, generator=dice) < 0.8
    score = peaks(points, valid)
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
    score = peaks(torch.ones(1, 6, 3), torch.ones(1, 6, dtype=torch.bool))
    assert score.isfinite().all()
    assert score.argsort(descending=True, stable=True).flatten().tolist() == list(range(6))


def test_far_apart_points_do_not_underflow():
    points = 1e3 * torch.randn(1, 20, 8, generator=torch.Generator().manual_seed(0))
    score = peaks(points, torch.ones(1, 20, dtype=torch.bool))
    assert len(score.unique()) == 20


def test_more_neighbours_look_farther():
    # A tight pair is densest by one neighbour beside itself, the loose crowd by four.
    points = torch.tensor([[0.0], [0.01], [50], [51], [52], [53], [54]])
    valid = torch.ones(1, 7, dtype=torch.bool)
    few, many = (peaks(points[None], valid, neighbours=n)[0] for n in (2, 5))
    assert int(few.argmax()) < 2
    assert int(many.argmax()) >= 2
