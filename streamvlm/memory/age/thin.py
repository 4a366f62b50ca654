"""How a memory forgets detail, but never that a time existed: records in, smaller records out.

Four tiers of age, each made from any before it:

- 0: as stored;
- 1, fewer: a quarter of the tokens, at four bits a number;
- 2, merged: neighbours in time are one record, with a few tokens for each time step;
- 3, bare: no tokens, only keys and a thumbnail, so that the moment is still found and shown; such
  records are merged further, into ever longer spans of at most so many keys.

No feature is looked at and nothing is averaged: what is left is what was stored, but coarser. The
same records give the same result always, under an id that follows from stream and span, so it can
be made again after a crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.memory.age.keys import distinct, most_different
from streamvlm.memory.age.naming import record_id
from streamvlm.types import MemoryRecord, VisualTokens

NEAR_SECONDS = 10.0
"""Neighbours that are no further apart are merged in tier 2; tier 3 spans any gap."""
MOST_KEYS = 16
"""Keys of a record of tier 3."""

_FEWER = 0.25
_PER_STEP = 2


def payload_of(tier: int, own: str) -> str:
    """The codec for the features of a record.

    Args:
        tier: the record's.
        own: the memory's, see `quant.CHOICES`.
    """
    return "int4" if tier else own


def thinned(
    records: Sequence[MemoryRecord], tier: int, *, gap_seconds: float = NEAR_SECONDS
) -> tuple[MemoryRecord, ...]:
    """Bring records to a tier.

    Args:
        records: neighbours of one stream in the order of time, at least one.
        tier: 1, 2 or 3; none of the records is thinned further than that already.
        gap_seconds: how far apart neighbours may be to be merged in tier 2.

    Returns:
        Records that span the same time: as many in tier 1, as few as can be merged in tier 2, one
        in tier 3.
    """
    if tier == 1:
        return tuple(map(fewer, records))
    return merged(records, gap_seconds) if tier == 2 else (bare(records),)


def fewer(record: MemoryRecord) -> MemoryRecord:
    """Tier 1: a quarter of a record's tokens, rounded up; all keys and frames.

    Args:
        record: one that was thinned already is returned as it is.
    """
    if record.tier:
        return record
    tokens = spread(record.tokens, -(-len(record.tokens) // round(1 / _FEWER)))
    return replace(record, tokens=tokens, tier=1)


def merged(records: Sequence[MemoryRecord], gap_seconds: float) -> tuple[MemoryRecord, ...]:
    """Tier 2: neighbours become one record, with one or two tokens for each of their time steps.

    Its tokens lie on a grid of all their steps, one record's behind the other's. It has their keys,
    but none that has a cosine of 0.98 to one before; the frames that its tokens show; the thumbnail
    nearest its middle; and, if any of them had, ranks: first the foremost token of each.

    Args:
        records: neighbours of one stream in the order of time, at least one.
        gap_seconds: how far apart they may be.

    Returns:
        One record for each run of neighbours that may be merged: near enough, of one model, grid
        size and number type, and none of them bare.
    """
    runs: list[list[MemoryRecord]] = []
    for record in records:
        if runs and _may_join(runs[-1][-1], record, gap_seconds):
            runs[-1].append(record)
        else:
            runs.append([record])
    return tuple(_joined(run) for run in runs)


def bare(records: Sequence[MemoryRecord]) -> MemoryRecord:
    """Tier 3: one record without tokens over all of them, for search and for the eye.

    Its at most 16 keys are those of all that differ most (farthest-first traversal, Gonzalez 1985,
    from the one that stands out most). Its one frame is the thumbnail's.

    Args:
        records: of one stream in the order of time, of any tiers, at least one.
    """
    if len(records) == 1 and records[0].tier == 3:
        return records[0]
    middle = _middle(records)
    shown = slice(len(middle.frame_seconds) // 2, len(middle.frame_seconds) // 2 + 1)
    tokens = middle.tokens.select(torch.arange(0, device=middle.tokens.features.device))
    no_tokens = replace(tokens.without_cues(), grid=(1, *tokens.grid[1:]), rank=None)
    return _spanning(
        records,
        replace(
            middle,
            keys=most_different(distinct(_keys(records)), MOST_KEYS),
            tokens=no_tokens,
            frame_seconds=middle.frame_seconds[shown],
            frame_hash=middle.frame_hash[shown],
            tier=3,
        ),
    )


def foremost(tokens: VisualTokens, count: int) -> VisualTokens:
    """The most important tokens of a clip, in time-then-place order.

    Args:
        tokens: N tokens; without `rank`, an even part of them is taken.
        count: how many, at least 1; all if there are no more.
    """
    if count >= len(tokens):
        return tokens
    return tokens.select(_first(tokens.rank, len(tokens), count).to(tokens.position.device))


def spread(tokens: VisualTokens, count: int) -> VisualTokens:
    """The foremost token of every time step, and of the others the foremost.

    Args:
        tokens: N tokens in time-then-place order; without `rank`, the middle token of each step and
            an even part of the others are taken.
        count: how many, at least 1; all if there are no more. If there are more steps, these are
            simply the foremost.
    """
    _, sizes = torch.unique_consecutive(tokens.position[:, 0], return_counts=True)
    if len(sizes) > count or count >= len(tokens):
        return foremost(tokens, count)
    chosen = torch.zeros(len(tokens), dtype=torch.bool, device=sizes.device)
    if tokens.rank is None:
        chosen[sizes.cumsum(0) - sizes + sizes // 2] = True
    else:
        step = torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)
        best = tokens.rank.new_zeros(len(sizes))
        best.scatter_reduce_(0, step, tokens.rank, "amin", include_self=False)
        chosen = tokens.rank == best[step]
    others = (~chosen).nonzero().flatten()
    rank = None if tokens.rank is None else tokens.rank[others]
    if count > len(sizes):
        chosen[others[_first(rank, len(others), count - len(sizes))]] = True
    return tokens.select(chosen.nonzero().flatten())


def _first(rank: torch.Tensor | None, number: int, count: int) -> torch.Tensor:
    """(count,) increasing int64: by rank, or evenly spread over so many; count is at most N."""
    if rank is None:
        return torch.linspace(0, number - 1, count, dtype=torch.float64).long()
    return rank.argsort()[:count].sort().values


def _may_join(one: MemoryRecord, other: MemoryRecord, gap_seconds: float) -> bool:
    def kind(tokens: VisualTokens) -> tuple[object, ...]:
        deep = None if tokens.deepstack is None else tokens.deepstack.shape[1:]
        return tokens.model, tokens.grid[1:], tokens.features.dtype, tokens.features.shape[1], deep

    is_near = other.start - one.end <= gap_seconds and max(one.tier, other.tier) < 3
    return is_near and kind(one.tokens) == kind(other.tokens)


def _joined(records: Sequence[MemoryRecord]) -> MemoryRecord:
    if len(records) == 1 and records[0].tier >= 2:
        return records[0]
    parts = [_few(record) for record in map(fewer, records)]
    frames = [_cited(*each) for each in zip(records, parts, strict=True)]
    return _spanning(
        records,
        replace(
            _middle(records),
            keys=distinct(_keys(records)),
            tokens=_chained(parts),
            frame_seconds=np.concatenate(
                [record.frame_seconds[own] for record, own in zip(records, frames, strict=True)]
            ),
            frame_hash=np.concatenate(
                [record.frame_hash[own] for record, own in zip(records, frames, strict=True)]
            ),
            tier=2,
        ),
    )


def _few(record: MemoryRecord) -> VisualTokens:
    """Half of the tokens, but one or two for each step that has any; all of a merged record's."""
    if record.tier >= 2:
        return record.tokens
    steps = len(torch.unique_consecutive(record.tokens.position[:, 0]))
    half = -(-len(record.tokens) // 2)
    return spread(record.tokens, max(min(half, _PER_STEP * steps), steps, 1))


def _cited(record: MemoryRecord, tokens: VisualTokens) -> NDArray[np.int64]:
    """Which frames of a record some of its tokens show; the middle one if there are none."""
    if not len(tokens):
        return np.array([len(record.frame_seconds) // 2])
    steps = np.unique(tokens.seconds.numpy(force=True))
    return np.unique(np.abs(record.frame_seconds[None] - steps[:, None]).argmin(axis=1))


def _chained(parts: Sequence[VisualTokens]) -> VisualTokens:
    """Tokens of clips of one grid size as those of one clip."""
    steps = np.cumsum([0] + [part.grid[0] for part in parts]).tolist()
    position = [
        part.position + part.position.new_tensor([before, 0, 0])
        for part, before in zip(parts, steps[:-1], strict=True)
    ]
    deepstack = [part.deepstack for part in parts if part.deepstack is not None]
    return replace(
        parts[0],
        features=torch.cat([part.features for part in parts]),
        position=torch.cat(position),
        seconds=torch.cat([part.seconds for part in parts]),
        grid=(steps[-1], *parts[0].grid[1:]),
        weight=torch.cat([part.weight for part in parts]),
        cues={},
        frame_cues={},
        deepstack=torch.cat(deepstack) if deepstack else None,
        rank=_ranked(parts),
    )


def _ranked(parts: Sequence[VisualTokens]) -> torch.Tensor | None:
    """Ranks by which first each part's foremost token comes, then each one's second, and so on.

    A part that nobody ordered counts in time-then-place order; if none was ordered, nor is this.
    """
    if all(part.rank is None for part in parts):
        return None
    turn = [
        part.rank.argsort().argsort() if part.rank is not None else torch.arange(len(part))
        for part in parts
    ]
    place = torch.cat([own * len(parts) + number for number, own in enumerate(turn)])
    return place.argsort().argsort()


def _keys(records: Sequence[MemoryRecord]) -> NDArray[np.float32]:
    """(K, E) the keys of all records, of unit length again after they were stored."""
    keys = np.concatenate([record.keys for record in records]).astype(np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    return keys


def _middle(records: Sequence[MemoryRecord]) -> MemoryRecord:
    """The record whose thumbnail's frame is nearest the middle of them all."""
    moment = (records[0].start + max(record.end for record in records)) / 2
    return min(records, key=lambda r: abs(r.frame_seconds[len(r.frame_seconds) // 2] - moment))


def _spanning(records: Sequence[MemoryRecord], content: MemoryRecord) -> MemoryRecord:
    """A record of some content that spans all these, under the id of that span."""
    start, end = min(r.start for r in records), max(r.end for r in records)
    name = record_id(content.stream, start, end)
    return replace(content, id=name, start=start, end=end)
