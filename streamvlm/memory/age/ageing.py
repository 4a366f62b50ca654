"""Which records of a stream are thinned when it grows beyond its caps: recent fine, old coarse.

The bytes a stream may have are shared out among the tiers of `thin`, and so are its records. Where
the stream is too large, the oldest records of each tier that exceeds its share move on to the next,
and the oldest of all are merged two by two. Which two: those whose common span is shortest beside
its age. So a span's length grows with its age, as in a logarithmic time pyramid, and any number of
years fits in any number of records, while every second stays inside one.

Everything here counts; nothing reads a record. Sizes after thinning are estimates, so a plan may
fall short of its goal. Then the next one goes on from there.

n entries, g groups of neighbours that become one record each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from streamvlm.errors import BadOption
from streamvlm.memory.age.thin import NEAR_SECONDS

_SIZES = np.array([1.0, 0.25, 0.12, 0.03])
"""Bytes in each tier as a share of what was stored, eight clips merged. Measured with 64 tokens of
width 1,024 as int8 and a thumbnail of 4 KB: 0.22, 0.10, 0.03 with two keys of width 512 for each
clip, and 0.28, 0.17, 0.03 with eight; with 256 tokens of width 3,584 it is 0.15, 0.05, 0.004."""
_PAIR = 0.5
"""Bytes of two records of tier 3 merged into one as a share of theirs: all have as many keys."""

_BYTE_SHARES = (1 / 3, 1 / 3, 2 / 9, 1 / 9)
_RECORD_SHARES = (1 / 2, 1 / 4)
"""Of tiers 0 and 1 together, and of tier 2; the rest is for tier 3."""
_PARTS = 8
_GOAL, _NEAR = 0.7, 0.9
_LEAST = {"max_bytes": 8 << 20, "max_records": 16, "max_files": 4}
"""Of each cap. The catalogue's log alone takes 1.5 MB, in however small a memory."""


@dataclass(frozen=True, slots=True)
class Caps:
    """How much of one stream a memory keeps; beyond it, old records are thinned."""

    max_bytes: int | None = None
    """Bytes of its records; None for any number."""
    max_records: int | None = None
    """How many records; None for any number."""
    max_files: int | None = None
    """How many shard files; None for any number."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
                raise BadOption(f"{name} must be a whole number or left out, found {value!r}")
            if value is not None and value < least:
                raise BadOption(f"{name} must be at least {least:,}, found {value:,}")

    def is_near(self, num_bytes: float, num_records: int) -> bool:
        """Whether a stream of that size is over nine tenths of a cap: time for a plan."""
        shares = num_bytes / _number(self.max_bytes), num_records / _number(self.max_records)
        return max(shares) > _NEAR


@dataclass(frozen=True, slots=True, eq=False)
class Entries:
    """The records of one stream in the order of time, as far as ageing looks at them."""

    start: NDArray[np.float64]
    """(n,) seconds."""
    end: NDArray[np.float64]
    """(n,) seconds."""
    bytes: NDArray[np.float64]
    """(n,) what each takes on the disk."""
    tier: NDArray[np.int64]
    """(n,) see `thin`."""

    def __len__(self) -> int:
        return len(self.start)


class Step(NamedTuple):
    """Neighbours that are thinned: entries `first` to `stop` − 1.

    Each on its own in tier 1; to one record, as far as they can be merged, in tiers 2 and 3.
    """

    first: int
    stop: int
    tier: int


def plan(entries: Entries, caps: Caps) -> tuple[Step, ...]:
    """What to thin so that a stream falls to seven tenths of its caps, by estimate.

    Args:
        entries: all records of the stream.
        caps: its limits.

    Returns:
        Steps in the order of time that do not overlap; none if it is small enough. The same for the
        same entries always.
    """
    goal = _Goal(_GOAL * _number(caps.max_bytes), _GOAL * _number(caps.max_records))
    draft = _Draft(entries, np.arange(len(entries)))
    # Records first: to merge them frees bytes too.
    for stage in (goal._replace(bytes=np.inf), goal):
        for move in (_fewer, _merge, _bare, _double):
            draft = move(draft, stage)
    return draft.steps(entries)


def expected(entries: Entries, steps: Sequence[Step]) -> Entries:
    """The entries as they will be after some steps, by estimate.

    Args:
        entries: all records of the stream.
        steps: in the order of time.
    """
    tier, head = entries.tier.copy(), np.ones(len(entries), bool)
    for step in steps:
        tier[step.first : step.stop] = step.tier
        head[step.first + 1 : step.stop] = step.tier == 1
    return _Draft(entries, np.arange(len(entries))).grouped(head, tier).entries


def _number(cap: int | None) -> float:
    return np.inf if cap is None else cap


class _Goal(NamedTuple):
    bytes: float
    records: float


@dataclass(frozen=True, slots=True, eq=False)
class _Draft:
    """What is planned so far."""

    entries: Entries
    """As they will be."""
    first: NDArray[np.int64]
    """(g,) the first of the present entries that each of them stands for."""

    def over(self, goal: _Goal) -> tuple[float, float]:
        """By how many bytes and records it exceeds its goal; at most 0 if it does not."""
        total = float(self.entries.bytes.sum())
        return total - goal.bytes, len(self.entries) - goal.records

    def grouped(self, head: NDArray[np.bool_], tier: NDArray[np.int64]) -> _Draft:
        """Merge each entry that is no head into the one before; `tier` is that of each (n,)."""
        now = self.entries
        heads = np.flatnonzero(head)
        size = now.bytes * _SIZES[tier] / _SIZES[now.tier]
        members = np.diff(np.append(heads, len(now)))
        shrink = np.where(tier[heads] == 3, members.astype(np.float64) ** np.log2(_PAIR), 1.0)
        merged = Entries(
            start=now.start[heads],
            end=np.maximum.reduceat(now.end, heads),
            bytes=np.add.reduceat(size, heads) * shrink,
            tier=tier[heads],
        )
        return _Draft(merged, self.first[heads])

    def thinned(self, which: NDArray[np.int64], tier: int) -> _Draft:
        """Each of some entries brought to a tier on its own."""
        new = self.entries.tier.copy()
        new[which] = tier
        return self.grouped(np.ones(len(new), bool), new)

    def steps(self, entries: Entries) -> tuple[Step, ...]:
        """What leads here from the present entries."""
        stop = np.append(self.first[1:], len(entries))
        is_step = (stop - self.first > 1) | (self.entries.tier != entries.tier[self.first])
        found: list[Step] = []
        for group in np.flatnonzero(is_step).tolist():
            step = Step(int(self.first[group]), int(stop[group]), int(self.entries.tier[group]))
            if found and step.tier == found[-1].tier == 1 and found[-1].stop == step.first:
                step = found.pop()._replace(stop=step.stop)
            found.append(step)
        return tuple(found)


def _least(amounts: NDArray[np.number], wanted: float) -> int:
    """How many of the first amounts reach together what is wanted; all if they never do."""
    if wanted <= 0:
        return 0
    return min(int(np.searchsorted(np.cumsum(amounts), wanted)) + 1, len(amounts))


def _fewer(draft: _Draft, goal: _Goal) -> _Draft:
    """The oldest records as stored go to tier 1."""
    over, _ = draft.over(goal)
    pool = np.flatnonzero(draft.entries.tier == 0)
    size = draft.entries.bytes[pool]
    count = min(
        _least(size * (1 - _SIZES[1]), over),
        _least(size, float(size.sum()) - _BYTE_SHARES[0] * goal.bytes),
    )
    return draft.thinned(pool[:count], 1) if count else draft


def _merge(draft: _Draft, goal: _Goal) -> _Draft:
    """The oldest records not yet merged go to tier 2, up to eight neighbours together."""
    over_bytes, over_records = draft.over(goal)
    now = draft.entries
    pool = np.flatnonzero(now.tier <= 1)
    if not len(pool) or (over_bytes <= 0 and over_records <= 0):
        return draft
    head = _heads(now, pool)
    group = np.cumsum(head) - 1
    members = np.bincount(group).astype(np.float64)
    size, tier = now.bytes[pool], now.tier[pool]
    saved = np.bincount(group, size * (1 - _SIZES[2] / _SIZES[tier]))
    fewer = np.bincount(group, size * (tier == 1))
    count = max(
        min(
            _least(saved, over_bytes),
            _least(fewer, float(fewer.sum()) - _BYTE_SHARES[1] * goal.bytes),
        ),
        min(
            _least(members - 1, over_records),
            _least(members, len(pool) - _RECORD_SHARES[0] * goal.records),
        ),
    )
    is_chosen = group < count
    every, new = np.ones(len(now), bool), now.tier.copy()
    every[pool[is_chosen]] = head[is_chosen]
    new[pool[is_chosen]] = 2
    return draft.grouped(every, new)


def _heads(now: Entries, pool: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Where a group of up to eight neighbours begins among some entries: (len(pool),) bool."""
    is_apart = np.ones(len(pool), bool)
    is_apart[1:] = np.diff(pool) > 1
    is_apart[1:] |= now.start[pool[1:]] - now.end[pool[:-1]] > NEAR_SECONDS
    place = np.arange(len(pool))
    run = np.maximum.accumulate(np.where(is_apart, place, 0))
    begins: NDArray[np.bool_] = (place - run) % _PARTS == 0
    return begins


def _bare(draft: _Draft, goal: _Goal) -> _Draft:
    """The oldest merged records go to tier 3."""
    over_bytes, over_records = draft.over(goal)
    pool = np.flatnonzero(draft.entries.tier == 2)
    size = draft.entries.bytes[pool]
    one = np.ones(len(pool))
    count = max(
        min(
            _least(size * (1 - _SIZES[3] / _SIZES[2]), over_bytes),
            _least(size, float(size.sum()) - _BYTE_SHARES[2] * goal.bytes),
        ),
        # Two by two, so many give what is needed by merging.
        min(
            _least(one, 2 * over_records),
            _least(one, len(pool) - _RECORD_SHARES[1] * goal.records),
        ),
    )
    return draft.thinned(pool[:count], 3) if count else draft


def _double(draft: _Draft, goal: _Goal) -> _Draft:
    """Neighbours of tier 3 become one, those first whose span is shortest beside its age."""
    while max(over := draft.over(goal)) > 0:
        now = draft.entries
        is_pair = (now.tier[:-1] == 3) & (now.tier[1:] == 3)
        pairs = np.flatnonzero(is_pair)
        if not len(pairs):
            break
        span = np.maximum(now.end[pairs + 1], now.end[pairs]) - now.start[pairs]
        order = pairs[np.argsort(span / (now.end.max() - now.start[pairs]), kind="stable")]
        draft = draft.grouped(_apart(order, now, over), now.tier)
    return draft


def _apart(order: NDArray[np.int64], now: Entries, over: tuple[float, float]) -> NDArray[np.bool_]:
    """(n,) bool: False for the second of each pair taken, the first first and none twice."""
    head, is_taken = np.ones(len(now), bool), np.zeros(len(now), bool)
    bytes_left, records_left = over
    for one in order.tolist():
        if max(bytes_left, records_left) <= 0:
            break
        if not is_taken[one] and not is_taken[one + 1]:
            is_taken[one : one + 2] = True
            head[one + 1] = False
            bytes_left -= (1 - _PAIR) * float(now.bytes[one : one + 2].sum())
            records_left -= 1
    return head
