"""What a search costs beside comparing all keys with numpy, and how much of the answer it finds."""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.memory_data import World
from streamvlm.bench.memory_plan import Plan
from streamvlm.bench.memory_report import Figure, beside, in_turns
from streamvlm.memory.store import Hit, Memory

_WIDE, _PER_RECORD = 384, 16
_AT_ONCE = 4
"""Questions in one round."""
_TOP = 10
_WINDOW = 0.02
"""Of a camera's time."""


def searching(plan: Plan, folder: Path) -> Iterator[Figure]:
    """One query key among many wide keys; filters.

    Args:
        plan: how many keys.
        folder: an empty one.
    """
    records = max(320, plan.wide_keys // _PER_RECORD // 16 * 16)
    world = World(records, _PER_RECORD, _WIDE)
    path = folder / "wide"
    world.build(path)
    flat = world.units.reshape(-1, _WIDE)
    with Memory.open(path, writable=False) as memory:
        _warmed(memory, world)
        yield from _one_key(plan, memory, world, flat)
        yield _background(plan, memory, world, flat)
        yield from _window(plan, memory, world)
        yield _one_camera(plan, memory, world)
    shutil.rmtree(path)


def _warmed(memory: Memory, world: World) -> None:
    for question in world.questions(3, seed=9):
        memory.search(question)


def _spent(memory: Memory, queries: NDArray[np.float32], **options: object) -> float:
    """Milliseconds of one query, the mean of several."""
    before = time.perf_counter()
    for query in queries:
        memory.search(query, **options)  # type: ignore[arg-type]
    return 1000 * (time.perf_counter() - before) / len(queries)


def _by_numpy(flat: NDArray[np.float32], queries: NDArray[np.float32]) -> float:
    """Milliseconds of one query with all float32 keys in main memory."""
    before = time.perf_counter()
    for query in queries:
        scores = flat @ query
        best = np.argpartition(scores, -_TOP)[-_TOP:]
        best[np.argsort(-scores[best])]
    return 1000 * (time.perf_counter() - before) / len(queries)


def _numbers(hits: list[Hit]) -> list[int]:
    return [int(hit.id, 16) for hit in hits]


def _one_key(
    plan: Plan, memory: Memory, world: World, flat: NDArray[np.float32]
) -> Iterator[Figure]:
    """Time beside brute force, recall of the best ten records, ratio of scores."""
    rounds = in_turns(
        plan.rounds,
        lambda number: _spent(memory, world.questions(_AT_ONCE, number), limit=_TOP),
        lambda number: _by_numpy(flat, world.questions(_AT_ONCE, number)),
    )
    size = f"{len(flat):,} keys of {_WIDE}"
    how = f"whole call, questions of objects; plain: numpy float32, all {size} in main memory"
    yield beside(f"search, one key among {size}", rounds, 1 / 8, how=how)
    found, ratios = [], []
    for query in world.questions(plan.questions, seed=100):
        hits = memory.search(query, limit=_TOP)
        wanted, scores = world.best(query, _TOP)
        found.append(len(set(wanted) & set(_numbers(hits))) / _TOP)
        ratios.append(sum(hit.score for hit in hits) / float(scores.sum()))
    how = f"{plan.questions} questions of objects, records"
    yield Figure(
        f"recall@{_TOP}, one key among {size}",
        statistics.fmean(found),
        "share",
        0.97,
        at_least=True,
        how=how,
    )
    yield Figure(
        f"score of the best {_TOP} over brute force's",
        statistics.fmean(ratios),
        "share",
        0.999,
        at_least=True,
        how=how,
    )


def _background(plan: Plan, memory: Memory, world: World, flat: NDArray[np.float32]) -> Figure:
    """The same where thousands of keys are nearly as near: nothing stands out."""
    rounds = in_turns(
        plan.rounds,
        lambda number: _spent(memory, world.backgrounds(1, number), limit=_TOP),
        lambda number: _by_numpy(flat, world.backgrounds(1, number)),
    )
    how = "questions of a background, which thousands of keys repeat: then all are compared"
    return beside("search, one key, nothing stands out", rounds, None, how=how)


def _window(plan: Plan, memory: Memory, world: World) -> Iterator[Figure]:
    """One camera, a fiftieth of its time."""
    places = np.random.default_rng(0).uniform(0, 1 - _WINDOW, plan.rounds + plan.questions)
    spans = [(at * world.seconds, (at + _WINDOW) * world.seconds) for at in places.tolist()]
    stream = (world.camera(world.records // 2),)

    def filtered(number: int) -> float:
        since, until = spans[number]
        queries = world.questions(_AT_ONCE, number)
        return _spent(memory, queries, streams=stream, since=since, until=until)

    rounds = in_turns(
        plan.rounds,
        filtered,
        lambda number: _spent(memory, world.questions(_AT_ONCE, number)),
    )
    how = "plain: the same question without a filter"
    yield beside(
        f"search in one camera and {100 * _WINDOW:.0f} % of its time", rounds, 0.25, how=how
    )
    equal = 0
    queries = world.questions(plan.questions, seed=200)
    first = world.per_camera * (world.records // 2 // world.per_camera)
    for query, (since, until) in zip(queries, spans[plan.rounds :], strict=True):
        hits = memory.search(query, streams=stream, since=since, until=until)
        numbers = range(first, first + world.per_camera)
        inside = [
            number
            for number in numbers
            if world.start(number) < until and world.start(number) + 8.0 > since
        ]
        wanted, scores = world.best(query, len(hits), slice(inside[0], inside[-1] + 1))
        same = np.allclose([hit.score for hit in hits], scores, atol=1e-4)
        equal += set(_numbers(hits)) == set(wanted) or same
    yield Figure(
        "answers in that window equal to brute force's",
        equal / len(queries),
        "share",
        1.0,
        at_least=True,
        how=f"{len(queries)} questions, the best 8 records",
    )


def _one_camera(plan: Plan, memory: Memory, world: World) -> Figure:
    """One camera, all of its time: more keys than are compared exactly."""
    camera = 3
    within = slice(camera * world.per_camera, (camera + 1) * world.per_camera)
    stream = (world.camera(within.start),)
    found = []
    for query in world.questions(plan.questions, seed=300):
        wanted, _ = world.best(query, _TOP, within)
        hits = memory.search(query, streams=stream, limit=_TOP)
        found.append(len(set(wanted) & set(_numbers(hits))) / _TOP)
    return Figure(
        f"recall@{_TOP} in one camera",
        statistics.fmean(found),
        "share",
        0.92,
        at_least=True,
        how=f"{plan.questions} questions, mostly of what that camera never saw",
    )


def several_keys(plan: Plan, memory: Memory, world: World, flat: NDArray[np.float32]) -> Figure:
    """Eight query keys at once beside numpy.

    Args:
        plan: how often.
        memory: of the world.
        world: what is in it.
        flat: (n, E) all of its keys.
    """

    def plain(number: int) -> float:
        queries = world.questions(8, number)
        before = time.perf_counter()
        scores = queries @ flat.T
        np.argpartition(scores, -_TOP, axis=1)
        return 1000 * (time.perf_counter() - before)

    def ours(number: int) -> float:
        queries = world.questions(8, number)
        before = time.perf_counter()
        memory.search(queries)
        return 1000 * (time.perf_counter() - before)

    _warmed(memory, world)
    rounds = in_turns(max(plan.rounds, 2 * plan.rounds), ours, plain)
    how = "whole call; plain: numpy float32 matmul and argpartition"
    return beside(
        f"search, 8 keys among {len(flat):,} of {flat.shape[1]}", rounds, 1 / 2.5, how=how
    )
