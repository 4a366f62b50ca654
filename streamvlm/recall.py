"""From a query to the evidence that a model reads."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.retrieve import retrieve
from streamvlm.memory.store import Memory
from streamvlm.stopwatch import Stopwatch
from streamvlm.types import Evidence, Query

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from streamvlm.protocols import Embedder

_MOMENT = 1e-3
"""Seconds; a record that touches a moment is found by a window of this width."""


def recall(
    memory: Memory, embedder: Embedder, query: Query, watch: Stopwatch
) -> tuple[Evidence, ...]:
    """Find what bears on a query.

    If nothing new was seen in the query's time, that is the still scene that was seen last.

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
        found = retrieve(memory, key, query) or _standing(memory, key, query)
    seen = map(partial(_within, query), found)
    return tuple(each for each in seen if len(each.record.tokens))


def _standing(memory: Memory, key: NDArray[np.float32], query: Query) -> tuple[Evidence, ...]:
    """What was last seen before a time in which nothing new was."""
    if query.since is None:
        return ()
    found: list[Evidence] = []
    for info in memory.streams():
        if query.streams and info.stream not in query.streams:
            continue
        for span in info.coverage.spans:
            if span.kind == "still" and span.start <= query.since < span.end:
                start = span.start
                before = replace(query, streams=(info.stream,), since=start - _MOMENT, until=start)
                found += retrieve(memory, key, before)
    best = sorted(found, key=lambda each: -each.score)[: query.max_records]
    return tuple(sorted(best, key=lambda each: (each.record.stream, each.record.start)))


def _within(query: Query, found: Evidence) -> Evidence:
    """The same evidence without the tokens of frames outside the query's time.

    The last frame before that time stays: it is what was still to be seen when it began.
    """
    tokens, since = found.record.tokens, query.since or 0.0
    before = tokens.seconds[tokens.seconds <= since]
    first = before.max() if len(before) else tokens.seconds.new_tensor(since)
    until = math.inf if query.until is None else query.until
    inside = (tokens.seconds >= first) & (tokens.seconds < until)
    return replace(found, record=replace(found.record, tokens=tokens.select(inside)))


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
