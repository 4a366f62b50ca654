"""From what is sought to the evidence that the model reads, within the question's limits."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streamvlm.memory.age.thin import foremost
from streamvlm.memory.spans import LOOK_AT, Stretch, varied
from streamvlm.memory.store import DamagedRecord, GoneRecord, Hit, Memory
from streamvlm.types import Evidence, MemoryRecord, Query

logger = logging.getLogger(__name__)


def candidates(
    memory: Memory,
    keys: NDArray[np.float32],
    query: Query,
    *,
    first: Sequence[Evidence] = (),
    apart: Sequence[Stretch] = (),
    most: int = 0,
) -> list[Evidence]:
    """Rank what may bear on a query: at least three times as many records as it reads.

    What is read first shows as many things as it can (see `varied`). A damaged record is left out
    with a warning that names it.

    Args:
        memory: where to look.
        keys: (Q, E) float32, what is sought, in the embedder's space.
        query: its streams, times and `max_records`.
        first: evidence that comes before all other, best first.
        apart: where not to look.
        most: so many records at least, if there are.

    Returns:
        Evidence, most relevant first.
    """
    is_first = {each.record.id for each in first}
    room = sum(len(each.records) + 2 for each in apart)
    hits = memory.search(
        keys,
        streams=query.streams,
        since=query.since,
        until=query.until,
        limit=max(LOOK_AT * query.max_records, most) + room,
    )
    hits = [hit for hit in hits if not any(each.touches(hit) for each in apart)]
    others = load_intact(memory, [hit for hit in hits if hit.id not in is_first])
    return first_first(varied([*first, *others], keys), first)


def first_first(ranked: Iterable[Evidence], first: Iterable[Evidence]) -> list[Evidence]:
    """The same evidence with some of it before all other, each in the order it has."""
    is_first = {each.record.id for each in first}
    return sorted(ranked, key=lambda each: each.record.id not in is_first)


def chosen(ranked: Sequence[Evidence], query: Query) -> tuple[Evidence, ...]:
    """Cut ranked evidence to what a query may read.

    Args:
        ranked: most relevant first.
        query: `max_records` and `max_tokens`. A record without tokens is not read, so it does not
            count; but no more than `max_records` of these come along.

    Returns:
        Evidence by stream and time.
    """
    room = {True: query.max_records, False: query.max_records}
    taken: list[Evidence] = []
    for each in ranked:
        is_read = len(each.record.tokens) > 0
        if room[is_read]:
            taken.append(each)
            room[is_read] -= 1
        if not room[True]:
            break
    return in_time_order(fit(taken, query.max_tokens))


def retrieve(memory: Memory, keys: NDArray[np.float32], query: Query) -> tuple[Evidence, ...]:
    """Find what bears on a query: `candidates`, `chosen`.

    Returns:
        Evidence by stream and time, at most `max_records` with together at most `max_tokens`
        tokens; empty only if no intact record fits the streams and times.
    """
    return chosen(candidates(memory, keys, query), query)


def in_time_order(found: Iterable[Evidence]) -> tuple[Evidence, ...]:
    """Evidence by stream and time."""
    return tuple(sorted(found, key=lambda each: (each.record.stream, each.record.start)))


def load_intact(memory: Memory, hits: Iterable[Hit]) -> Iterator[Evidence]:
    """Read the records that a search found, one after the other.

    Args:
        memory: where they were found.
        hits: what to read.

    Yields:
        Each that is intact, in the same order; damaged ones are named in a warning. In the place of
        one that was merged with its neighbours since comes the record that it is now in.
    """
    for hit in hits:
        record = intact(memory, hit.id)
        if record is None:
            there = memory.last_before(hit.stream, hit.end)
            record = None if there in (None, hit.id) else intact(memory, there)
        if record is not None and record.start < hit.end and hit.start < record.end:
            yield Evidence(record, hit.score)


def intact(memory: Memory, name: str) -> MemoryRecord | None:
    """Read one record; None if it is gone or, with a warning that names it, if it is damaged."""
    try:
        (record,) = memory.load([name])
    except GoneRecord:
        return None
    except DamagedRecord as error:
        logger.warning("left out of the evidence: %s", error)
        return None
    return record


def alikeness(record: MemoryRecord, keys: NDArray[np.float32]) -> float:
    """How well a record answers to what is sought, as a search scores it.

    Args:
        record: K keys.
        keys: (Q, E) float32.

    Returns:
        The mean over the Q of the cosine with the best of the K, -1 to 1.
    """
    return float((record.keys @ keys.T).max(axis=0).mean())


def fit(ranked: Sequence[Evidence], max_tokens: int) -> list[Evidence]:
    """Keep what fits a budget of tokens, the most relevant first.

    A record whose tokens have ranks is cut to the room that is left, its foremost tokens first. One
    without is read whole or not at all: if it no longer fits it is skipped, and a smaller one after
    it may still fit. Only the first is thinned then, evenly in time-then-place order, if it alone
    exceeds the budget, so that there is always something to read.

    Args:
        ranked: most relevant first.
        max_tokens: the budget, at least 1.

    Returns:
        Those kept, in the same order.
    """
    kept: list[Evidence] = []
    room = max_tokens
    for each in ranked:
        tokens = each.record.tokens
        may_thin = tokens.rank is not None or room == max_tokens
        if may_thin and 0 < room < len(tokens):
            thinned = replace(each.record, tokens=foremost(tokens, room))
            kept.append(replace(each, record=thinned))
            room = 0
        elif len(tokens) <= room:
            kept.append(each)
            room -= len(tokens)
    return kept
