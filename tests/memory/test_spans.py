from dataclasses import replace

import numpy as np
import pytest

from streamvlm.memory.spans import Stretch, grown, stretches, varied
from streamvlm.memory.store import Hit
from streamvlm.types import Evidence, Query

SOUGHT = np.eye(1, 32, dtype=np.float32)


def key(close, aside=1):
    """(1, 32): a unit key with this cosine to what is sought; `aside` is what else it shows."""
    made = np.zeros((1, 32), np.float32)
    made[0, 0], made[0, aside] = close, np.sqrt(1 - close**2)
    return made


@pytest.fixture
def film(memory, record):
    """Stores a record a second, each as close to what is sought as is said."""

    def make(closeness, stream="/videos/a.mp4", number=0):
        made = [
            record(number + n, start=float(n), keys=key(close, 1 + n % 30), stream=stream)
            for n, close in enumerate(closeness)
        ]
        memory.append(made)
        return memory

    return make


def found(memory, most=8, **limits):
    """(start, end, score) of the stretches found."""
    query = Query("where?", **({"max_records": most} | limits))
    spans = list(stretches(memory, SOUGHT, query))[:most]
    return [(each.start, each.end, pytest.approx(each.score, abs=1e-3)) for each in spans]


def test_neighbours_that_score_nearly_as_high_are_one_stretch(film):
    memory = film([0.1, 0.8, 0.85, 0.8, 0.5, 0.1, 0.7, 0.3])
    assert found(memory, 3) == [(1.0, 4.0, 0.85), (6.0, 7.0, 0.7), (4.0, 5.0, 0.5)]


def test_a_stretch_knows_its_records_and_the_best_of_them(film):
    memory = film([0.1, 0.8, 0.85, 0.8])
    first = next(stretches(memory, SOUGHT, Query("where?")))
    assert first.best == f"{2:016x}"
    assert first.records == tuple(f"{n:016x}" for n in (1, 2, 3))


def test_a_gap_in_time_ends_a_stretch(memory, record):
    memory.append(
        [record(n, keys=key(0.8), start=start) for n, start in enumerate((0.0, 1.0, 2.5))]
    )
    assert sorted(found(memory)) == [(0.0, 2.0, 0.8), (2.5, 3.5, 0.8)]


def test_streams_are_never_one_stretch(film):
    film([0.8, 0.8])
    memory = film([0.8, 0.8], stream="/videos/b.mp4", number=10)
    assert found(memory) == [(0.0, 2.0, 0.8), (0.0, 2.0, 0.8)]


def test_a_stretch_goes_beyond_the_records_that_a_search_looks_at(film):
    memory = film([0.8] * 200)
    assert found(memory, 1) == [(0.0, 200.0, 0.8)]


def test_behind_a_long_still_scene_there_is_more(film):
    memory = film([0.8] * 100 + [0.3] + [0.1])
    assert found(memory, 3) == [(0.0, 100.0, 0.8), (100.0, 101.0, 0.3), (101.0, 102.0, 0.1)]


def test_what_is_not_alike_at_all_does_not_grow(film):
    memory = film([-0.5, -0.5])
    assert found(memory) == [(0.0, 1.0, -0.5), (1.0, 2.0, -0.5)]


def test_a_stretch_stays_within_the_times_and_streams_of_the_query(film):
    memory = film([0.8] * 10)
    assert found(memory, since=2.0, until=5.0) == [(2.0, 5.0, 0.8)]
    assert found(memory, streams=("/videos/b.mp4",)) == []


def test_nothing_is_found_where_it_may_not_be_looked_for_nor_right_beside(film):
    memory = film([0.9, 0.9, 0.9, 0.1, 0.7, 0.1])
    own = grown(memory, SOUGHT, Hit("0" * 16, 0.9, "/videos/a.mp4", 0.0, 1.0), Query("where?"))
    assert (own.start, own.end) == (0.0, 3.0)
    spans = list(stretches(memory, SOUGHT, Query("where?", max_records=2), apart=[own]))
    assert [each.start for each in spans] == [4.0, 5.0]


def test_what_comes_first_does_and_once(film):
    memory = film([0.8, 0.2, 0.6])
    first = [Hit(f"{1:016x}", 0.2, "/videos/a.mp4", 1.0, 2.0)]
    spans = list(stretches(memory, SOUGHT, Query("where?"), first=first))
    assert [each.start for each in spans] == [1.0, 0.0, 2.0]


@pytest.mark.parametrize("count", [300, 3000])
def test_a_scene_that_never_ends_is_told_of_once(film, count):
    memory = film([0.8] * count)
    (only,) = stretches(memory, SOUGHT, Query("where?", max_records=2))
    assert only.score == pytest.approx(0.8, abs=1e-3)
    assert only.start == 0.0
    assert len(only.records) == only.end >= 300


def test_a_record_near_a_stretch_belongs_to_it(record):
    stretch = Stretch("/videos/a.mp4", 3.0, 5.0, 0.5, "", ())
    beside = Hit("", 0.1, "/videos/a.mp4", 5.0, 6.0)
    assert stretch.touches(beside)
    assert not stretch.touches(replace(beside, start=5.5))
    assert not stretch.touches(replace(beside, stream="/videos/b.mp4"))


def order(found):
    return [int(each.record.id, 16) for each in varied(found, SOUGHT)]


def test_of_what_shows_the_same_the_best_is_read_first_then_the_second(record):
    """Records 0 to 2 are one thing, 10 and 11 another, 20 a third."""
    close = {0: 0.95, 1: 0.94, 10: 0.9, 2: 0.9, 11: 0.85, 20: 0.3}
    asides = {0: (1, 2), 1: (1, 3), 2: (1, 4), 10: (5, 6), 11: (5, 7), 20: (8, 9)}
    ranked = [
        Evidence(record(n, keys=np.concatenate([key(c, asides[n][0]), key(0.0, asides[n][1])])), c)
        for n, c in close.items()
    ]
    assert order(ranked) == [0, 10, 20, 1, 11, 2]


def test_what_scores_far_less_is_another_thing(record):
    def two(close, new):
        return np.concatenate([key(close), key(0.0, new)])

    ranked = [Evidence(record(n, keys=two(c, 5 + n)), c) for n, c in ((0, 0.9), (1, 0.6), (9, 0.5))]
    assert order(ranked) == [0, 1, 9]


def test_only_a_neighbour_without_news_is_a_repeat(record, units):
    keys, new = units(2, seed=1), units(1, seed=2)
    first = record(0, keys=keys)
    cases = {
        "same keys, next": (record(1, keys=keys), True),
        "fewer keys, next": (record(1, keys=keys[:1]), True),
        "one new key": (record(1, keys=np.concatenate([keys, new])), False),
        "far away": (record(9, keys=keys), False),
        "another stream": (record(1, keys=keys, stream="b"), False),
    }
    last = [Evidence(record(30), 0.1), Evidence(record(31), 0.05)]
    for name, (other, is_repeat) in cases.items():
        ordered = varied([Evidence(first, 0.9), Evidence(other, 0.3), *last], SOUGHT)
        assert (ordered[-1].record is other) == is_repeat, name
        assert len(ordered) == 4


def test_there_may_be_nothing_to_order():
    assert varied([], SOUGHT) == []
