"""What shows a time: the times that a question names, and scenes that stood still."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from streamvlm.memory.retrieve import load_intact
from streamvlm.memory.spans import LOOK_AT, TOUCH
from streamvlm.memory.store import Hit, Memory, StreamInfo
from streamvlm.moments import Moment, moments
from streamvlm.types import Evidence, Query, Span

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def at_times_named(
    memory: Memory, keys: NDArray[np.float32], query: Query, infos: Sequence[StreamInfo]
) -> tuple[Evidence, ...]:
    """What shows the times that a question names, the best of each time first."""
    named = moments(query.text)
    if not named or query.since is not None or query.until is not None:
        return ()
    found: dict[str, tuple[int, float, Evidence]] = {}
    for moment in named:
        hits, still = _look(memory, keys, infos, moment, LOOK_AT * query.max_records)
        shows = (
            each
            for each in load_intact(memory, hits)
            # While a still scene stood, a record that begins with a later picture shows nothing.
            if each.record.stream not in still or each.record.frame_seconds.min() < moment.end
        )
        for place, each in enumerate(islice(shows, LOOK_AT * query.max_records)):
            found.setdefault(each.record.id, (place, -each.score, each))
    return tuple(each for _, _, each in sorted(found.values(), key=lambda entry: entry[:2]))


def _look(
    memory: Memory,
    keys: NDArray[np.float32],
    infos: Sequence[StreamInfo],
    moment: Moment,
    most: int,
) -> tuple[list[Hit], set[str]]:
    """Where a moment may be seen, best first, and the streams that stood still when it began."""
    streams: dict[float, list[str]] = {}
    still: set[str] = set()
    hits: dict[str, Hit] = {}
    for info in infos:
        whole = info.coverage.seconds
        start = moment.begin(whole)
        streams.setdefault(start, []).append(info.stream)
        span = _still(info, start)
        if span is not None and span.end >= min(start + 1, whole):
            still.add(info.stream)
            hits |= {hit.id: hit for hit in _before(memory, keys, info, span)}
    for start, names in streams.items():
        # One more for each stream, as so many may turn out to show nothing of it.
        limit = most + len(names)
        found = memory.search(keys, streams=names, since=start, until=moment.end, limit=limit)
        hits |= {hit.id: hit for hit in found}
    return sorted(hits.values(), key=lambda hit: -hit.score), still


def standing(
    memory: Memory, keys: NDArray[np.float32], query: Query, infos: Sequence[StreamInfo]
) -> tuple[Evidence, ...]:
    """What was last seen before a time in which nothing new was, best first."""
    if query.since is None:
        return ()
    hits: list[Hit] = []
    for info in infos:
        span = _still(info, query.since)
        if span is not None:
            hits += _before(memory, keys, info, span)
    return tuple(load_intact(memory, sorted(hits, key=lambda hit: -hit.score)))


def _still(info: StreamInfo, seconds: float) -> Span | None:
    """The stretch around a time of a stream in which nothing new was seen, if there is one."""
    spans = info.coverage.spans
    place = bisect_right(spans, seconds, key=lambda span: span.start) - 1
    if place < 0 or spans[place].kind != "still" or seconds >= spans[place].end:
        return None
    return spans[place]


def _before(memory: Memory, keys: NDArray[np.float32], info: StreamInfo, span: Span) -> list[Hit]:
    """The record of a stream that ends with what was seen last before a stretch of it."""
    since, until = span.start - TOUCH, span.start
    return memory.search(keys, streams=(info.stream,), since=since, until=until, limit=1)
