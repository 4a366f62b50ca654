from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from streamvlm.memory.age import thin
from streamvlm.memory.age.naming import record_id
from streamvlm.memory.age.thin import bare, fewer, foremost, merged, spread
from streamvlm.memory.disk import codec
from streamvlm.types import MemoryRecord, VisualTokens

STEPS, ROWS, COLUMNS = 4, 3, 5
SECONDS = 8.0


@pytest.fixture
def clip(units) -> Callable[..., MemoryRecord]:
    """A record of 8 s with a frame every 2 s and so many tokens of each, ranked if not told."""

    def make(
        number: int,
        *,
        sizes: Sequence[int] = (6, 6, 6, 6),
        start: float | None = None,
        ranked: bool = True,
        layers: int = 0,
    ) -> MemoryRecord:
        dice = torch.Generator().manual_seed(number)
        begin = SECONDS * number if start is None else start
        step = torch.arange(STEPS).repeat_interleave(torch.tensor(sizes))
        place = torch.cat([torch.arange(size) for size in sizes])
        count = len(step)
        frames = begin + 2.0 * np.arange(STEPS)
        tokens = VisualTokens(
            model="tiny-encoder@1",
            features=torch.randn(count, 64, generator=dice),
            position=torch.stack([step, place // COLUMNS, place % COLUMNS], dim=1),
            seconds=torch.from_numpy(frames)[step],
            grid=(STEPS, ROWS, COLUMNS),
            weight=torch.ones(count),
            rank=torch.randperm(count, generator=dice) if ranked else None,
            deepstack=torch.randn(count, layers, 64, generator=dice) if layers else None,
        )
        return MemoryRecord(
            id=record_id("cam", begin, begin + SECONDS),
            stream="cam",
            start=begin,
            end=begin + SECONDS,
            keys=units(3, seed=number),
            tokens=tokens,
            frame_seconds=frames,
            frame_hash=np.arange(STEPS, dtype=np.uint64) + np.uint64(100 * number),
            thumbnail=bytes([number]) * 50,
        )

    return make


def rows_of(part: VisualTokens, whole: VisualTokens) -> list[int]:
    """Which tokens of a clip these are, by their features."""
    is_same = (part.features[:, None] == whole.features[None]).all(-1)
    assert bool((is_same.sum(1) == 1).all())
    return is_same.int().argmax(1).tolist()


# The foremost


def test_the_foremost_by_rank_come_in_time_order(record):
    tokens = record(0, num_tokens=5).tokens
    ranked = replace(tokens, rank=torch.tensor([7, 0, 9, 3, 8]))
    out = foremost(ranked, 3)
    assert torch.equal(out.features, tokens.features[torch.tensor([0, 1, 3])])
    assert out.rank.tolist() == [7, 0, 3]


def test_without_ranks_an_even_part_is_taken(record):
    tokens = record(0, num_tokens=9).tokens
    assert torch.equal(foremost(tokens, 3).features, tokens.features[torch.tensor([0, 4, 8])])


def test_all_are_the_same_tokens(record):
    tokens = record(0, num_tokens=4).tokens
    assert foremost(tokens, 4) is tokens


# Spread


def test_spread_takes_the_best_of_each_step_then_the_best_of_the_rest(clip):
    tokens = clip(0, sizes=(3, 1, 0, 2)).tokens
    ranked = replace(tokens, rank=torch.tensor([0, 1, 2, 9, 8, 7]))
    assert rows_of(spread(ranked, 3), tokens) == [0, 3, 5]
    assert rows_of(spread(ranked, 4), tokens) == [0, 1, 3, 5]


def test_spread_without_ranks_takes_the_middle_of_each_step(clip):
    tokens = clip(0, sizes=(5, 1, 3, 3), ranked=False).tokens
    assert rows_of(spread(tokens, 4), tokens) == [2, 5, 7, 10]
    assert rows_of(spread(tokens, 6), tokens) == [0, 2, 5, 7, 10, 11]


def test_spread_over_more_steps_than_tokens_is_by_rank_alone(clip):
    tokens = clip(0).tokens
    assert torch.equal(spread(tokens, 3).features, foremost(tokens, 3).features)


@pytest.mark.parametrize("ranked", [True, False])
def test_spread_gives_as_many_as_were_asked_for_and_misses_no_step(clip, ranked):
    for number in range(30):
        sizes = np.random.default_rng(number).integers(0, 9, STEPS).tolist()
        tokens = clip(number, sizes=sizes, ranked=ranked).tokens
        for count in range(1, len(tokens) + 2):
            out = spread(tokens, count)
            assert len(out) == min(count, len(tokens))
            rows = rows_of(out, tokens)
            assert rows == sorted(rows)
            if count >= sum(size > 0 for size in sizes):
                assert set(out.position[:, 0].tolist()) == set(tokens.position[:, 0].tolist())


# Tier 1


def test_fewer_keeps_a_quarter_of_the_tokens_and_everything_else(clip):
    record = clip(3)
    out = fewer(record)
    assert (len(out.tokens), out.tier) == (6, 1)
    assert len(set(out.tokens.position[:, 0].tolist())) == STEPS
    for name in ("id", "stream", "start", "end", "thumbnail"):
        assert getattr(out, name) == getattr(record, name)
    for name in ("keys", "frame_seconds", "frame_hash"):
        assert getattr(out, name) is getattr(record, name)


def test_a_record_of_one_token_keeps_it(clip):
    assert len(fewer(clip(0, sizes=(0, 1, 0, 0))).tokens) == 1


def test_nothing_is_thinned_twice_to_one_tier(clip):
    once = fewer(clip(0))
    assert fewer(once) is once
    (two,) = merged([clip(0), clip(1)], 0.0)
    assert merged([two], 0.0) == (two,)
    assert fewer(two) is two
    gone = bare([two])
    assert bare([gone]) is gone


# Tier 2


def test_neighbours_become_one_record_on_a_grid_of_all_their_steps(clip):
    one, two = clip(0), clip(1)
    (out,) = merged([one, two], 0.0)
    assert (out.start, out.end, out.tier) == (0.0, 16.0, 2)
    assert out.id == record_id("cam", 0.0, 16.0)
    tokens = out.tokens
    assert tokens.grid == (2 * STEPS, ROWS, COLUMNS)
    # Of 24 tokens a clip 6 are left in tier 1 and one for each step in tier 2.
    assert tokens.position[:, 0].tolist() == list(range(8))
    assert tokens.seconds.tolist() == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0, 12.0, 14.0]
    both = torch.cat([one.tokens.features, two.tokens.features])
    place = [(tokens.features[i] == both).all(1).int().argmax().item() for i in range(8)]
    assert place == sorted(place)
    assert torch.equal(tokens.features, both[place])


def test_it_makes_no_difference_whether_tier_1_came_between(clip):
    direct = merged([clip(0), clip(1)], 0.0)[0]
    by_steps = merged([fewer(clip(0)), fewer(clip(1))], 0.0)[0]
    assert codec.pack(direct, "int4") == codec.pack(by_steps, "int4")


def test_a_rich_clip_keeps_two_tokens_for_each_step(clip):
    (out,) = merged([clip(0, sizes=(15, 15, 15, 15))], 0.0)
    assert len(out.tokens) == 2 * STEPS
    assert set(out.tokens.position[:, 0].tolist()) == set(range(STEPS))


def test_the_foremost_of_each_part_come_first(clip):
    parts = [clip(0), clip(1), clip(2)]
    (out,) = merged(parts, 0.0)
    rank = out.tokens.rank
    assert sorted(rank.tolist()) == list(range(len(rank)))
    for count in range(1, 5):
        first = foremost(out.tokens, 3 * count)
        per_part = torch.bincount(first.position[:, 0] // STEPS, minlength=3)
        assert per_part.tolist() == [count] * 3
        for number, part in enumerate(parts):
            few = out.tokens.select(out.tokens.position[:, 0] // STEPS == number)
            kept = part.tokens.rank[rows_of(few, part.tokens)]
            best = kept.sort().values[:count].tolist()
            chosen = first.select(first.position[:, 0] // STEPS == number)
            assert sorted(part.tokens.rank[rows_of(chosen, part.tokens)].tolist()) == best


def test_a_part_without_ranks_counts_in_its_order_and_none_ranked_stays_so(clip):
    (out,) = merged([clip(0), clip(1, ranked=False)], 0.0)
    assert out.tokens.rank[4:].tolist() == [1, 3, 5, 7]
    (none,) = merged([clip(0, ranked=False), clip(1, ranked=False)], 0.0)
    assert none.tokens.rank is None


def test_near_equal_keys_of_neighbours_are_kept_once(clip):
    one, two = clip(0), clip(1)
    two = replace(two, keys=np.concatenate([one.keys[:1], two.keys]))
    (out,) = merged([one, two], 0.0)
    assert np.allclose(out.keys, np.concatenate([one.keys, two.keys[1:]]), atol=1e-6)
    assert np.allclose(np.linalg.norm(out.keys, axis=1), 1, atol=1e-6)


def test_only_frames_that_tokens_show_stay_cited(clip):
    one, two = clip(0, sizes=(0, 4, 0, 0)), clip(1, sizes=(4, 0, 0, 4))
    (out,) = merged([one, two], 0.0)
    assert out.frame_seconds.tolist() == [2.0, 8.0, 14.0]
    assert out.frame_hash.tolist() == [1, 100, 103]
    assert out.frame_hash.dtype == np.uint64


def test_the_thumbnail_is_that_of_the_middle(clip):
    (out,) = merged([clip(number) for number in range(5)], 0.0)
    assert out.thumbnail == clip(2).thumbnail


def test_a_gap_ends_a_run_if_it_is_too_long(clip):
    records = [clip(0), clip(1, start=10.0), clip(2, start=30.0)]
    assert [r.end for r in merged(records, 2.0)] == [18.0, 38.0]
    assert [r.end for r in merged(records, 1.9)] == [8.0, 18.0, 38.0]
    assert [r.end for r in merged(records, 12.0)] == [38.0]


def test_what_does_not_fit_together_stays_apart(clip):
    one, two = clip(0), clip(1)

    def apart(tokens: VisualTokens) -> bool:
        return len(merged([one, replace(two, tokens=tokens)], 0.0)) == 2

    assert apart(replace(two.tokens, grid=(STEPS, ROWS, COLUMNS + 1)))
    assert apart(replace(two.tokens, model="another"))
    assert apart(replace(two.tokens, features=two.tokens.features.half()))
    assert apart(clip(1, layers=2).tokens)
    assert len(merged([one, bare([two])], 0.0)) == 2
    assert not apart(replace(two.tokens, grid=(STEPS + 3, ROWS, COLUMNS)))


def test_deepstack_stays_with_its_tokens(clip):
    records = [clip(0, layers=2), clip(1, layers=2)]
    (out,) = merged(records, 0.0)
    whole = torch.cat([r.tokens.features for r in records])
    deep = torch.cat([r.tokens.deepstack for r in records])
    rows = [(row == whole).all(1).int().argmax().item() for row in out.tokens.features]
    assert torch.equal(out.tokens.deepstack, deep[rows])


def test_merged_records_merge_again_without_losing_tokens(clip):
    (one,) = merged([clip(0), clip(1)], 0.0)
    (two,) = merged([clip(2), clip(3)], 0.0)
    (out,) = merged([one, two], 0.0)
    assert len(out.tokens) == len(one.tokens) + len(two.tokens)
    assert out.tokens.position[:, 0].tolist() == list(range(16))
    assert out.frame_seconds.tolist() == [2.0 * number for number in range(16)]


# Tier 3


def test_a_bare_record_keeps_keys_one_frame_and_the_thumbnail(clip):
    record = clip(1)
    out = bare([record])
    assert (len(out.tokens), out.tier, out.id) == (0, 3, record.id)
    assert out.tokens.features.shape == (0, 64)
    assert np.allclose(out.keys, record.keys, atol=1e-6)
    assert (out.frame_seconds.tolist(), out.frame_hash.tolist()) == ([12.0], [102])
    assert out.thumbnail == record.thumbnail


def test_bare_records_are_merged_over_any_gap_and_any_kind(clip):
    one, two = clip(0), clip(1, start=1000.0, layers=2)
    out = bare([fewer(one), two])
    assert (out.start, out.end) == (0.0, 1008.0)
    assert out.id == record_id("cam", 0.0, 1008.0)


def test_a_bare_record_has_at_most_so_many_keys_however_many_are_merged(clip, units):
    records = [replace(clip(n), keys=units(9, width=64, seed=n)) for n in range(8)]
    pairs = [bare(records[n : n + 2]) for n in range(0, 8, 2)]
    out = bare([bare(pairs[:2]), bare(pairs[2:])])
    assert len(out.keys) == thin.MOST_KEYS
    every = np.concatenate([record.keys for record in records])
    assert ((out.keys @ every.T).max(axis=1) > 1 - 1e-6).all()


def test_what_is_rare_is_found_in_a_long_span_still(clip, units):
    usual, rare = units(2, width=64)
    dull = [replace(clip(n), keys=usual[None]) for n in range(64)]
    dull[17] = replace(dull[17], keys=np.stack([usual, rare]))
    while len(dull) > 1:
        dull = [bare(dull[n : n + 2]) for n in range(0, len(dull), 2)]
    assert (dull[0].start, dull[0].end) == (0.0, 512.0)
    assert len(dull[0].keys) == 2
    assert (dull[0].keys @ rare).max() > 1 - 1e-6


def test_thinned_records_survive_packing(clip, same):
    records = [clip(number, layers=2) for number in range(4)]
    for tier in (1, 2, 3):
        for record in thin.thinned(records, tier):
            assert same(record, codec.unpack(codec.pack(record, "raw"), record.id))
            small = codec.pack(record, thin.payload_of(tier, "raw"))
            back = codec.unpack(small, record.id)
            assert back.tokens.features.shape == record.tokens.features.shape
            assert back.tier == tier


def test_each_tier_is_smaller_and_covers_the_same_time(clip):
    records = [clip(number) for number in range(8)]
    size = sum(len(codec.pack(record, "int8")) for record in records)
    for tier in (1, 2, 3):
        records = thin.thinned(records, tier)
        assert (records[0].start, records[-1].end) == (0.0, 64.0)
        assert {record.tier for record in records} == {tier}
        smaller = sum(len(codec.pack(r, thin.payload_of(tier, "int8"))) for r in records)
        assert smaller < size
        size = smaller


def test_only_records_as_stored_keep_the_codec_of_the_memory():
    assert [thin.payload_of(tier, "raw") for tier in range(4)] == ["raw", "int4", "int4", "int4"]
