"""Evidence that holds: open the sources again and compare every frame that a memory cites."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass

from streamvlm.errors import MemoryStoreError, SourceError
from streamvlm.memory.store import Memory, StreamInfo
from streamvlm.video.pictures import frame_hash
from streamvlm.video.remote import is_url
from streamvlm.video.sources import Sampling, identify, open_source


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a stream's records still show what its source shows."""

    stream: str
    """The stream's id."""
    frames: int
    """Frames that the memory cites."""
    matched: int
    """Of those, the ones found again in the source, pixel for pixel."""
    problems: tuple[str, ...] = ()
    """What is wrong, one sentence each."""

    @property
    def ok(self) -> bool:
        """True if every cited frame was found again."""
        return not self.problems and self.matched == self.frames


def verify(memory: Memory, *, allow_local: bool = False) -> Iterator[Verdict]:
    """Check every stream of a memory against its source.

    Args:
        memory: an open memory.
        allow_local: whether URLs of this machine and network may be asked; see `Sampling`.

    Yields:
        One verdict per stream, as soon as it is known. A source that is gone, replaced or
        unreadable is a verdict, never an exception.
    """
    for info in memory.streams():
        cited, problems = _cited(memory, info.stream)
        if not info.complete:
            problems.append("its ingest was interrupted; run the same ingest again")
        if not is_url(info.stream) and not os.path.exists(info.stream):
            gone = "its file was moved or deleted since it was ingested; put it back, or forget it"
            yield Verdict(info.stream, len(cited), 0, (*problems, f"{info.stream}: {gone}"))
            continue
        try:
            seen = _seen(info, set(cited), allow_local=allow_local)
        except SourceError as error:
            yield Verdict(info.stream, len(cited), 0, (*problems, str(error)))
            continue
        matched = sum(seen.get(seconds) == pixels for seconds, pixels in cited.items())
        if matched < len(cited):
            wrong = next(s for s, pixels in cited.items() if seen.get(s) != pixels)
            problems.append(
                f"{len(cited) - matched} of {len(cited)} cited frames differ from the source, "
                f"the first at {wrong:.2f} s"
            )
        yield Verdict(info.stream, len(cited), matched, tuple(problems))


def _cited(memory: Memory, stream: str) -> tuple[dict[float, int], list[str]]:
    """Second → pixel hash of every frame that the stream's records cite, and what is damaged."""
    cited: dict[float, int] = {}
    problems: list[str] = []
    for record_id in memory.ids(stream):
        try:
            (record,) = memory.load([record_id])
        except MemoryStoreError as error:
            problems.append(str(error))
            continue
        cited.update(zip(record.frame_seconds.tolist(), record.frame_hash.tolist(), strict=True))
    return cited, problems


def check_unchanged(info: StreamInfo, *, allow_local: bool) -> Sampling:
    """Make sure that a stream's source is still the one that was ingested.

    Args:
        info: the stream.
        allow_local: whether URLs of this machine and network may be asked; see `Sampling`.

    Returns:
        How it was sampled.

    Raises:
        SourceError: the source is gone, cannot be read, or was replaced.
    """
    identity = identify(info.stream, allow_local=allow_local)
    if (identity.size, identity.digest) != (info.size, info.digest):
        raise SourceError(
            f"{info.stream} was replaced since it was ingested: it had {info.size} bytes with "
            f"digest {info.digest}, now {identity.size} bytes with digest {identity.digest}"
        )
    return Sampling(**json.loads(info.recipe)["source"], allow_local=allow_local)


def _seen(info: StreamInfo, wanted: set[float], *, allow_local: bool) -> dict[float, int]:
    """Second → pixel hash of the wanted frames as the source shows them now."""
    frames = open_source(info.stream, check_unchanged(info, allow_local=allow_local))
    return {f.seconds: frame_hash(f.image) for f in frames if f.seconds in wanted}
