from dataclasses import replace

import numpy as np
import pytest
import torch

from streamvlm.memory.retrieve import candidates, chosen, fit, load_intact, retrieve
from streamvlm.memory.store import Memory
from streamvlm.types import Evidence, Query


@pytest.fixture
def memory(tmp_path, identity):
    with Memory.create(tmp_path / "m", identity, payload="raw", sync="process") as memory:
        yield memory


def toward(query_keys, other, closeness):
    """A unit key (1, E) whose cosine with the query's one key is `closeness`."""
    (query,) = query_keys
    aside = other - (other @ query) * query
    key = closeness * query + np.sqrt(1 - closeness**2) * aside / np.linalg.norm(aside)
    return key[None].astype(np.float32)


@pytest.fixture
def query_key(units):
    """(1, E): what is sought."""
    return units(1, seed=1000)


@pytest.fixture
def ranked(record, units, query_key):
    """Makes records whose similarity to the query falls with their number: 0.9, 0.85, …"""

    def make(count, **options):
        others = units(count, seed=77)
        return [
            record(n, keys=toward(query_key, others[n], 0.9 - 0.05 * n), **options)
            for n in range(count)
        ]

    return make


def numbers(evidence):
    return [int(each.record.id, 16) for each in evidence]


def test_evidence_comes_in_time_order_with_its_scores(memory, ranked, query_key):
    records = [replace(one, start=9.0 - n, end=10.0 - n) for n, one in enumerate(ranked(5))]
    memory.append(records)
    found = retrieve(memory, query_key, Query("where?", max_records=3))
    assert numbers(found) == [2, 1, 0]
    assert [each.score for each in found] == pytest.approx([0.8, 0.85, 0.9], abs=1e-3)


def test_evidence_of_several_streams_comes_stream_by_stream(memory, record, query_key):
    memory.append([record(1, stream="b"), record(2, stream="a"), record(3, stream="b")])
    found = retrieve(memory, query_key, Query("where?"))
    assert [(each.record.stream, each.record.start) for each in found] == [
        ("a", 2.0),
        ("b", 1.0),
        ("b", 3.0),
    ]


def test_streams_and_times_of_the_query_are_kept_to(memory, record, query_key):
    memory.append([record(n, stream="ab"[n % 2]) for n in range(12)])
    query = Query("where?", streams=("a",), since=4.5, until=10.0, max_records=12)
    assert numbers(retrieve(memory, query_key, query)) == [4, 6, 8]


def test_no_more_records_than_asked_for(memory, ranked, query_key):
    memory.append(ranked(6))
    assert len(retrieve(memory, query_key, Query("where?", max_records=2))) == 2


def test_the_budget_goes_to_the_most_relevant(memory, ranked, query_key):
    memory.append(ranked(6, num_tokens=10))
    found = retrieve(memory, query_key, Query("where?", max_tokens=35))
    assert numbers(found) == [0, 1, 2]
    assert sum(len(each.record.tokens) for each in found) <= 35


def test_one_record_is_always_given_thinned_if_it_must_be(memory, ranked, query_key):
    memory.append(ranked(3, num_tokens=10))
    (found,) = retrieve(memory, query_key, Query("where?", max_tokens=4))
    assert numbers([found]) == [0]
    assert found.record.tokens.position[:, 0].tolist() == [0, 3, 6, 9]


def test_what_is_to_come_first_does_and_once(memory, ranked, query_key):
    records = ranked(6, num_tokens=10)
    memory.append(records)
    first = [Evidence(records[5], 0.65), Evidence(records[0], 0.9)]
    for most, expected in ((1, [5]), (2, [0, 5]), (3, [0, 1, 5])):
        query = Query("where?", max_records=most)
        assert numbers(chosen(candidates(memory, query_key, query, first=first), query)) == expected
    query = Query("where?", max_tokens=25)
    assert numbers(chosen(candidates(memory, query_key, query, first=first), query)) == [0, 5]


def test_what_is_to_come_first_does_although_it_repeats_its_neighbour(
    memory, record, units, query_key
):
    still = toward(query_key, units(1, seed=5)[0], 0.3)
    other = toward(query_key, units(1, seed=6)[0], 0.9)
    memory.append([record(0, keys=still), record(1, keys=still), record(50, keys=other)])
    first = [Evidence(each, 0.3) for each in memory.load([f"{n:016x}" for n in (0, 1)])]
    query = Query("where?", max_records=2)
    assert numbers(chosen(candidates(memory, query_key, query, first=first), query)) == [0, 1]


def test_an_empty_memory_gives_nothing(memory, query_key):
    assert retrieve(memory, query_key, Query("where?")) == ()


def test_a_damaged_record_is_left_out_with_a_warning(tmp_path, memory, ranked, query_key, caplog):
    memory.append(ranked(3))
    (shard,) = (tmp_path / "m" / "shards").iterdir()
    content = bytearray(shard.read_bytes())
    content[len(content) // 6] ^= 1
    shard.write_bytes(content)
    assert numbers(retrieve(memory, query_key, Query("where?"))) == [1, 2]
    assert (
        "left out of the evidence: /videos/a.mp4, 0–1 s: record 0000000000000000 is damaged"
        in caplog.text
    )


def test_a_still_scene_does_not_crowd_out_another(memory, record, units, query_key):
    still = toward(query_key, units(1, seed=5)[0], 0.9)
    other = toward(query_key, units(1, seed=6)[0], 0.3)
    memory.append([record(n, keys=still) for n in range(4)])
    memory.append([record(50, keys=other)])
    assert numbers(retrieve(memory, query_key, Query("where?", max_records=2))) == [0, 50]
    assert numbers(retrieve(memory, query_key, Query("where?", max_records=3))) == [0, 1, 50]
    assert numbers(retrieve(memory, query_key, Query("where?"))) == [0, 1, 2, 3, 50]


def test_a_record_without_tokens_takes_no_place_of_one_that_is_read(memory, ranked, query_key):
    first, second, *others = ranked(4)
    thinned = [
        replace(each, tokens=each.tokens.select(torch.arange(0))) for each in (first, second)
    ]
    memory.append([*thinned, *others])
    assert numbers(retrieve(memory, query_key, Query("where?", max_records=1))) == [0, 2]
    assert numbers(retrieve(memory, query_key, Query("where?", max_records=2))) == [0, 1, 2, 3]
    assert numbers(retrieve(memory, query_key, Query("where?", max_tokens=1))) == [0, 1, 2]


def test_a_smaller_record_may_fit_where_a_larger_one_does_not(record):
    sizes = (10, 30, 5, 8)
    ranked = [Evidence(record(n, num_tokens=size), 1.0) for n, size in enumerate(sizes)]
    assert [len(each.record.tokens) for each in fit(ranked, 20)] == [10, 5]
    assert fit(ranked, 53) == ranked
    assert [len(each.record.tokens) for each in fit(ranked, 52)] == [10, 30, 5]


def test_a_record_with_ranks_is_cut_to_the_room_that_is_left(record):
    def ranked_record(n: int, size: int) -> Evidence:
        made = record(n, num_tokens=size)
        rank = torch.arange(size).flip(0)
        return Evidence(replace(made, tokens=replace(made.tokens, rank=rank)), 1.0)

    first, second, third = (ranked_record(n, size) for n, size in enumerate((10, 30, 5)))
    kept = fit([first, second, third], 16)
    assert [len(each.record.tokens) for each in kept] == [10, 6]
    assert torch.equal(kept[1].record.tokens.features, second.record.tokens.features[-6:])


@pytest.mark.parametrize("budget", [1, 2, 7, 9])
def test_thinning_is_even_and_in_order(record, budget):
    one = record(0, num_tokens=10)
    (kept,) = fit([Evidence(one, 1.0)], budget)
    index = kept.record.tokens.position[:, 0]
    assert len(index) == budget
    assert bool((index.diff() > 0).all())
    assert index[0] == 0
    assert int(index.diff().max() if budget > 1 else 1) <= -(-9 // max(budget - 1, 1))
    assert torch.equal(kept.record.tokens.features, one.tokens.features[index])
    assert len(one.tokens) == 10


def test_nothing_fits_nothing():
    assert fit([], 10) == []


def test_a_record_that_was_merged_since_it_was_found_gives_the_merged_one(memory, record):
    memory.append([record(1)])
    (hit,) = memory.search(record(1).keys[0])
    memory.forget(record(1).stream)
    assert list(load_intact(memory, [hit])) == []
    merged = replace(record(9, start=0.0), end=8.0)
    memory.append([merged])
    (found,) = load_intact(memory, [hit])
    assert (found.record.id, found.score) == (merged.id, hit.score)
