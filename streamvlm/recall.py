"""From a query to the evidence that a model reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
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
        MemoryStoreError: the memory's keys are of another embedder.
    """
    if memory.identity.embedder != embedder.model:
        raise MemoryStoreError(
            f"this memory was made with the embedder {memory.identity.embedder}, but the "
            f"configuration names {embedder.model}; use the configuration it was made with, or "
            "ingest into another folder"
        )
    with watch.stage("embed"):
        key = embedder.embed_text(query.text)
    with watch.stage("retrieve"):
        return retrieve(memory, key, query) or _standing(memory, key, query)


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
