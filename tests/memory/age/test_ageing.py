from __future__ import annotations

import time
from itertools import pairwise

import numpy as np
import pytest

from streamvlm.errors import BadOption
from streamvlm.memory.age.ageing import Caps, Entries, Step, expected, plan

MB = 1 << 20


def stream(
    tiers: str, *, size: float = MB, seconds: float = 8.0, gap: float = 0.0, start: float = 0.0
) -> Entries:
    """Entries one after the other, the tier of each a digit."""
    begin = start + np.arange(len(tiers)) * (seconds + gap)
    return Entries(
        start=begin,
        end=begin + seconds,
        bytes=np.full(len(tiers), float(size)),
        tier=np.array([int(digit) for digit in tiers], dtype=np.int64),
    )


def together(*parts: Entries) -> Entries:
    return Entries(
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("start", "end", "bytes", "tier")
        )
    )


def tiers(entries: Entries) -> str:
    return "".join(map(str, entries.tier.tolist()))


# Caps


@pytest.mark.parametrize("name", ["max_bytes", "max_records", "max_files"])
@pytest.mark.parametrize("value", [0, -5, 1, 1.5, "many", True])
def test_a_cap_that_leaves_no_room_is_refused_by_name(name, value):
    with pytest.raises(BadOption, match=name):
        Caps(**{name: value})


def test_a_cap_may_be_left_out():
    assert plan(stream("0" * 500), Caps()) == ()
    assert not Caps().is_near(1e15, 10**9)


def test_a_plan_is_due_at_nine_tenths_of_either_cap():
    caps = Caps(max_bytes=10 * MB, max_records=100)
    assert not caps.is_near(9 * MB, 90)
    assert caps.is_near(9 * MB + 1, 1)
    assert caps.is_near(1, 91)


# Hand-made cases


def test_nothing_is_thinned_before_it_is_needed():
    assert plan(stream("0" * 70), Caps(max_bytes=100 * MB, max_records=100)) == ()
    assert plan(stream(""), Caps(max_bytes=100 * MB)) == ()


def test_as_few_as_are_needed_of_the_oldest_lose_tokens():
    # 80 MB must become 70; each gives back three quarters of its 1 MB: 14 do.
    assert plan(stream("0" * 80), Caps(max_bytes=100 * MB)) == (Step(0, 14, 1),)


def test_the_oldest_in_tier_1_are_merged_by_eight_once_the_newest_have_only_their_share():
    # Goal 21 MB: 7 for tier 0, 7 for tier 1. 16 of tier 1 with 1 MB each are 9 too many.
    entries = stream("1" * 16 + "0" * 7)
    # Eight give back 8 · (1 − 0.12 / 0.25) = 4.16 MB, and 2 are needed.
    assert plan(entries, Caps(max_bytes=30 * MB)) == (Step(0, 8, 2),)


def test_too_many_records_are_merged_without_a_step_in_between():
    # Goal 70: 80 records are 10 too many; a group of eight saves 7.
    assert plan(stream("0" * 80, size=1), Caps(max_records=100)) == (Step(0, 8, 2), Step(8, 16, 2))


def test_records_are_merged_first_because_that_frees_bytes_too():
    # Goals 70 records and 64 MB: two groups of eight save 14 records and 14.08 MB.
    caps = Caps(max_bytes=int(64 * MB / 0.7), max_records=100)
    assert plan(stream("0" * 78), caps) == (Step(0, 8, 2), Step(8, 16, 2))


def test_only_so_many_go_to_tier_3_as_must_be_merged_there():
    entries = stream("2" * 60 + "0" * 20, size=1)
    after = expected(entries, plan(entries, Caps(max_records=100)))
    assert tiers(after) == "3" * 10 + "2" * 40 + "0" * 20


def test_a_gap_ends_a_group():
    entries = together(stream("000"), stream("0" * 77, start=60.0))
    steps = plan(entries, Caps(max_records=100))
    assert steps == (Step(0, 3, 2), Step(3, 11, 2), Step(11, 19, 2))


def test_records_that_all_stand_alone_are_merged_in_tier_3_in_the_end():
    entries = stream("0" * 80, gap=3600.0)
    caps = Caps(max_records=100)
    for _ in range(3):
        entries = expected(entries, plan(entries, caps))
    assert len(entries) == 70
    assert tiers(entries).endswith("0" * 35)
    assert entries.start[0] == 0.0


def test_of_equal_records_of_tier_3_the_oldest_are_merged_first():
    entries = stream("3" * 18 + "0" * 2, size=1)
    # Goal 16.8 records: four pairs are needed.
    steps = plan(entries, Caps(max_records=24))
    assert steps == (Step(0, 2, 3), Step(2, 4, 3), Step(4, 6, 3), Step(6, 8, 3))


def test_neighbours_of_like_length_are_merged_before_a_long_one_takes_a_short_one():
    long = stream("3", size=1, seconds=800.0)
    short = stream("3" * 17, size=1, start=800.0)
    recent = stream("0", size=1, start=936.0)
    steps = plan(together(long, short, recent), Caps(max_records=25))
    assert steps == (Step(1, 3, 3), Step(3, 5, 3))


def test_entries_that_were_thinned_out_of_turn_are_left_in_their_tier():
    entries = stream("0030000" + "0" * 73, size=1)
    after = expected(entries, plan(entries, Caps(max_records=100)))
    assert (after.tier == 3).sum() == 1
    assert (np.diff(after.start) > 0).all()


def test_expected_sizes_follow_the_factors():
    entries = stream("00001111")
    out = expected(entries, [Step(0, 2, 1), Step(2, 6, 2)])
    assert tiers(out) == "11211"
    shares = [0.25, 0.25, 2 * 0.12 + 2 * 0.12 / 0.25, 1, 1]
    assert np.allclose(out.bytes, np.array(shares) * MB)
    assert out.start.tolist() == [0, 8, 16, 48, 56]
    assert out.end.tolist() == [8, 16, 48, 56, 64]


# Properties


def random_streams() -> list[tuple[Entries, Caps]]:
    found = []
    for seed in range(60):
        dice = np.random.default_rng(seed)
        count = int(dice.integers(1, 400))
        order = np.sort(dice.choice(4, count, p=[0.5, 0.2, 0.2, 0.1]))[::-1]
        start = np.cumsum(8.0 + dice.choice([0.0, 5.0, 50.0], count, p=[0.8, 0.1, 0.1]))
        sizes = dice.integers(1_000, 200_000, count).astype(np.float64)
        entries = Entries(start, start + 8.0, sizes, order.astype(np.int64))
        caps = Caps(
            max_bytes=int(dice.integers(8 * MB, 20 * MB)) if dice.random() < 0.8 else None,
            max_records=int(dice.integers(16, 300)) if dice.random() < 0.8 else None,
        )
        found.append((entries, caps))
    return found


@pytest.mark.parametrize(("entries", "caps"), random_streams())
def test_steps_are_disjoint_in_order_and_never_go_back(entries, caps):
    steps = plan(entries, caps)
    assert plan(entries, caps) == steps
    for step in steps:
        assert 0 <= step.first < step.stop <= len(entries)
        assert (entries.tier[step.first : step.stop] <= step.tier).all()
        assert step.tier in (1, 2, 3)
    assert all(one.stop <= other.first for one, other in pairwise(steps))
    after = expected(entries, steps)
    assert (np.diff(after.tier) <= 0).all()
    assert after.start[0] == entries.start[0]
    assert after.end[-1] == entries.end[-1]
    inside = np.searchsorted(after.start, entries.start, side="right") - 1
    assert (entries.end <= after.end[inside]).all()


@pytest.mark.parametrize(("entries", "caps"), random_streams())
def test_the_goal_is_reached_and_fewer_steps_would_not_reach_it(entries, caps):
    steps = plan(entries, caps)

    def is_reached(after: Entries) -> bool:
        most_bytes, most_records = caps.max_bytes or np.inf, caps.max_records or np.inf
        return after.bytes.sum() <= 0.7 * most_bytes and len(after) <= 0.7 * most_records

    assert is_reached(expected(entries, steps))
    if steps:
        assert not is_reached(expected(entries, ()))
    # Of the newest that were thinned, one less would not do if that tier alone was touched.
    if len(steps) == 1 and steps[0].tier == 1:
        assert not is_reached(expected(entries, [steps[0]._replace(stop=steps[0].stop - 1)]))


# Weeks of a camera


def weeks(caps: Caps, *, clips: int, swell: float, seconds: float = 8.0) -> tuple[Entries, float]:
    """A camera whose records are thinned whenever it is due; what it holds, and the slowest plan.

    Args:
        caps: its limits, which are checked at every append.
        clips: how many it appends.
        swell: thinned records come out so many times as large as a plan expects.
    """
    dice = np.random.default_rng(0)
    sizes = dice.normal(60_000, 6_000, clips).clip(30_000).round()
    held, slowest, first = stream(""), 0.0, 0
    while first < clips:
        # All that can be appended before the next plan is due.
        ahead = sizes[first : first + caps.max_records]
        total = held.bytes.sum() + np.cumsum(ahead)
        number = len(held) + 1 + np.arange(len(ahead))
        due = (total > 0.9 * caps.max_bytes) | (number > 0.9 * caps.max_records)
        count = int(due.argmax()) + 1 if due.any() else len(ahead)
        assert total[count - 1] <= caps.max_bytes
        assert number[count - 1] <= caps.max_records
        new = stream("0" * count, seconds=seconds, start=first * seconds)
        held = together(held, Entries(new.start, new.end, sizes[first : first + count], new.tier))
        first += count
        began = time.process_time()
        steps = plan(held, caps)
        slowest = max(slowest, time.process_time() - began)
        if due.any():
            is_thinned = np.zeros(len(held), bool)
            for step in steps:
                is_thinned[step.first : step.stop] = True
            larger = Entries(
                held.start, held.end, held.bytes * np.where(is_thinned, swell, 1), held.tier
            )
            held = expected(larger, steps)
        assert held.start[0] == 0.0
        assert np.array_equal(held.start[1:], held.end[:-1])
        assert held.end[-1] == first * seconds
        assert (held.tier[-400:] == 0).all() or len(held) < 400
    return held, slowest


@pytest.mark.parametrize("swell", [0.8, 1.3])
def test_three_weeks_fit_whatever_the_estimates_are_worth(swell):
    caps = Caps(max_bytes=200_000_000, max_records=5_000)
    held, slowest = weeks(caps, clips=3 * 7 * 24 * 3600 // 8, swell=swell)
    age = held.end[-1] - held.start
    newest = age[held.tier == 0].max()
    assert newest > 1.5 * 3600
    assert (np.diff(held.tier) <= 0).all()
    assert set(held.tier.tolist()) == {0, 1, 2, 3}
    # Spans grow with age: a moment of long ago is known to a twentieth of its age at least.
    assert ((held.end - held.start) / age)[age > 24 * 3600].max() < 0.05
    assert slowest < 0.5


def test_a_year_fits_into_a_few_records():
    caps = Caps(max_bytes=20_000_000, max_records=200)
    held, _ = weeks(caps, clips=365 * 24 * 4, swell=1.0, seconds=900.0)
    assert len(held) <= 200
    assert held.end[-1] == 365 * 24 * 3600.0


def test_a_plan_for_many_records_takes_well_under_a_second():
    entries = together(
        stream("3" * 4_000, size=10_000),
        stream("2" * 2_000, size=10_000, start=32_000.0),
        stream("1" * 2_000, size=10_000, start=48_000.0),
        stream("0" * 2_000, size=60_000, start=64_000.0),
    )
    began = time.process_time()
    plan(entries, Caps(max_bytes=20_000_000, max_records=1_000))
    assert time.process_time() - began < 0.5
