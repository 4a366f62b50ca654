import sys

import numpy as np
import pytest

from streamvlm.errors import MissingDependency
from streamvlm.memory import scan
from streamvlm.memory.scan import INDEX_FROM, Scanner, best

WIDTH = 64


def scanner_of(keys: np.ndarray) -> Scanner:
    scanner = Scanner(np.empty((0, keys.shape[1]), np.float16))
    scanner.add(keys.astype(np.float16))
    return scanner


def brute_force(keys, query, owners, allowed, limit):
    """Records and scores by the plainest means, on what is stored."""
    stored = keys.astype(np.float16).astype(np.float32)
    scores = stored @ query / np.linalg.norm(stored, axis=1)
    allowed = np.ones(len(keys), bool) if allowed is None else allowed
    best_of: dict[int, float] = {}
    for owner, score in zip(owners[allowed].tolist(), scores[allowed].tolist(), strict=True):
        best_of[owner] = max(score, best_of.get(owner, -2))
    ranked = sorted(best_of, key=lambda owner: (-best_of[owner], owner))[:limit]
    return ranked, [best_of[owner] for owner in ranked]


def cameras(units, count, *, seed):
    """Keys as fixed cameras give them: most repeat a slowly changing background, few do not."""
    random = np.random.default_rng(seed)
    drift = np.cumsum(random.normal(size=(count, WIDTH)), axis=0) * 0.05
    background = random.normal(size=(5, WIDTH))[np.arange(count) * 5 // count]
    keys = background + drift + 0.3 * random.normal(size=(count, WIDTH))
    events = random.choice(count, count // 50, replace=False)
    keys[events] += 2 * random.normal(size=(len(events), WIDTH))
    return (keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32)


def test_few_keys_rank_as_brute_force_does(units):
    keys, owners = units(500, width=WIDTH), np.arange(500) // 4
    scanner = scanner_of(keys)
    for query in units(20, width=WIDTH, seed=1):
        records, scores = scanner.search(query, owners, None, 10)
        wanted, wanted_scores = brute_force(keys, query, owners, None, 10)
        assert records.tolist() == wanted
        np.testing.assert_allclose(scores, wanted_scores, atol=1e-6)


def test_few_keys_need_no_faiss(units, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    scanner = scanner_of(units(INDEX_FROM - 1, width=WIDTH))
    records, _ = scanner.search(units(1, width=WIDTH)[0], np.arange(INDEX_FROM - 1), None, 1)
    assert records.tolist() == [0]
    assert not scanner.has_index


def test_many_keys_without_faiss_name_the_extra(units, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    scanner = scanner_of(units(INDEX_FROM, width=WIDTH))
    with pytest.raises(
        MissingDependency, match=r'install the extra: pip install "streamvlm\[cpu\]"'
    ):
        scanner.search(units(1, width=WIDTH)[0], np.arange(INDEX_FROM), None, 1)


def test_a_narrow_filter_needs_no_faiss_even_with_many_keys(units, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    keys = units(INDEX_FROM, width=WIDTH)
    allowed = np.zeros(INDEX_FROM, bool)
    allowed[[5, 70, 900]] = True
    records, _ = scanner_of(keys).search(keys[70], np.arange(INDEX_FROM), allowed, 2)
    assert records[0] == 70
    assert set(records.tolist()) <= {5, 70, 900}


@pytest.mark.parametrize("make", ["random", "cameras"])
def test_the_one_bit_index_finds_what_brute_force_finds(units, make):
    count = 20_000
    keys = units(count, width=WIDTH) if make == "random" else cameras(units, count, seed=0)
    owners = np.arange(count) // 2
    scanner = scanner_of(keys)
    random = np.random.default_rng(1)
    found = wanted_total = 0
    for number in range(30):
        noise = random.normal(size=WIDTH) * 0.06
        query = keys[random.integers(count)] + noise if number % 2 else random.normal(size=WIDTH)
        query = (query / np.linalg.norm(query)).astype(np.float32)
        records, scores = scanner.search(query, owners, None, 10)
        wanted, wanted_scores = brute_force(keys, query, owners, None, 10)
        found += len(set(records.tolist()) & set(wanted))
        wanted_total += len(wanted)
        assert scores[0] == pytest.approx(wanted_scores[0], abs=1e-6)
    assert scanner.has_index
    assert found / wanted_total >= 0.97


def test_the_codes_alone_settle_a_search_that_has_clear_winners(units):
    keys = units(10_000, width=384)
    query = units(1, width=384, seed=9)[0]
    for place in range(0, 10_000, 1_250):
        keys[place] = query + 0.3 * keys[place]
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    found = scanner_of(keys)._search_codes(query, np.arange(10_000), None, (256, 8))
    assert found is not None
    assert found[0].tolist() == brute_force(keys, query, np.arange(10_000), None, 8)[0]


def test_the_codes_do_not_settle_a_search_without_winners(units):
    query = units(1, width=WIDTH, seed=9)[0]
    scanner = scanner_of(units(10_000, width=WIDTH))
    assert scanner._search_codes(query, np.arange(10_000), None, (256, 8)) is None


def test_near_duplicates_are_told_apart_although_float16_blurs_their_lengths(units):
    count = 10_000
    keys = units(1, width=WIDTH) + 0.1 * units(count, width=WIDTH, seed=3)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    scanner = scanner_of(keys)
    for place in range(0, count, 500):
        records, scores = scanner.search(keys[place], np.arange(count), None, 1)
        assert records.tolist() == [place]
        assert scores[0] == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_filter_gives_what_brute_force_gives_on_the_rest(units, share):
    count = 20_000
    keys, owners = cameras(units, count, seed=4), np.arange(count)
    scanner = scanner_of(keys)
    random = np.random.default_rng(5)
    found = 0
    for _ in range(10):
        allowed = random.random(count) < share
        query = units(1, width=WIDTH, seed=int(random.integers(1 << 30)))[0]
        records, _ = scanner.search(query, owners, allowed, 10)
        assert allowed[records].all()
        found += len(set(records.tolist()) & set(brute_force(keys, query, owners, allowed, 10)[0]))
    assert found / 100 >= 0.97


def test_keys_added_after_the_index_was_made_are_found(units):
    keys = units(INDEX_FROM + 300, width=WIDTH)
    scanner = scanner_of(keys[:INDEX_FROM])
    scanner.search(keys[0], np.arange(INDEX_FROM), None, 1)
    assert scanner.has_index
    for start in range(INDEX_FROM, INDEX_FROM + 300, 100):
        scanner.add(keys[start : start + 100].astype(np.float16))
    assert len(scanner) == INDEX_FROM + 300
    for place in (3, INDEX_FROM, INDEX_FROM + 299):
        records, _ = scanner.search(keys[place], np.arange(len(keys)), None, 1)
        assert records.tolist() == [place]


def test_the_index_survives_being_written_and_read(units):
    keys = units(10_000, width=WIDTH)
    scanner, owners = scanner_of(keys), np.arange(10_000)
    before = [scanner.search(query, owners, None, 5)[0].tolist() for query in keys[:20]]
    again = Scanner(keys.astype(np.float16), scanner.serialize())
    assert [again.search(query, owners, None, 5)[0].tolist() for query in keys[:20]] == before


def test_an_index_that_faiss_cannot_read_is_made_again(units, caplog):
    keys = units(10_000, width=WIDTH).astype(np.float16)
    scanner = Scanner(keys, b"this is not an index")
    records, _ = scanner.search(keys[77].astype(np.float32), np.arange(10_000), None, 1)
    assert records.tolist() == [77]
    assert "is made again" in caplog.text


def test_no_index_is_written_before_one_was_needed(units):
    assert scanner_of(units(10_000, width=WIDTH)).serialize() is None


def test_nothing_allowed_gives_nothing(units):
    scanner = scanner_of(units(10, width=WIDTH))
    records, scores = scanner.search(units(1, width=WIDTH)[0], np.arange(10), np.zeros(10, bool), 5)
    assert len(records) == len(scores) == 0


def test_an_empty_scanner_gives_nothing(units):
    scanner = scanner_of(np.empty((0, WIDTH)))
    assert len(scanner.search(units(1, width=WIDTH)[0], np.empty(0, np.int64), None, 5)[0]) == 0


def test_of_equal_scores_the_first_wins():
    records, scores = best(np.arange(6), np.array([1, 3, 3, 2, 3, 0], np.float32), 2)
    assert records.tolist() == [1, 2]
    assert scores.tolist() == [3, 3]


def test_memory_grows_with_the_keys_and_not_with_the_number_of_additions(units):
    scanner = Scanner(np.empty((0, WIDTH), np.float16))
    keys = units(1, width=WIDTH).astype(np.float16)
    for _ in range(1000):
        scanner.add(keys)
    assert len(scanner) == 1000
    assert len(scanner._tail) <= 2048
    assert scan.INDEX_FROM > 1000
