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


def test_a_budget_is_dealt_to_steps_by_their_tokens_and_none_gets_more_than_it_has(clip):
    tokens = clip((4, 2, 5))
    tokens = tokens.select(torch.tensor([0, 1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 39]))
    seats = _ops.deal(7, tokens)
    assert seats.tolist()[2] == 0
    assert seats.sum() == 7
    assert seats[1] in (5, 6)
    assert _ops.deal(13, tokens).tolist() == [2, 10, 0, 1]


def test_the_best_of_each_group_are_as_many_as_its_seats():
    score = torch.tensor([1.0, 3, 2, 9, 9])
    best = _ops.best_of_each(score, torch.tensor([0, 0, 0, 1, 1]), torch.tensor([2, 1]))
    assert best.tolist() == [False, True, True, True, False]


def test_a_missing_cue_is_named_beside_those_there_are():
    with pytest.raises(ConfigError, match=r"'attention' is missing .*\(they carry: depth\)"):
        _ops.cue({"depth": torch.ones(1)}, "attention")
