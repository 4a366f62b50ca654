import numpy as np
import pytest

from streamvlm.memory.index.score import maxsim, xtr


def ranking(**scores):
    """Records r0, r1, … with their scores, best first."""
    numbers = sorted(scores, key=lambda name: -scores[name])
    records = np.array([int(name[1:]) for name in numbers], np.int64)
    return records, np.array([scores[name] for name in numbers], np.float32)


def by_hand(rankings, limit):
    tables = [dict(zip(r.tolist(), s.tolist(), strict=True)) for r, s in rankings if len(r)]
    records = sorted(set().union(*tables))
    means = {
        record: sum(table.get(record, min(table.values())) for table in tables) / len(tables)
        for record in records
    }
    ranked = sorted(records, key=lambda record: -means[record])[:limit]
    return ranked, [means[record] for record in ranked]


def test_what_was_not_found_for_a_query_key_counts_as_the_worst_found_for_it():
    records, scores = xtr([ranking(r1=0.9, r2=0.5), ranking(r2=0.8, r3=0.6)], 3)
    assert records.tolist() == [1, 3, 2] or records.tolist() == [1, 2, 3]
    expected = {1: (0.9 + 0.6) / 2, 2: (0.5 + 0.8) / 2, 3: (0.5 + 0.6) / 2}
    assert dict(zip(records.tolist(), scores.tolist(), strict=True)) == pytest.approx(expected)


def test_it_is_what_plain_loops_give():
    random = np.random.default_rng(0)
    for _ in range(20):
        rankings = []
        for _ in range(random.integers(2, 9)):
            found = random.choice(60, random.integers(0, 20), replace=False)
            rankings.append((found, np.sort(random.random(len(found), np.float32))[::-1]))
        if all(not len(found) for found, _ in rankings):
            continue
        records, scores = xtr(rankings, 10)
        wanted, wanted_scores = by_hand(rankings, 10)
        assert records.tolist() == wanted
        np.testing.assert_allclose(scores, wanted_scores, atol=1e-6)
        assert (records.dtype, scores.dtype) == (np.int64, np.float32)


def test_one_query_key_gives_its_own_ranking():
    records, scores = xtr([ranking(r7=0.9, r2=0.5, r4=0.1)], 2)
    assert records.tolist() == [7, 2]
    assert scores.tolist() == pytest.approx([0.9, 0.5])


def test_of_equal_records_those_with_low_numbers_come_first():
    records, _ = xtr([ranking(r9=0.5, r4=0.5), ranking(r9=0.5, r4=0.5, r6=0.5)], 2)
    assert records.tolist() == [4, 6]


def test_a_query_key_for_which_nothing_was_found_says_nothing():
    records, scores = xtr([ranking(), ranking(r1=0.4), ranking()], 5)
    assert records.tolist() == [1]
    assert scores.tolist() == pytest.approx([0.4])


@pytest.mark.parametrize("rankings", [[], [ranking()], [ranking(), ranking()]])
def test_nothing_found_gives_nothing(rankings):
    records, scores = xtr(rankings, 5)
    assert len(records) == len(scores) == 0


def test_maxsim_is_the_mean_over_query_keys_of_the_best_cosine(units):
    queries, keys = units(3), units(7, seed=1)
    expected = sum(max(float(query @ key) for key in keys) for query in queries) / 3
    assert maxsim(queries, keys) == pytest.approx(expected, abs=1e-6)


def test_maxsim_of_a_record_with_itself_is_one(units):
    assert maxsim(units(4), units(4)) == pytest.approx(1, abs=1e-6)
