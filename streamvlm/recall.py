"""From a query to the evidence that a model reads."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

import torch

from streamvlm.errors import BadOption, MemoryStoreError, StreamVLMError
from streamvlm.likeness import Sought, at_moment, sought
from streamvlm.memory.retrieve import (
    alikeness,
    candidates,
    chosen,
    first_first,
    fit,
    in_time_order,
    intact,
    load_intact,
)
from streamvlm.memory.spans import Stretch, stretches
from streamvlm.memory.store import Hit, Memory, StreamInfo
from streamvlm.plugins import find
from streamvlm.stopwatch import Stopwatch
from streamvlm.times import at_times_named, standing
from streamvlm.types import Evidence, Query, VisualTokens

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streamvlm.protocols import Embedder

WIDEST = 3600.0
"""Seconds before and after a moment that can be looked at."""
_MOST_AROUND = 4096
"""Records that are looked at there."""


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


@dataclass(frozen=True, slots=True)
class SecondLook:
    """Another opinion on what a search ranked."""

    look_at: int
    """So many of the best candidates are looked at; 0 for none."""
    rank: Callable[[Sequence[Evidence]], list[Evidence]]
    """Gives them in a better order, with scores of its own."""


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """[start, end) of one stream, in seconds, in which what was asked about is to be seen."""

    stream: str
    """The stream's id."""
    start: float
    end: float
    score: float
    """That of its best record; compare within one query only."""
    best: Evidence
    """The record that scores best."""
    records: tuple[str, ...]
    """Ids of all its records, in time order."""


def recall(
    memory: Memory,
    embedder: Embedder,
    query: Query,
    watch: Stopwatch,
    again: SecondLook | None = None,
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
        again: ranks the best candidates anew; those that it does not look at are not read.

    Returns:
        Evidence by stream and time. A record of which only the picture is left has no tokens.

    Raises:
        MemoryStoreError: the memory is empty, or its keys are of another embedder.
        StreamVLMError: something that the query is `like` cannot be read.
    """
    wanted = _sought(memory, embedder, query, watch)
    with watch.stage("retrieve"):
        infos = _reachable(memory, query)
        chained = {info.stream for info in infos if _is_chained(info)}
        most = max(again.look_at, query.max_records) if again else 0
        for first in _first(memory, wanted.keys, query, infos):
            ranked = candidates(
                memory, wanted.keys, query, first=first, apart=wanted.apart, most=most
            )
            if ranked:
                break
        else:
            _check_not_empty(memory)
        if again is not None:
            ranked = first_first(again.rank(list(_within(query, ranked[:most], chained))), first)
        found = chosen(ranked, query)
        found = _with_what_they_continue(memory, wanted.keys, query, found, chained)
        return tuple(_within(query, found, chained))


def sight(
    memory: Memory, embedder: Embedder, query: Query, watch: Stopwatch
) -> tuple[Sighting, ...]:
    """Find the stretches of time in which what is asked about is to be seen.

    Args:
        memory: where to look.
        embedder: what the memory's keys were made with.
        query: the question; `max_records` is how many stretches at the most.
        watch: is charged for the stages `embed` and `retrieve`.

    Returns:
        Those at times that the question names, then the others, the best first.

    Raises:
        StreamVLMError: as for `recall`.
    """
    wanted = _sought(memory, embedder, query, watch)
    with watch.stage("retrieve"):
        infos = _reachable(memory, query)
        chained = {info.stream for info in infos if _is_chained(info)}
        for first in _first(memory, wanted.keys, query, infos):
            hits = [_hit(each) for each in first]
            spans = stretches(memory, wanted.keys, query, first=hits, apart=wanted.apart)
            found = (_sighting(memory, query, span, chained) for span in spans)
            if seen := tuple(islice(filter(None, found), query.max_records)):
                return seen
        _check_not_empty(memory)
    return ()


def around(memory: Memory, stream: str, seconds: float, width: float) -> tuple[Evidence, ...]:
    """What was seen around a moment; no weights are needed.

    Args:
        memory: where to look.
        stream: its path or URL, or the end of either.
        seconds: the moment, in seconds of the stream.
        width: so many seconds before and after it, at most an hour.

    Returns:
        Evidence in time order; scores say how much each looks like the moment itself.

    Raises:
        BadOption: the width is out of range.
        MemoryStoreError: nothing was seen at that moment.
    """
    if not 0 < width <= WIDEST:
        raise BadOption(f"seconds must be above 0 and at most {WIDEST:g}, found {width:g}")
    middle = at_moment(memory, stream, seconds)
    hits = memory.search(
        middle.keys,
        streams=(middle.stream,),
        since=min(seconds - width, middle.start),
        until=seconds + width,
        limit=_MOST_AROUND,
    )
    return in_time_order(load_intact(memory, hits))


def _sought(memory: Memory, embedder: Embedder, query: Query, watch: Stopwatch) -> Sought:
    """What to look for, once it is clear that the memory can be searched for it."""
    if memory.identity.embedder != embedder.model:
        raise MemoryStoreError(
            f"this memory was made with the embedder {memory.identity.embedder}, but the "
            f"configuration names {embedder.model}; use the configuration it was made with, or "
            "ingest into another folder"
        )
    with watch.stage("embed"):
        return sought(memory, embedder, query)


def _check_not_empty(memory: Memory) -> None:
    """Asked only when nothing was found: counting takes the longer the more there is."""
    if not len(memory):
        raise MemoryStoreError(f"the memory {memory.path} is empty; ingest a video into it first")


def _first(
    memory: Memory, keys: NDArray[np.float32], query: Query, infos: Sequence[StreamInfo]
) -> Iterator[tuple[Evidence, ...]]:
    """What comes before all other: the times named; if nothing is found so, what stood still."""
    yield at_times_named(memory, keys, query, infos)
    yield standing(memory, keys, query, infos)


def _hit(found: Evidence) -> Hit:
    record = found.record
    return Hit(record.id, found.score, record.stream, record.start, record.end)


def _sighting(
    memory: Memory, query: Query, span: Stretch, chained: Container[str]
) -> Sighting | None:
    """A stretch with its best record; None if that is damaged, or shows nothing of the time."""
    record = intact(memory, span.best)
    best = [] if record is None else list(_within(query, [Evidence(record, span.score)], chained))
    if not best:
        return None
    return Sighting(span.stream, span.start, span.end, span.score, best[0], span.records)


def _with_what_they_continue(
    memory: Memory,
    keys: NDArray[np.float32],
    query: Query,
    found: Sequence[Evidence],
    chained: Container[str],
) -> tuple[Evidence, ...]:
    """Add the record before each one that is only whole together with it."""
    records = [each.record for each in found if each.record.stream in chained]
    before = {memory.last_before(record.stream, record.start) for record in records}
    missing = before - {None} - {record.id for record in records}
    loaded = [intact(memory, name) for name in sorted(filter(None, missing))]
    more = [Evidence(record, alikeness(record, keys)) for record in filter(None, loaded)]
    return in_time_order(fit([*found, *more], query.max_tokens))


def _is_chained(info: StreamInfo) -> bool:
    """Whether a stream's records leave out what the one before has sent."""
    try:
        name = json.loads(info.recipe)["compressors"]["name"]
        return getattr(find("compressors", name), "chained", False)
    # Written by another program, or with a plug-in that is not installed here.
    except (ValueError, KeyError, TypeError, StreamVLMError):
        return False


def _reachable(memory: Memory, query: Query) -> list[StreamInfo]:
    """The streams that a query is about."""
    return [i for i in memory.streams() if not query.streams or i.stream in query.streams]


def _within(query: Query, found: Iterable[Evidence], chained: Container[str]) -> Iterator[Evidence]:
    """The same evidence without the tokens of frames outside the query's time.

    What was still to be seen when that time began stays: the last frame before it or, where a
    compressor leaves out what goes on as before, the last token of each place before it. What has
    nothing left is left out; what had no tokens before stays if it has a frame before the end.
    """
    since, until = query.since or 0.0, math.inf if query.until is None else query.until
    for each in found:
        tokens = each.record.tokens
        is_before = tokens.seconds <= since
        last = _last_of_places if each.record.stream in chained else _last_frame
        inside = last(tokens, is_before) | (~is_before & (tokens.seconds < until))
        if bool(inside.any()):
            yield replace(each, record=replace(each.record, tokens=tokens.select(inside)))
        elif not len(tokens) and each.record.frame_seconds.min() < until:
            yield each


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
