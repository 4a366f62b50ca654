"""What is new gets a place in the index, and what is not is found all the same."""

import numpy as np
import pytest

from streamvlm.errors import BadOption
from streamvlm.memory.index.novelty import WINDOW, Novelty, StreamNovelty
from streamvlm.memory.maintain import erase
from streamvlm.memory.store import Memory, ShardLimits


def near(key, cosine, seed=0):
    """A unit vector with a given cosine to another."""
    aside = np.random.default_rng(seed + 1000).normal(size=len(key))
    aside -= (aside @ key) * key
    mixed = cosine * key + np.sqrt(1 - cosine**2) * aside / np.linalg.norm(aside)
    return mixed.astype(np.float32)


def test_the_first_record_is_an_anchor_and_what_repeats_it_is_not_novel(units):
    key = units(1)[0]
    novel = StreamNovelty(Novelty())
    assert novel.is_due(0.0)
    assert novel(np.stack([key, key]), 0.0).tolist() == [True, True]
    assert not novel.is_due(8.0)
    keys = np.stack([near(key, 0.95), near(key, 0.85, 1), near(key, 0.5, 2)])
    assert novel(keys, 8.0).tolist() == [False, True, True]


def test_a_key_that_repeats_one_of_its_own_record_is_not_novel(units):
    novel = StreamNovelty(Novelty())
    novel(units(1), 0.0)
    new = units(2, seed=5)
    keys = np.stack([new[0], near(new[0], 0.99), new[1], near(new[1], 0.99)])
    assert novel(keys, 8.0).tolist() == [True, False, True, False]


def test_at_each_anchor_the_comparison_starts_afresh(units):
    key, other = units(2)
    novel = StreamNovelty(Novelty(anchor_seconds=20.0))
    novel(key[None], 0.0)
    assert novel(key[None], 12.0).tolist() == [False]
    assert novel.is_due(20.0)
    assert novel(other[None], 20.0).tolist() == [True]
    # It was seen before the anchor, so what is stored since would not tell of it.
    assert novel(key[None], 28.0).tolist() == [True]


def test_a_clock_that_jumps_back_makes_an_anchor(units):
    novel = StreamNovelty(Novelty())
    novel(units(1), 100.0)
    assert novel.is_due(50.0)


def test_only_the_last_kept_keys_are_compared(units):
    novel = StreamNovelty(Novelty(cosine=0.999))
    keys = units(WINDOW + 1)
    novel(keys[:1], 0.0)
    novel(keys[1:], 8.0)
    assert novel(keys[:2], 16.0).tolist() == [True, False]


def test_above_one_every_key_is_indexed(units):
    novel = StreamNovelty(Novelty(cosine=1.01))
    key = units(1)
    assert all(novel(key, 8.0 * n).all() for n in range(5))


@pytest.mark.parametrize("rule", [{"cosine": 0}, {"anchor_seconds": 0}, {"anchor_seconds": -1}])
def test_an_impossible_rule_is_refused(rule):
    with pytest.raises(BadOption, match="novelty"):
        Novelty(**rule)


@pytest.fixture
def camera(record, units):
    """200 records of a camera: a background that drifts, and now and then something else."""
    background, *things = units(9, seed=3)
    drift = np.random.default_rng(0).normal(scale=0.02, size=(200, 3, 32)).cumsum(axis=0)
    made = []
    for number in range(200):
        keys = background + 0.1 * drift[number]
        if number % 25 in (11, 12):
            keys[1] = things[number // 25] + 0.05 * drift[number, 1]
        keys = (keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32)
        made.append(record(number, start=8.0 * number, keys=keys, num_tokens=1, width=4))
    return made, np.stack(things)


def indexed_keys(memory):
    return sum(row[5] for row in memory._rows.totals())


def test_few_keys_are_indexed_and_every_event_is_found(path, identity, camera):
    records, things = camera
    with Memory.create(path, identity, sync="process") as memory:
        for one in records:
            memory.append([one])
        assert indexed_keys(memory) < 0.2 * 600
        for number, thing in enumerate(things):
            first, second = memory.search(thing, limit=2)
            wanted = {25 * number + 11, 25 * number + 12}
            # The second of the two is not indexed, but looked at beside the first.
            assert {int(first.id, 16), int(second.id, 16)} == wanted


def test_a_window_of_time_gives_what_brute_force_over_all_keys_gives(path, identity, camera):
    records, things = camera
    with Memory.create(path, identity, sync="process") as memory:
        memory.append(records)
        for since, until in [(0, 99), (95, 105), (100, 700), (777, 800), (1000, 1600), (290, 310)]:
            fits = [one for one in records if one.end > since and one.start < until]
            for thing in things:
                scores = {one.id: float((one.keys @ thing).max()) for one in fits}
                (hit,) = memory.search(thing, since=since, until=until, limit=1)
                assert scores[hit.id] == pytest.approx(max(scores.values()), abs=0.01)
                assert hit.score == pytest.approx(scores[hit.id], abs=0.01)


def test_another_process_goes_on_as_the_first_would_have(tmp_path, identity, camera):
    records, _ = camera
    with Memory.create(tmp_path / "one", identity, sync="process") as memory:
        for one in records:
            memory.append([one])
    Memory.create(tmp_path / "many", identity, sync="process").close()
    for first in range(0, 200, 23):
        with Memory.open(tmp_path / "many", sync="process") as memory:
            memory.append(records[first : first + 23])
    one, many = (next((tmp_path / name / "shards").iterdir()) for name in ("one", "many"))
    assert one.read_bytes() == many.read_bytes()


def test_the_size_of_shards_makes_no_difference(tmp_path, identity, camera):
    records, things = camera
    found = []
    for name, limits in (("large", ShardLimits()), ("small", ShardLimits(max_keys=5))):
        with Memory.create(tmp_path / name, identity, sync="process", limits=limits) as memory:
            for first in range(0, 200, 7):
                memory.append(records[first : first + 7])
            found.append([hit for thing in things for hit in memory.search(thing, limit=5)])
    large, small = found
    assert [hit.id for hit in large] == [hit.id for hit in small]
    assert [h.score for h in large] == pytest.approx([h.score for h in small], abs=1e-5)


def test_several_query_keys_find_what_fits_all_of_them(memory, record, units):
    a, b, c, d = units(4, seed=9)
    memory.append([record(1, keys=np.stack([a, c])), record(2, keys=np.stack([a, b]))])
    memory.append([record(3, keys=np.stack([b, d])), record(4, keys=np.stack([c, d]))])
    hits = memory.search(np.stack([a, b]), limit=4)
    assert hits[0].id == record(2).id
    assert hits[0].score == pytest.approx(1.0, abs=1e-3)
    assert {hits[1].id, hits[2].id} == {record(1).id, record(3).id}


def test_how_many_are_asked_for_does_not_change_who_comes_first(memory, record, units):
    queries = units(3, seed=70)
    memory.append([record(n, keys=units(3, seed=500 + n)) for n in range(400)])
    few = memory.search(queries, limit=5)
    many = memory.search(queries, limit=300)
    assert [hit.id for hit in many[:5]] == [hit.id for hit in few]
    assert len({hit.id for hit in many}) == 300
    scores = [hit.score for hit in many]
    assert scores == sorted(scores, reverse=True)


def test_what_was_moved_is_not_read_again(path, identity, record, monkeypatch):
    """A reader that has the keys of a shard takes them along to where its records went."""
    with Memory.create(path, identity, sync="process") as memory:
        memory.append([record(n, stream="ab"[n % 2]) for n in range(60)])
        with Memory.open(path, writable=False) as reader:
            assert reader.search(record(7).keys[0], limit=1)[0].id == record(7).id
            memory.forget("a")
            memory.roll()
            erase(path, sync="process")
            monkeypatch.setattr("streamvlm.memory.index.part.unpack_indexed", None)
            for number in range(1, 60, 2):
                (hit,) = reader.search(record(number).keys[1], limit=1)
                assert hit.id == record(number).id
                assert hit.score == pytest.approx(1, abs=1e-3)
            assert len(reader.search(record(7).keys[0], limit=99)) == 30
