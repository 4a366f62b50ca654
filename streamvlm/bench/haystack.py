"""One long film in the memory: each event ranked, and its question answered in every way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.exam import Mark, shown
from streamvlm.bench.world import Film
from streamvlm.bench.world.needles import Needle
from streamvlm.bench.world.questions import normalise
from streamvlm.config import Config
from streamvlm.engine import StreamVLM
from streamvlm.errors import SourceError
from streamvlm.memory.store import Memory
from streamvlm.types import Clip, Evidence, MemoryRecord, Query
from streamvlm.video.sources import open_source

RANKS = (1, 5, 20)
"""How many records may be looked at, for each recall."""
UNIFORM = (16, 64)
"""How many frames of the whole film the two ways of uniform sampling take."""
MEMORY, WINDOW, ORACLE, BLIND = "memory", "window", "oracle", "blind"
FEW, MANY = (f"uniform {frames}" for frames in UNIFORM)
WAYS = (MEMORY, FEW, MANY, WINDOW, ORACLE, BLIND)
"""Ways of choosing what is read."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What was answered from what one way gave to read."""

    mark: Mark
    """`frames` is the length of the film in seconds."""
    tokens: int
    """Visual tokens read."""
    sees: bool
    """Whether the event is on any picture of which something was read."""


@dataclass(frozen=True, slots=True)
class Find:
    """One event: how its records were ranked, and how each way answered."""

    film: int
    """Counts from 0."""
    needle: Needle
    """What was planted."""
    records: int
    """Records of the whole film."""
    holders: int
    """Of these, the ones that hold a picture of the event; 0 if none was kept."""
    rank: int | None
    """Place of the best holder among all records, from 0; None if it is not among the first 20."""
    instead: str
    """What the record found first shows if it is not a holder; empty if it is."""
    replies: Mapping[str, Reply]
    """One for each of `WAYS`."""


@dataclass(frozen=True, slots=True, eq=False)
class Haystack:
    """One film in the memory, and what may be read of it whatever is asked."""

    film: Film
    number: int
    stream: str
    vlm: StreamVLM
    memory: Memory
    evidence: Mapping[str, tuple[Evidence, ...]]
    """For the ways that do not look at the question."""

    def look_for(self, needle: Needle) -> Find:
        """Rank the records for an event, and answer its question in every way."""
        key = self.vlm.stages.embedder.embed_text(needle.question.text)
        holders = self._holders(needle, key)
        ranked = self.memory.search(key, streams=(self.stream,), limit=RANKS[-1])
        places = [place for place, hit in enumerate(ranked) if hit.id in holders]
        (first,) = self.memory.load([ranked[0].id])
        seen = float(first.frame_seconds[int(np.argmax(first.keys @ key))])
        read = {**self.evidence, ORACLE: tuple(Evidence(r, 1.0) for r in holders.values())}
        return Find(
            film=self.number,
            needle=needle,
            records=len(self.memory.ids(self.stream)),
            holders=len(holders),
            rank=places[0] if places else None,
            instead="" if first.id in holders else likeness(self.film, needle, seen),
            replies={
                way: self._by_memory(needle) if way == MEMORY else self._reply(needle, read[way])
                for way in WAYS
            },
        )

    def _holders(self, needle: Needle, key: NDArray[np.float32]) -> dict[str, MemoryRecord]:
        """The records with a picture of an event, by id."""
        since, until = needle.span
        near = self.memory.search(
            key, streams=(self.stream,), since=since, until=until, limit=2 * int(until - since) + 2
        )
        records = self.memory.load([hit.id for hit in near])
        return {r.id: r for r in records if _is_within(needle, r.frame_seconds)}

    def _by_memory(self, needle: Needle) -> Reply:
        began = time.perf_counter()
        answer = self.vlm.ask(self.vlm.query(needle.question.text, streams=(self.stream,)))
        return self._marked(needle, answer.text, answer.evidence, began)

    def _reply(self, needle: Needle, evidence: Sequence[Evidence]) -> Reply:
        began = time.perf_counter()
        words = self.vlm.stages.model.answer(Query(needle.question.text), evidence)
        return self._marked(needle, "".join(word.text for word in words), evidence, began)

    def _marked(
        self, needle: Needle, text: str, evidence: Sequence[Evidence], began: float
    ) -> Reply:
        question, said = needle.question, normalise(text)
        expected = normalise(question.answer)
        mark = Mark(
            clip=self.number,
            split=self.film.split,
            kind=question.kind,
            frames=self.film.seconds,
            about=question.about,
            expected=expected,
            said=said,
            right=said == expected,
            milliseconds=1000 * (time.perf_counter() - began),
        )
        read = [each.record.tokens for each in evidence]
        sees = any(_is_within(needle, tokens.seconds.cpu().numpy()) for tokens in read)
        return Reply(mark, tokens=sum(map(len, read)), sees=sees)


def likeness(film: Film, needle: Needle, seconds: float) -> str:
    """In what a picture of a film is like an event that it does not show.

    Args:
        film: the plan.
        needle: the event.
        seconds: time of the picture.
    """
    scene = film.scene_at(seconds)
    there = [thing for thing in scene.drawn if thing.is_seen(seconds)]
    coloured = [t for t in there if t.colour_at(seconds) == needle.thing.colour]
    shaped = [t for t in there if t.shape == needle.thing.shape]
    if coloured and shaped:
        return "its colour and its shape, on two things"
    if coloured:
        digit = coloured == [scene.number]
        return "its colour on a digit" if digit else "its colour on another shape"
    if shaped:
        return "its shape in another colour"
    return "nothing like it" if there else "an empty picture"


def _is_within(needle: Needle, seconds: NDArray[np.float64]) -> bool:
    since, until = needle.span
    return bool(((seconds >= since) & (seconds < until)).any())


def newest(memory: Memory, stream: str, budget: int) -> Iterator[MemoryRecord]:
    """What a memory keeps that forgets all but the end of a stream: at least one record.

    Args:
        memory: where the whole stream is.
        stream: its id.
        budget: visual tokens that the window may hold.

    Yields:
        Records from the last one back.
    """
    held = 0
    for uid in reversed(memory.ids(stream)):
        (record,) = memory.load([uid])
        held += len(record.tokens)
        if held > budget and held > len(record.tokens):
            return
        yield record


def uniform(vlm: StreamVLM, path: Path, config: Config, frames: int) -> tuple[Evidence, ...]:
    """Frames spread evenly over a whole film, as one clip with their true times, uncompressed.

    Args:
        vlm: whose model sees them.
        path: the film.
        config: how large the frames are.
        frames: how many.

    Raises:
        SourceError: no picture could be decoded.
    """
    seen = tuple(open_source(str(path), replace(config.sampling, max_frames=frames)))
    if not seen:
        raise SourceError(f"{path}: no picture could be decoded; run the measurement again")
    clip = Clip(seen[0].stream, seen[0].seconds, seen[-1].seconds + 1.0, seen)
    return (shown(vlm.stages.model.encode(clip), clip),)
