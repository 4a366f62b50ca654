"""Evidence with its pictures: the sources again, for an answerer that looks instead of reading."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from streamvlm.errors import SourceError
from streamvlm.ingest import Stages
from streamvlm.memory.store import Memory
from streamvlm.protocols import Answerer, Onlooker
from streamvlm.stopwatch import Stopwatch
from streamvlm.types import Evidence
from streamvlm.verify import check_unchanged
from streamvlm.video.revisit import revisit

logger = logging.getLogger(__name__)


def illustrate(
    evidence: Sequence[Evidence],
    answerer: Answerer,
    memory: Memory,
    watch: Stopwatch,
    *,
    allow_local: bool,
) -> tuple[Evidence, ...]:
    """Add the pictures that an answerer asks for; nothing is decoded for one that reads tokens.

    Shown are the frames of which tokens were kept. If there are more than the answerer takes, each
    record gives one in turn, the best record first, evenly spread over its time.

    Args:
        evidence: what was found.
        answerer: who is going to be told.
        memory: where it was found.
        watch: is charged for the stage `look`.
        allow_local: whether URLs of this machine and network may be asked; see `Sampling`.

    Returns:
        The same evidence if the answerer reads tokens; else those records that are shown, each with
        its `pictures`. Where a source is gone, was replaced or cannot be read, they stay empty, and
        a warning says so: the record's thumbnail is what is left of it.
    """
    if not looks(answerer):
        return tuple(evidence)
    chosen = _choose(evidence, answerer.num_pictures)
    wanted: dict[str, dict[float, int]] = {}
    for item, frames in chosen:
        wanted.setdefault(item.record.stream, {}).update(frames)
    with watch.stage("look"):
        seen = {
            stream: _look(memory, stream, frames, answerer.max_side, allow_local=allow_local)
            for stream, frames in wanted.items()
        }
    shown = []
    for item, frames in chosen:
        pictures = seen[item.record.stream]
        here = {seconds: pictures[seconds] for seconds in frames if seconds in pictures}
        shown.append(replace(item, pictures=here))
    return tuple(shown)


def tokens_read(evidence: Sequence[Evidence], stages: Stages) -> int:
    """How many stored tokens a question cost its answerer: none if it looked at pictures."""
    if not evidence or looks(stages.answerer):
        return 0
    return sum(len(found.record.tokens) for found in evidence)


def looks(answerer: Answerer) -> TypeGuard[Onlooker]:
    """Whether an answerer looks at pictures instead of reading tokens."""
    return isinstance(answerer, Onlooker) and answerer.num_pictures > 0


def _choose(evidence: Sequence[Evidence], most: int) -> list[tuple[Evidence, dict[float, int]]]:
    """What to show of each record, at most `most` frames together: second → hash."""
    ranked = sorted(evidence, key=lambda item: -item.score)
    kept = [_kept_frames(item) for item in ranked]
    shares = [0] * len(ranked)
    while sum(shares) < min(most, sum(map(len, kept))):
        for place, frames in enumerate(kept):
            shares[place] += shares[place] < len(frames) and sum(shares) < most
    chosen = []
    for item, frames, share in zip(ranked, kept, shares, strict=True):
        if share:
            index = frames[((np.arange(share) + 0.5) * len(frames) / share).astype(np.int64)]
            record = item.record
            seconds, hashes = record.frame_seconds[index], record.frame_hash[index]
            chosen.append((item, dict(zip(seconds.tolist(), hashes.tolist(), strict=True))))
    return chosen


def _kept_frames(item: Evidence) -> NDArray[np.int64]:
    """(n,) int64: the frames of a record that its tokens show, n ≥ 1, in time order."""
    record = item.record
    # A step may stand for two frames and the time between them.
    steps = np.unique(record.tokens.seconds.numpy(force=True))
    if not len(steps):  # given up with age: the picture that the thumbnail is of
        return np.array([len(record.frame_seconds) // 2])
    distance = np.abs(record.frame_seconds[None] - steps[:, None])
    return np.unique(distance.argmin(axis=1))


def _look(
    memory: Memory, stream: str, wanted: Mapping[float, int], max_side: int, *, allow_local: bool
) -> dict[float, NDArray[np.uint8]]:
    info = memory.stream(stream)
    try:
        if info is None:
            raise SourceError(f"{stream} was forgotten")
        sampling = check_unchanged(info, allow_local=allow_local)
        found = revisit(stream, wanted, sampling, max_side=max_side)
    except SourceError as error:
        logger.warning("only thumbnails are shown: %s", error)
        return {}
    if len(found) < len(wanted):
        logger.warning(
            "%s: %d of %d pictures were not found again",
            stream,
            len(wanted) - len(found),
            len(wanted),
        )
    return found
