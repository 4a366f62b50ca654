"""From a query to the evidence that a model reads."""

from __future__ import annotations

import json
import math
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from streamvlm.errors import BadOption, MemoryStoreError, StreamVLMError
from streamvlm.memory.retrieve import LOOK_AT, fit, load_intact, retrieve
from streamvlm.memory.store import Hit, Memory, StreamInfo
from streamvlm.moments import Moment, moments
from streamvlm.plugins import find
from streamvlm.stopwatch import Stopwatch
from streamvlm.types import Evidence, Query, Span, VisualTokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streamvlm.protocols import Embedder

_TOUCH = 1e-3
"""Seconds; a record that ends at a time is found by a window of this width before it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is read to answer a question, where the question does not say."""

    max_records: int = 8
    """Records at the most."""
    max_tokens: int = 4096
    """Visual tokens at the most."""

    def __post_init__(self) -> None:
        if self.max_records < 1 or self.max_tokens < 1:
            raise BadOption("answer: max_records and max_tokens must be at least 1")


def recall(
    memory: Memory, embedder: Embedder, query: Query, watch: Stopwatch
) -> tuple[Evidence, ...]:
    """Find what bears on a query.

    If the question names times (see `moments`) and the query has no limits of time, the records
    that show these come first, and what room is left goes to the others as ever. If nothing new
    was seen in the query's time, or at a time named, that is the still scene that was seen last.
    Where a compressor left out what the clip before had sent, the record of that clip comes along
    if its tokens still fit; it does not count among `max_records`.

    Args:
        memory: where to look.
        embedder: what the memory's keys were made with.
        query: the question with its limits; its streams are ids.
        watch: is charged for the stages `embed` and `retrieve`.

    Returns:
        Evidence by stream and time.

    Raises:
        MemoryStoreError: the memory is empty, or its keys are of another embedder.
    """
    if not len(memory):
        raise MemoryStoreError(f"the memory {memory.path} is empty; ingest a video into it first")
    if memory.identity.embedder != embedder.model:
        raise MemoryStoreError(
            f"this memory was made with the embedder {memory.identity.embedder}, but the "
            f"configuration names {embedder.model}; use the configuration it was made with, or "
            "ingest into another folder"
        )
    with watch.stage("embed"):
        key = embedder.embed_text(query.text)
    with watch.stage("retrieve"):
        found = retrieve(memory, key, query, first=_at_times_named(memory, key, query))
        if not found:
            found = retrieve(memory, key, query, first=_standing(memory, key, query))
        chained = {info.stream for info in _reachable(memory, query) if _is_chained(info)}
        found = _with_what_they_continue(memory, key, query, found, chained)
    seen = (_within(query, each, chained) for each in found)
    return tuple(each for each in seen if len(each.record.tokens))


def _with_what_they_continue(
    memory: Memory,
    key: NDArray[np.float32],
    query: Query,
    found: Sequence[Evidence],
    chained: Container[str],
) -> tuple[Evidence, ...]:
    """Add the record before each one that is only whole together with it."""
    records = [each.record for each in found if each.record.stream in chained]
    before = {memory.last_before(record.stream, record.start) for record in records}
    missing = before - {None} - {record.id for record in records}
    hits = [Hit(name, 0.0) for name in sorted(filter(None, missing))]
    more = [
        replace(each, score=float((each.record.keys @ key).max()))
        for each in load_intact(memory, hits)
    ]
    whole = fit([*found, *more], query.max_tokens)
    return tuple(sorted(whole, key=lambda each: (each.record.stream, each.record.start)))


def _is_chained(info: StreamInfo) -> bool:
    """Whether a stream's records leave out what the one before has sent."""
    try:
        name = json.loads(info.recipe)["compressors"]["name"]
        return getattr(find("compressors", name), "chained", False)
    # Written by another program, or with a plug-in that is not installed here.
    except (ValueError, KeyError, TypeError, StreamVLMError):
        return False


def _at_times_named(memory: Memory, key: NDArray[np.float32], query: Query) -> tuple[Evidence, ...]:
    """What shows the times that a question names, the best of each time first."""
    named = moments(query.text)
    if not named or query.since is not None or query.until is not None:
        return ()
    reachable = _reachable(memory, query)
    found: dict[str, tuple[int, float, Evidence]] = {}
    for moment in named:
        hits, still = _look(memory, key, reachable, moment, LOOK_AT * query.max_records)
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
    key: NDArray[np.float32],
    reachable: Sequence[StreamInfo],
    moment: Moment,
    most: int,
) -> tuple[list[Hit], set[str]]:
    """Where a moment may be seen, best first, and the streams that stood still when it began."""
    streams: dict[float, list[str]] = {}
    still: set[str] = set()
    hits: dict[str, Hit] = {}
    for info in reachable:
        whole = info.coverage.seconds
        start = moment.begin(whole)
        streams.setdefault(start, []).append(info.stream)
        span = _still(info, start)
        if span is not None and span.end >= min(start + 1, whole):
            still.add(info.stream)
            hits |= {hit.id: hit for hit in _before(memory, key, info, span)}
    for start, names in streams.items():
        # One more for each stream, as so many may turn out to show nothing of it.
        limit = most + len(names)
        found = memory.search(key, streams=names, since=start, until=moment.end, limit=limit)
        hits |= {hit.id: hit for hit in found}
    return sorted(hits.values(), key=lambda hit: -hit.score), still


def _standing(memory: Memory, key: NDArray[np.float32], query: Query) -> tuple[Evidence, ...]:
    """What was last seen before a time in which nothing new was, best first."""
    if query.since is None:
        return ()
    hits: list[Hit] = []
    for info in _reachable(memory, query):
        span = _still(info, query.since)
        if span is not None:
            hits += _before(memory, key, info, span)
    return tuple(load_intact(memory, sorted(hits, key=lambda hit: -hit.score)))


def _reachable(memory: Memory, query: Query) -> list[StreamInfo]:
    """The streams that a query is about."""
    return [i for i in memory.streams() if not query.streams or i.stream in query.streams]


def _still(info: StreamInfo, seconds: float) -> Span | None:
    """The stretch around a time of a stream in which nothing new was seen, if there is one."""
    for span in info.coverage.spans:
        if span.kind == "still" and span.start <= seconds < span.end:
            return span
    return None


def _before(memory: Memory, key: NDArray[np.float32], info: StreamInfo, span: Span) -> list[Hit]:
    """The record of a stream that ends with what was seen last before a stretch of it."""
    since, until = span.start - _TOUCH, span.start
    return memory.search(key, streams=(info.stream,), since=since, until=until, limit=1)


def _within(query: Query, found: Evidence, chained: Container[str]) -> Evidence:
    """The same evidence without the tokens of frames outside the query's time.

    What was still to be seen when that time began stays: the last frame before it or, where a
    compressor leaves out what goes on as before, the last token of each place before it.
    """
    tokens, since = found.record.tokens, query.since or 0.0
    until = math.inf if query.until is None else query.until
    is_before = tokens.seconds <= since
    last = _last_of_places if found.record.stream in chained else _last_frame
    inside = last(tokens, is_before) | (~is_before & (tokens.seconds < until))
    return replace(found, record=replace(found.record, tokens=tokens.select(inside)))


def _last_frame(tokens: VisualTokens, is_before: torch.Tensor) -> torch.Tensor:
    """(N,) bool: the tokens of the last frame of those before a time."""
    seconds = tokens.seconds[is_before]
    return is_before & (tokens.seconds == seconds.max()) if len(seconds) else is_before


def _last_of_places(tokens: VisualTokens, is_before: torch.Tensor) -> torch.Tensor:
    """(N,) bool: of those before a time, the last token of each place."""
    _, rows, columns = tokens.grid
    place = tokens.flat_index % (rows * columns)
    number = torch.arange(len(place)).where(is_before, -1)
    last = torch.full((rows * columns,), -1).scatter_reduce(0, place, number, "amax")
    return is_before & (last[place] == number)


def match_stream(name: str, known: Sequence[str]) -> str:
    """The one stream that a user means by a name or the end of a path.

    Args:
        name: what the user wrote.
        known: ids of streams.

    Raises:
        MemoryStoreError: none fits, or several do.
    """
    wanted = Path(name).parts
    fitting = [s for s in known if s == name or Path(s).parts[-len(wanted) :] == wanted]
    if len(fitting) != 1:
        what = "is not in the memory" if not fitting else "could be any of several streams"
        some = ", ".join((fitting or list(known))[:5]) or "none, it is empty"
        raise MemoryStoreError(f"{name} {what}; name one of: {some}")
    return fitting[0]
