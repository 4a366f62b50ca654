"""What must not change the answers: order of arrival, size of shards, moving, adopting."""

import threading
from dataclasses import replace
from random import Random

import numpy as np
import pytest

from scripts.soak.records import IDENTITY, record
from streamvlm.memory import bulk
from streamvlm.memory.index.novelty import Novelty
from streamvlm.memory.maintain import erase
from streamvlm.memory.store import Memory, ShardLimits

NUMBERS = range(90)
TIMES = [(None, None), (40.0, None), (33.3, 35.0), (20.0, 60.0), (None, 11.5)]


def answers(memory):
    """Of each question the best records with their scores."""
    found = []
    for number in (3, 31, 57, 88):
        for key in record(number).keys:
            for since, until in TIMES:
                hits = memory.search(key, since=since, until=until, limit=6)
                found.append([(hit.id, round(hit.score, 3)) for hit in hits])
    return found


def opened(path, novelty=None, **limits):
    limits = ShardLimits(**limits) if limits else None
    options = {"payload": "raw", "sync": "process", "limits": limits, "novelty": novelty}
    return Memory.create(path, IDENTITY, **options)


def alike(ours, theirs):
    """Whether answers are equal but for the order of ties and for how keys were rounded."""
    for one, other in zip(ours, theirs, strict=True):
        assert [s for _, s in one] == pytest.approx([s for _, s in other], abs=0.01)
        clear = [uid for uid, score in one if score > one[-1][1] + 0.02]
        assert set(clear) <= {uid for uid, _ in other}


@pytest.fixture
def expected(tmp_path):
    with opened(tmp_path / "plain") as memory:
        memory.append([record(number) for number in NUMBERS])
        return answers(memory)


@pytest.mark.parametrize("batch", [1, 7, 90])
@pytest.mark.parametrize("limits", [{}, {"max_keys": 5}, {"max_bytes": 40_000}])
def test_batches_and_shards_of_any_size_give_the_same_answers(path, expected, batch, limits):
    with opened(path, **limits) as memory:
        for first in range(0, 90, batch):
            memory.append([record(number) for number in NUMBERS[first : first + batch]])
        alike(answers(memory), expected)


def test_streams_may_arrive_in_any_order(path, expected):
    with opened(path) as memory:
        for place in (2, 0, 1):
            memory.append([record(number) for number in NUMBERS if number % 3 == place])
        alike(answers(memory), expected)


def test_adopted_shards_give_the_same_answers_as_appended_records(path, tmp_path, expected):
    with opened(path) as memory:
        manifests = [
            bulk.write_shard(
                tmp_path / "worker",
                memory.format,
                [record(number) for number in NUMBERS if number % 3 == place],
                sync="process",
            )
            for place in range(3)
        ]
        memory.adopt(manifests)
        alike(answers(memory), expected)


def test_rewriting_does_not_change_the_answers(path, expected):
    with opened(path, max_keys=12) as memory:
        others = [replace(record(n), stream="other") for n in range(1000, 1040)]
        for first in range(0, 90, 9):
            mixed = [record(n) for n in NUMBERS[first : first + 9]]
            memory.append(mixed + others[first // 9 * 4 : first // 9 * 4 + 4])
        answers(memory)
        memory.forget("other")
        alike(answers(memory), expected)
        assert erase(path, sync="process").rewritten > 3
        alike(answers(memory), expected)
    with Memory.open(path, writable=False) as memory:
        alike(answers(memory), expected)


def film(seconds, chance):
    """A stream in which near-duplicates go on for a while, and some come back."""
    scenes = chance.normal(size=(4, 16))
    for second in range(seconds):
        near = scenes[[second // 23 % 4, second // 7 % 3]] + 0.06 * chance.normal(size=(2, 16))
        near /= np.linalg.norm(near, axis=1, keepdims=True)
        yield replace(record(3 * second), keys=near.astype(np.float32), start=float(second),
                      end=second + 1.0)  # fmt: skip


@pytest.mark.parametrize("anchor_seconds", [30.0, 50.0])
@pytest.mark.parametrize("span", [4.0, 20.0, 75.0, 200.0])
def test_a_window_of_time_gives_what_brute_force_gives(path, anchor_seconds, span):
    films = list(film(200, np.random.default_rng(1)))
    chance = Random(3)
    with opened(path, Novelty(0.9, anchor_seconds), max_keys=40) as memory:
        for one in films:
            memory.append([one])
        for _ in range(12):
            since = chance.uniform(0, 200 - span)
            asked = films[chance.randrange(200)].keys[chance.randrange(2)]
            inside = [one for one in films if one.end > since and one.start < since + span]
            best = max(float((one.keys @ asked).max()) for one in inside)
            hits = memory.search(asked, since=since, until=since + span, limit=4)
            assert all(hit.end > since and hit.start < since + span for hit in hits)
            assert hits[0].score == pytest.approx(best, abs=0.01)
            exact = {one.id: float((one.keys @ asked).max()) for one in inside}
            assert all(hit.score == pytest.approx(exact[hit.id], abs=0.01) for hit in hits)


def test_what_is_left_of_a_stream_without_its_anchor_is_found(path):
    """Forgetting by time takes the record away that the others were like."""
    with opened(path, Novelty(0.9, 1000.0)) as memory:
        chance = np.random.default_rng(0)
        old = list(film(60, chance))
        memory.append(old)
        for place in range(40):
            others = film(5, chance)
            memory.append(
                [replace(o, id=f"{place}/{o.id}", stream=f"other-{place}") for o in others]
            )
        memory.forget(old[0].stream, before=31.0)
        for writer in (memory, Memory.open(path, sync="process")):
            for one in old[31:]:
                for key in one.keys:
                    for stream in ((), (one.stream,)):
                        hits = writer.search(key, streams=stream, limit=3)
                        assert hits[0].score > 0.99
                        assert one.id in [hit.id for hit in hits]
        writer.close()


def test_what_a_writer_adds_after_another_one_forgot_the_stream_is_found(path):
    with (
        opened(path, Novelty(0.9, 1000.0)) as memory,
        Memory.open(path, sync="process") as other,
    ):
        films = list(film(60, np.random.default_rng(0)))
        memory.append(films[:30])
        for place in range(40):
            others = film(5, np.random.default_rng(place + 1))
            other.append(
                [replace(o, id=f"{place}/{o.id}", stream=f"other-{place}") for o in others]
            )
        other.forget(films[0].stream)
        memory.append(films[30:])
        for one in films[30:]:
            assert one.id in [hit.id for hit in memory.search(one.keys[0], limit=3)]


@pytest.mark.slow
def test_four_threads_search_while_the_memory_grows(path):
    wrong: list[str] = []
    grown = threading.Event()
    with opened(path, max_keys=200) as memory:
        memory.append([record(0)])

        def search(seed):
            chance = Random(seed)
            while not grown.is_set() and not wrong:
                wanted = record(chance.randrange(len(memory)))
                try:
                    hits = memory.search(wanted.keys[chance.randrange(3)], limit=4)
                    if wanted.id not in [hit.id for hit in hits]:
                        wrong.append(f"{wanted.id}: {hits}")
                except Exception as error:
                    wrong.append(repr(error))

        threads = [threading.Thread(target=search, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for first in range(1, 601, 4):
            memory.append([record(number) for number in range(first, first + 4)])
        grown.set()
        for thread in threads:
            thread.join()
        assert wrong == []
        assert len(memory) == 601
