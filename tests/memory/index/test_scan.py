import sys
import threading

import numpy as np
import pytest
import torch

from streamvlm.errors import MissingDependency
from streamvlm.memory.index.codes import Codes
from streamvlm.memory.index.device import DeviceScanner, scanner_on
from streamvlm.memory.index.scan import INDEX_FROM, Asked, Scanner, best, best_per_record

WIDTH = 64
MANY = 40_000

DEVICES = ["cpu", "torch", pytest.param("cuda", marks=pytest.mark.gpu)]
"""The scanner of main memory, and the one of torch devices on the CPU and on a GPU."""


def make_scanner(device, keys, index=None):
    if device == "torch":
        return DeviceScanner(keys, index, device="cpu")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return scanner_on(device, keys, index)


def scanner_of(keys, *, device="cpu"):
    scanner = make_scanner(device, np.empty((0, keys.shape[1]), np.float16))
    scanner.add(keys.astype(np.float16))
    return scanner


def search(scanner, queries, owners, allowed, limit):
    """The rankings where this shard is the only one."""
    look = scanner.look(Asked(queries, owners, allowed, limit))
    return look.settled(np.full(len(queries), -np.inf, np.float32))


def brute_force(keys, query, owners, allowed, limit):
    """Records and scores by the plainest means, on what is stored."""
    stored = keys.astype(np.float16).astype(np.float32)
    scores = stored @ query / np.linalg.norm(stored, axis=1)
    allowed = np.ones(len(keys), bool) if allowed is None else allowed
    best_of = np.full(owners.max() + 1, -2.0)
    np.maximum.at(best_of, owners[allowed], scores[allowed])
    ranked = np.argsort(-best_of, kind="stable")[: min(limit, np.count_nonzero(best_of > -2))]
    return ranked.tolist(), best_of[ranked]


def cameras(count, *, seed):
    """Keys as fixed cameras give them, and queries for the objects that pass now and then."""
    random = np.random.default_rng(seed)
    drift = np.cumsum(random.normal(size=(count, WIDTH)), axis=0) * 0.005
    background = random.normal(size=(5, WIDTH))[np.arange(count) * 5 // count]
    keys = background + drift + 0.14 * random.normal(size=(count, WIDTH))
    objects = random.normal(size=(10, WIDTH))
    for start in random.choice(count - 4, count // 200, replace=False):
        keys[start : start + 4] += 2 * objects[random.integers(10)]
    queries = objects + 0.5 * random.normal(size=objects.shape)
    return unit(keys), unit(queries)


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32)


def shared(ranking, wanted):
    """How many of the records wanted were found."""
    return len(set(ranking[0].tolist()) & set(wanted[0]))


@pytest.fixture(scope="module")
def crowd():
    """Random keys, many enough for an index."""
    return unit(np.random.default_rng(0).normal(size=(MANY, WIDTH)))


@pytest.fixture(scope="module")
def indexed(crowd):
    scanner = scanner_of(crowd)
    search(scanner, crowd[:1], np.arange(MANY), None, 1)
    assert scanner.has_index
    return scanner


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, 2, 500, 3_000])
@pytest.mark.parametrize("filtered", [False, True])
def test_the_records_are_those_of_brute_force(units, device, count, filtered):
    keys, owners = units(count, width=WIDTH), np.arange(count) // 3
    allowed = np.random.default_rng(2).random(count) < 0.3 if filtered else None
    # What may not be found need not have an owner.
    held = owners if allowed is None else np.where(allowed, owners, -1)
    queries = units(5, width=WIDTH, seed=1)
    found = search(scanner_of(keys, device=device), queries, held, allowed, 10)
    assert len(found) == 5
    for query, (records, scores) in zip(queries, found, strict=True):
        wanted, wanted_scores = brute_force(keys, query, owners, allowed, 10)
        assert records.tolist() == wanted
        np.testing.assert_allclose(scores, wanted_scores, atol=1e-6)
        assert (records.dtype, scores.dtype) == (np.int64, np.float32)


@pytest.mark.parametrize("device", DEVICES)
def test_how_keys_arrive_does_not_matter(units, device):
    keys, owners = units(900, width=WIDTH).astype(np.float16), np.arange(900) // 2
    queries = units(4, width=WIDTH, seed=1)
    whole = search(make_scanner(device, keys), queries, owners, None, 9)
    pieces = make_scanner(device, keys[:100])
    for start in range(100, 900, 77):
        pieces.add(keys[start : start + 77])
    assert len(pieces) == 900
    assert np.array_equal(np.concatenate(pieces.keys), keys)
    order = np.random.default_rng(3).permutation(450)
    shuffled = keys.reshape(450, 2, WIDTH)[order].reshape(900, WIDTH)
    mixed = search(make_scanner(device, shuffled), queries, owners, None, 9)
    split = search(pieces, queries, owners, None, 9)
    for one, other, third in zip(whole, split, mixed, strict=True):
        assert one[0].tolist() == other[0].tolist() == order[third[0]].tolist()
        np.testing.assert_allclose(one[1], other[1], atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_of_equal_records_the_first_win(units, device):
    keys = np.repeat(units(50, width=WIDTH), 4, axis=0)
    ((records, scores),) = search(
        scanner_of(keys, device=device), keys[80:81], np.arange(200), None, 3
    )
    assert records.tolist() == [80, 81, 82]
    assert scores == pytest.approx([1, 1, 1], abs=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_negative_scores_are_in_order_too(units, device):
    keys = -unit(units(1, width=WIDTH) + 0.3 * units(40, width=WIDTH, seed=1))
    ((records, _),) = search(
        scanner_of(keys, device=device), units(1, width=WIDTH), np.arange(40), None, 40
    )
    assert (
        records.tolist() == brute_force(keys, units(1, width=WIDTH)[0], np.arange(40), None, 40)[0]
    )


@pytest.mark.parametrize("device", DEVICES)
def test_nothing_allowed_and_nothing_held_give_nothing(units, device):
    queries = units(2, width=WIDTH)
    none = search(
        scanner_of(units(10, width=WIDTH), device=device),
        queries,
        np.full(10, -1),
        np.zeros(10, bool),
        5,
    )
    empty = search(
        scanner_of(np.empty((0, WIDTH)), device=device), queries, np.empty(0, np.int64), None, 5
    )
    assert [len(records) for records, _ in none + empty] == [0, 0, 0, 0]


@pytest.mark.parametrize("device", DEVICES)
def test_a_key_of_zeros_scores_zero(units, device):
    keys = np.concatenate([np.zeros((1, WIDTH)), units(3, width=WIDTH)])
    ((records, scores),) = search(
        scanner_of(keys, device=device), units(1, width=WIDTH), np.arange(4), None, 4
    )
    assert scores[records.tolist().index(0)] == 0


@pytest.mark.parametrize("device", DEVICES)
def test_keys_beyond_the_owners_are_not_found(units, device):
    keys = units(20, width=WIDTH)
    ((records, _),) = search(scanner_of(keys, device=device), keys[15:16], np.arange(10), None, 20)
    assert sorted(records.tolist()) == list(range(10))


@pytest.mark.parametrize("device", DEVICES)
def test_near_duplicates_are_told_apart_although_float16_blurs_their_lengths(units, device):
    count = 5_000
    keys = unit(units(1, width=WIDTH) + 0.1 * units(count, width=WIDTH, seed=3))
    places = np.arange(0, count, 250)
    found = search(scanner_of(keys, device=device), keys[places], np.arange(count), None, 1)
    assert [records.tolist() for records, _ in found] == places[:, None].tolist()
    assert [scores[0] for _, scores in found] == pytest.approx([1] * len(places), abs=1e-6)


@pytest.mark.parametrize("device", DEVICES)
def test_threads_search_while_another_adds(crowd, device):
    keys = crowd.astype(np.float16)
    keys = np.concatenate([keys, keys[::-1][:20_000]])
    scanner, owners = make_scanner(device, keys[:30_000]), np.arange(60_000)
    done, faults = threading.Event(), []

    def add():
        for start in range(30_000, 60_000, 1_000):
            scanner.add(keys[start : start + 1_000])
        done.set()

    def find(seed):
        random = np.random.default_rng(seed)
        try:
            while not (done.is_set() and random.random() < 0.5):
                count = len(scanner)
                place = random.integers(min(count, 40_000))
                found = search(scanner, crowd[[place, -1 - place]], owners[:count], None, 3)
                assert found[0][0][0] == place
                assert all((records < count).all() and len(records) == 3 for records, _ in found)
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=add)]
    threads += [threading.Thread(target=find, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert len(scanner) == 60_000


def test_few_keys_need_no_faiss(units, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    scanner = scanner_of(units(INDEX_FROM - 1, width=8))
    ((records, _),) = search(scanner, units(1, width=8), np.arange(INDEX_FROM - 1), None, 1)
    assert records.tolist() == [0]
    assert not scanner.has_index
    assert scanner.serialize() is None


def test_many_keys_without_faiss_name_the_extra(crowd, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(
        MissingDependency, match=r'install the extra: pip install "streamvlm\[cpu\]"'
    ):
        search(scanner_of(crowd), crowd[:1], np.arange(MANY), None, 1)


def test_a_narrow_filter_needs_no_faiss_even_with_many_keys(crowd, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    allowed = np.zeros(MANY, bool)
    allowed[[5, 70, 900]] = True
    ((records, _),) = search(scanner_of(crowd), crowd[70:71], np.arange(MANY), allowed, 5)
    assert records[0] == 70
    assert set(records.tolist()) == {5, 70, 900}


def test_the_index_finds_what_brute_force_finds():
    keys, queries = cameras(MANY, seed=0)
    scanner, owners = scanner_of(keys), np.arange(MANY) // 2
    found = search(scanner, queries, owners, None, 10)
    wanted = [brute_force(keys, query, owners, None, 10) for query in queries]
    assert scanner.has_index
    assert sum(map(shared, found, wanted)) / (10 * len(queries)) >= 0.97
    for (_, scores), (_, wanted_scores) in zip(found, wanted, strict=True):
        assert sum(scores) / sum(wanted_scores) >= 0.999


def test_a_wide_filter_finds_what_brute_force_finds_on_the_rest():
    keys, queries = cameras(MANY, seed=4)
    allowed = np.random.default_rng(5).random(MANY) < 0.9
    owners = np.arange(MANY)
    found = search(scanner_of(keys), queries, owners, allowed, 10)
    assert all(allowed[records].all() for records, _ in found)
    wanted = [brute_force(keys, query, owners, allowed, 10) for query in queries]
    assert sum(map(shared, found, wanted)) / (10 * len(queries)) >= 0.97


def test_many_queries_give_what_each_gives_alone(crowd, indexed):
    together = search(indexed, crowd[:6], np.arange(MANY), None, 5)
    for query, (records, scores) in zip(crowd, together, strict=False):
        ((alone, alone_scores),) = search(indexed, query[None], np.arange(MANY), None, 5)
        assert records.tolist() == alone.tolist()
        np.testing.assert_allclose(scores, alone_scores, atol=1e-6)


def test_a_clear_winner_takes_few_candidates_and_a_crowd_more(units):
    keys, center = units(140_000, width=WIDTH), units(1, width=WIDTH, seed=9)
    keys[70_000:] = unit(center + 0.2 * keys[70_000:])
    counts = []

    class Counted(Codes):
        def nearest(self, queries, allowed, count):
            counts.append((len(queries), count))
            return super().nearest(queries, allowed, count)

    scanner, owners = scanner_of(keys), np.arange(len(keys))
    scanner._codes = Counted(None)
    queries = np.concatenate([keys[:3], unit(center + 0.2 * units(2, width=WIDTH, seed=8))])
    found = search(scanner, queries, owners, None, 4)
    assert counts == [(5, 256), (2, 4096)]
    assert [records[0] for records, _ in found[:3]] == [0, 1, 2]
    for query, (_, scores) in zip(queries[3:], found[3:], strict=True):
        assert scores.mean() >= 0.97 * brute_force(keys, query, owners, None, 4)[1].mean()


def test_a_crowd_among_not_so_many_is_compared_exactly(indexed, crowd, units):
    queries = units(3, width=WIDTH, seed=9)
    found = search(indexed, queries, np.arange(MANY), None, 10)
    for query, (records, _) in zip(queries, found, strict=True):
        assert records.tolist() == brute_force(crowd, query, np.arange(MANY), None, 10)[0]


def test_a_record_of_very_many_keys_leaves_room_for_others(crowd):
    keys = np.concatenate([np.repeat(crowd[:1], 10_000, axis=0), crowd[: MANY - 10_000]])
    owners = np.maximum(np.arange(MANY) - 9_999, 0)
    ((records, _),) = search(scanner_of(keys), crowd[:1], owners, None, 3)
    assert records.tolist() == brute_force(keys, crowd[0], owners, None, 3)[0]


def test_keys_added_after_the_index_was_made_are_found(crowd):
    scanner = scanner_of(crowd[: MANY - 300])
    search(scanner, crowd[:1], np.arange(MANY - 300), None, 1)
    for start in range(MANY - 300, MANY, 100):
        scanner.add(crowd[start : start + 100].astype(np.float16))
    places = [3, MANY - 300, MANY - 1]
    found = search(scanner, crowd[places], np.arange(MANY), None, 1)
    assert [records.tolist() for records, _ in found] == [[place] for place in places]


@pytest.mark.parametrize("device", DEVICES)
def test_the_index_survives_being_written_and_read(crowd, indexed, device):
    keys, index = crowd.astype(np.float16), indexed.serialize()
    again = make_scanner(device, keys, index)
    assert again.serialize() == index
    before = search(indexed, crowd[:9], np.arange(MANY), None, 1)
    after = search(again, crowd[:9], np.arange(MANY), None, 1)
    assert [records.tolist() for records, _ in after] == [records.tolist() for records, _ in before]
    assert again.serialize() == index


def test_an_index_that_cannot_be_of_these_keys_is_made_again(crowd, indexed, caplog):
    keys, owners = crowd.astype(np.float16), np.arange(MANY)
    scanners = [
        Scanner(keys, b"this is not an index"),
        Scanner(keys, indexed.serialize()[:1000]),
        Scanner(keys[:-1], indexed.serialize()),
    ]
    for scanner in scanners:
        ((records, _),) = search(scanner, crowd[77:78], owners[: len(scanner)], None, 1)
        assert records.tolist() == [77]
    assert caplog.text.count("is made again") == 3


def test_of_equal_scores_the_first_wins():
    records, scores = best(np.arange(6), np.array([1, 3, 3, 2, 3, 0], np.float32), 2)
    assert records.tolist() == [1, 2]
    assert scores.tolist() == [3, 3]


def test_a_record_with_very_many_good_keys_does_not_hide_the_others():
    owners = np.repeat([0, 1, 2], [500, 1, 500])
    scores = np.concatenate([np.full(500, 0.9), [0.5], np.full(500, 0.1)]).astype(np.float32)
    records, best_scores = best_per_record(owners, scores, 2)
    assert records.tolist() == [0, 1]
    assert best_scores == pytest.approx([0.9, 0.5])


def test_room_grows_with_the_keys_and_not_with_the_number_of_additions(units):
    scanner = Scanner(np.empty((0, WIDTH), np.float16))
    rooms = set()
    for _ in range(1000):
        scanner.add(units(1, width=WIDTH).astype(np.float16))
        rooms.add(len(scanner.keys[1].base))
    assert len(scanner) == 1000
    assert len(rooms) <= 11
