import math

import numpy as np
import pytest

from streamvlm.bench.intervals import by_group, interval, paired


def test_the_mean_is_that_of_all_questions():
    found = interval([1, 1, 0, 1], clip=[0, 0, 1, 2])
    assert found.mean == 0.75
    assert found.low <= 0.75 <= found.high


def test_the_error_of_single_questions_is_the_one_of_the_textbook():
    right = np.arange(2000) % 4 > 0
    found = interval(right, clip=np.arange(2000))
    assert found.error == pytest.approx(math.sqrt(0.75 * 0.25 / 2000), rel=0.1)
    assert found.high - found.low == pytest.approx(2 * 1.96 * found.error, rel=0.1)


def test_questions_that_stand_and_fall_with_their_clip_tell_less():
    right, clip = np.repeat(np.arange(50) % 2, 10), np.repeat(np.arange(50), 10)
    alone = interval(right, clip=np.arange(500))
    assert interval(right, clip).error > 2.5 * alone.error


def test_the_order_of_the_questions_does_not_matter():
    random = np.random.default_rng(0)
    right, clip = random.integers(0, 2, 60), random.integers(0, 9, 60)
    mixed = random.permutation(60)
    assert interval(right, clip) == interval(right[mixed], clip[mixed])


def test_other_draws_give_nearly_the_same_interval():
    right, clip = np.arange(400) % 3 == 0, np.arange(400) // 4
    one, other = (interval(right, clip, seed=seed) for seed in (1, 2))
    assert one != other
    assert one.error == pytest.approx(other.error, rel=0.15)


def test_one_clip_has_a_mean_and_no_interval():
    found = interval([1, 0], clip=[7, 7])
    assert found.mean == 0.5
    assert math.isnan(found.low)
    assert math.isnan(found.error)


def test_of_nothing_nothing_is_known():
    assert math.isnan(interval([], clip=[]).mean)


def test_clips_may_have_names():
    by_name = interval([1, 0, 1], clip=["seeds 1", "pairs 1", "seeds 1"])
    assert by_name == interval([1, 0, 1], clip=[2, 1, 2])


def test_ten_right_of_ten_are_not_right_for_sure():
    found = interval([1] * 10, clip=range(10))
    # Wilson 1927 without rounding: n / (n + z²) and 1.
    assert (found.mean, found.high) == (1, 1)
    assert found.low == pytest.approx(10 / (10 + 1.96**2))
    assert found.error == pytest.approx((1 - found.low) / 2 / 1.96)
    wrong = interval([0] * 10, clip=range(10))
    assert (wrong.mean, wrong.low) == (0, 0)
    assert wrong.high == pytest.approx(1 - found.low)


def test_of_right_answers_alone_the_clips_count_and_not_the_questions():
    assert interval([1] * 100, clip=np.arange(100) // 10) == interval([1] * 10, clip=range(10))


def test_the_more_clips_are_all_right_the_surer_it_is():
    lows = [interval([1] * n, clip=range(n)).low for n in (4, 40, 400)]
    assert lows == sorted(lows)
    assert lows[-1] > 0.99


def test_a_share_that_is_the_same_on_all_clips_is_not_known_for_sure_either():
    found = interval([1, 0] * 10, clip=np.arange(20) // 2)
    assert found.mean == 0.5
    assert (found.low, found.high) == pytest.approx((0.237, 0.763), abs=0.001)


def test_a_group_of_few_clips_makes_the_mean_of_all_right_groups_less_sure():
    both = by_group([1] * 22, clip=range(22), group=["exist"] * 20 + ["change"] * 2)
    alone = interval([1] * 22, clip=range(22))
    assert both.mean == alone.mean == 1
    assert both.low < alone.low


def test_what_is_the_same_in_both_ways_differs_by_nothing_for_sure():
    right = [1, 0, 1, 1]
    found = paired(right, right, clip=[0, 1, 2, 3])
    assert (found.mean, found.low, found.high, found.error) == (0, 0, 0, 0)


def test_a_paired_difference_is_surer_than_two_shares_apart():
    random = np.random.default_rng(0)
    hard = random.random(300)
    clip = np.arange(300)
    one, other = hard < 0.70, hard < 0.66
    difference = paired(one, other, clip)
    assert difference.mean == pytest.approx(one.mean() - other.mean())
    assert difference.low > 0
    assert interval(one, clip).low < interval(other, clip).high


def test_every_group_counts_alike():
    found = by_group([1, 1, 1, 0], clip=[0, 1, 2, 3], group=["exist"] * 3 + ["when"])
    assert found.mean == 0.5


def test_a_group_of_one_clip_may_be_missing_from_a_draw():
    right, group = [1] * 20 + [0], ["exist"] * 20 + ["change"]
    found = by_group(right, clip=range(21), group=group)
    assert 0.5 <= found.low <= found.high <= 1.0
