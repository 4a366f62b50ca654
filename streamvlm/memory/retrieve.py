"""From a question's key to the evidence that the model reads, within the question's limits."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from streamvlm.memory.store import DamagedRecord, Hit, Memory
from streamvlm.memory.thin import foremost
from streamvlm.types import Evidence, MemoryRecord, Query

logger = logging.getLogger(__name__)

LOOK_AT = 3
"""How many times as many records are looked at as are read, so that repeats can be passed over."""
_SAME = 0.97


def retrieve(
    memory: Memory,
    key: NDArray[np.float32],
    query: Query,
    *,
    first: Sequence[Evidence] = (),
) -> tuple[Evidence, ...]:
    """Find what bears on a query.

    Records that show nothing new beside a better one next to them in time are read only if there
    is room after all others. A damaged record is left out with a warning that names it.

    Args:
        memory: where to look.
        key: (E,) float32, the question in the embedder's space.
        query: its streams, times, `max_records` and `max_tokens`.
        first: evidence that comes before all other, best first.

    Returns:
        Evidence by stream and time, at most `max_records` with together at most `max_tokens`
        tokens; empty only if no intact record fits the streams and times.
    """
    is_first = {each.record.id for each in first}
    hits = memory.search(
        key,
        streams=query.streams,
        since=query.since,
        until=query.until,
        limit=LOOK_AT * query.max_records,
    )
    others = load_intact(memory, [hit for hit in hits if hit.id not in is_first])
    ranked = by_news([*first, *others])
    ranked.sort(key=lambda each: each.record.id not in is_first)
    chosen = fit(ranked[: query.max_records], query.max_tokens)
    return tuple(sorted(chosen, key=lambda each: (each.record.stream, each.record.start)))


def load_intact(memory: Memory, hits: Iterable[Hit]) -> Iterator[Evidence]:
    """Read the records that a search found, one after the other.

    Args:
        memory: where they were found.
        hits: what to read.

    Yields:
        Each that is intact, in the same order; the others are named in a warning.
    """
    for hit in hits:
        try:
            (record,) = memory.load([hit.id])
        except DamagedRecord as error:
            logger.warning("left out of the evidence: %s", error)
            continue
        yield Evidence(record, hit.score)


def by_news(found: Sequence[Evidence]) -> list[Evidence]:
    """Move records that repeat a better neighbour behind all others.

    A record repeats another if it touches or overlaps it in time and each of its keys has a
    cosine of at least 0.97 with one of the other's: a still scene cut into clips.

    Args:
        found: best first.

    Returns:
        The same evidence, first what shows something new, best first, then the rest, best first.
    """
    news: list[Evidence] = []
    repeats: list[Evidence] = []
    for place, each in enumerate(found):
        is_repeat = any(_repeats(each.record, better.record) for better in found[:place])
        (repeats if is_repeat else news).append(each)
    return news + repeats


def _repeats(record: MemoryRecord, other: MemoryRecord) -> bool:
    touches = record.start <= other.end and other.start <= record.end
    if record.stream != other.stream or not touches:
        return False
    cosines = record.keys @ other.keys.T
    return bool((cosines.max(axis=1) >= _SAME).all())


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
        may_thin = tokens.rank is not None or not kept
        if may_thin and 0 < room < len(tokens):
            thinned = replace(each.record, tokens=foremost(tokens, room))
            kept.append(replace(each, record=thinned))
            room = 0
        elif len(tokens) <= room:
            kept.append(each)
            room -= len(tokens)
    return kept
