from __future__ import annotations

import torch

from streamvlm.compressors._clusters import POINTS_AT_ONCE, Group, centre_of_each


def every(points: torch.Tensor) -> torch.Tensor:
    return torch.arange(len(points))


def points(count: int, width: int = 8, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_points_join_the_nearest_of_the_peaks():
    # Two heaps, around 0 and 10; the middle of each is the densest of its three points.
    heaps = torch.tensor([-1.0, 0, 1.1, 9, 10, 11.1])[:, None]
    centre = centre_of_each(heaps, every(heaps), [Group(6, 2, 3)])
    assert centre.tolist() == [1, 1, 1, 4, 4, 4]


def test_a_group_without_centres_is_dropped_and_one_full_of_them_stays():
    table = points(9)
    groups = [Group(3, 0, 4), Group(2, 2, 4), Group(0, 0, 4), Group(4, 1, 4)]
    centre = centre_of_each(table, every(table), groups).tolist()
    assert centre[:5] == [-1, -1, -1, 3, 4]
    assert len(set(centre[5:])) == 1
    assert centre[5] in range(5, 9)
    assert centre[centre[5]] == centre[5]


def test_groups_do_not_see_one_another():
    sizes = [40, 7, 300, 40, 1, POINTS_AT_ONCE + 5, 39]
    table = points(sum(sizes))
    groups = [Group(size, -(-size // 5), 3 + size % 2) for size in sizes]
    together = centre_of_each(table, every(table), groups)
    first = 0
    for group in groups:
        own = table[first : first + group.size]
        alone = centre_of_each(own, every(own), [group])
        assert torch.equal(together[first : first + group.size], alone + first)
        first += group.size


def test_rows_of_a_table_are_the_points():
    table = points(60)
    row = torch.randperm(60, generator=torch.Generator().manual_seed(1))[:40]
    groups = [Group(25, 5, 7), Group(15, 4, 7)]
    expected = centre_of_each(table[row], torch.arange(40), groups)
    assert torch.equal(centre_of_each(table, row, groups), expected)


def test_every_point_joins_the_nearest_centre_also_far_from_the_origin():
    for shift in (0, 1000):
        table = points(50) + shift
        centre = centre_of_each(table, every(table), [Group(50, 9, 7)])
        heads = centre.unique()
        assert len(heads) == 9
        distance = (table[:, None].double() - table[heads].double()).norm(dim=-1)
        assert torch.equal(centre, heads[distance.argmin(1)])


def test_equal_points_join_the_lowest_index():
    table = torch.ones(6, 4)
    assert centre_of_each(table, every(table), [Group(6, 2, 7)]).tolist() == [0, 1, 0, 0, 0, 0]


def test_noise_breaks_ties():
    table = torch.ones(6, 4)
    noise = torch.tensor([0, 0, 0, 1e-3, 0, 0])
    centre = centre_of_each(table, every(table), [Group(6, 1, 7)], noise)
    assert centre.tolist() == [3] * 6
