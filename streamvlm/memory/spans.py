"""Neighbours in time that show the same: as one stretch to show, as one thing to read about."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamvlm.memory.store import Hit, Memory
from streamvlm.types import Evidence, MemoryRecord, Query

LOOK_AT = 3
"""How many times as many records are looked at as are read, so that repeats can be passed over."""
NEARLY = 0.9
"""Scores are nearly the same: the lower is at least this part of the higher."""
TOUCH = 1e-3
"""Seconds; records this near in time follow one another."""

_SAME_KEY = 0.9
_REPEAT = 0.97
_REACH = 60.0
"""Seconds beyond an end that are looked at first to see whether it goes on; then twice as many."""
_LOOKS = 10
"""How often that is done: enough for hours, and no more however long a scene stands."""
_NEIGHBOURS = 256
"""Records that one look takes in; if there are more, the next is nearer."""
_DEEPEST = 1024
"""Records that are looked at to find so many sightings as are wished for."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """[start, end) of one stream, in seconds, in which what is sought is to be seen."""

    stream: str
    """The stream's id."""
    start: float
    end: float
    score: float
    """That of its best record."""
    best: str
    """The id of that record."""
    records: tuple[str, ...]
    """Ids of all its records, in time order."""

    def touches(self, other: Hit | Stretch) -> bool:
        """Whether something overlaps it in time, or follows on it."""
        return other.stream == self.stream and (
            self.start - TOUCH <= other.end and other.start <= self.end + TOUCH
        )

    def goes_on_in(self, other: Hit | Stretch) -> bool:
        """Whether something that touches it is the same, by its score."""
        return self.touches(other) and _within_a_tenth(self.score, other.score)


def stretches(
    memory: Memory,
    keys: NDArray[np.float32],
    query: Query,
    *,
    first: Sequence[Hit] = (),
    apart: Sequence[Stretch] = (),
) -> Iterator[Stretch]:
    """Where what is sought is to be seen: no two of these share a record.

    If too few lie among the records looked at, as in a long still scene, four times as many are
    looked at, up to 1,024: the work does not grow with the memory.

    Args:
        memory: where to look.
        keys: (Q, E) float32, what is sought.
        query: its streams and times; `max_records` says how many stretches are likely wanted.
        first: records around which to look before all others.
        apart: where not to look.

    Yields:
        Each once, those of `first` in their order, then the best first. Take as many as are wanted:
        what is not asked for is not looked for.
    """
    found: list[Stretch] = []
    count = 0
    limit = LOOK_AT * query.max_records + sum(len(each.records) + 2 for each in apart)
    while True:
        hits = memory.search(
            keys, streams=query.streams, since=query.since, until=query.until, limit=limit
        )
        for hit in [*first, *hits]:
            is_known = any(hit.id in each.records or each.goes_on_in(hit) for each in found)
            if is_known or any(each.touches(hit) for each in apart):
                continue
            new = grown(memory, keys, hit, query, known=found)
            # What is longer than a stretch can grow is told of once.
            is_rest = any(each.goes_on_in(new) for each in found)
            found.append(new)
            if not is_rest:
                count += 1
                yield new
        if count >= query.max_records or len(hits) < limit or limit >= _DEEPEST:
            return
        limit *= 4


def grown(
    memory: Memory,
    keys: NDArray[np.float32],
    hit: Hit,
    query: Query,
    *,
    known: Iterable[Stretch] = (),
) -> Stretch:
    """How far to either side of a record what is sought is to be seen.

    It goes on over records that follow one another and whose scores lie within a tenth of that of
    the first. A record that is not alike at all (0 or less) stays alone.

    Args:
        memory: where the record is.
        keys: (Q, E) float32, what is sought.
        hit: the record.
        query: its times are the furthest it may go.
        known: stretches whose records it may not take.
    """
    taken = {name for each in known for name in each.records}
    start, end, reach = hit.start, hit.end, _REACH
    chain = {hit.id: hit}
    since, until = query.since or 0.0, math.inf if query.until is None else query.until
    for _ in range(_LOOKS):
        low, high = max(start - reach, since), min(end + reach, until)
        near = memory.search(
            keys, streams=(hit.stream,), since=low, until=high, limit=_NEIGHBOURS + len(chain)
        )
        if len(near) >= _NEIGHBOURS + len(chain):
            reach /= 4
            continue
        level = next((each.score for each in near if each.id == hit.id), hit.score)
        alike = [e for e in near if e.id not in taken and _within_a_tenth(e.score, level)]
        for each in sorted(alike, key=lambda other: other.start):
            if hit.start <= each.start <= end + TOUCH:
                chain[each.id], end = each, max(end, each.end)
        for each in sorted(alike, key=lambda other: -other.end):
            if each.start < hit.start and each.end >= start - TOUCH:
                chain[each.id], start = each, min(start, each.start)
        may_go_back = since < low and start <= low + TOUCH
        may_go_on = high < until and end >= high - TOUCH
        if not (may_go_back or may_go_on):
            break
        reach *= 2
    records = sorted(chain.values(), key=lambda each: each.start)
    names = tuple(each.id for each in records)
    return Stretch(hit.stream, start, end, hit.score, hit.id, names)


def varied(found: Sequence[Evidence], keys: NDArray[np.float32]) -> list[Evidence]:
    """Order evidence so that what is read first shows as many things as it can.

    Records show the same thing if they touch or overlap in time, their keys nearest to what is
    sought have a cosine of at least 0.9, and their scores lie within a tenth. Of each such group
    the best record comes first, then the second of each, and so on. A record that repeats a better
    neighbour comes behind all others: each of its keys has a cosine of at least 0.97 with one of
    that one's, as in a still scene cut into clips.

    Args:
        found: best first.
        keys: (Q, E) float32, what is sought.

    Returns:
        The same evidence.
    """
    groups: list[list[int]] = []
    nearest = [each.record.keys[(each.record.keys @ keys.T).argmax(axis=0)] for each in found]
    repeats: set[int] = set()
    for place, each in enumerate(found):
        beside = [other for other in range(place) if _touch(each.record, found[other].record)]
        if any(_repeats(each.record, found[other].record) for other in beside):
            repeats.add(place)
        same = {
            other
            for other in beside
            if _within_a_tenth(each.score, found[other].score)
            and (nearest[place] * nearest[other]).sum(axis=1).mean() >= _SAME_KEY
        }
        joined = [group for group in groups if same & set(group)]
        groups = [group for group in groups if not same & set(group)]
        groups.append(sorted([*(member for group in joined for member in group), place]))
    turn = {member: number for group in groups for number, member in enumerate(group)}
    order = sorted(range(len(found)), key=lambda place: (place in repeats, turn[place], place))
    return [found[place] for place in order]


def _within_a_tenth(one: float, other: float) -> bool:
    """Whether two scores are nearly the same; never of what is not alike at all (0 or less)."""
    return min(one, other) >= NEARLY * max(one, other) > 0


def _touch(record: MemoryRecord, other: MemoryRecord) -> bool:
    follows = record.start <= other.end + TOUCH and other.start <= record.end + TOUCH
    return record.stream == other.stream and follows


def _repeats(record: MemoryRecord, other: MemoryRecord) -> bool:
    return bool(((record.keys @ other.keys.T).max(axis=1) >= _REPEAT).all())
