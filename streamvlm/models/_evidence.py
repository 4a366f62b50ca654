"""Evidence in reading order: streams one after the other, each cut into its time steps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import PurePosixPath
from urllib.parse import urlsplit

import torch

from streamvlm.types import Evidence, VisualTokens

# Clips that follow one another share their border up to rounding.
_SEAM = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The tokens of one time step, and how it stands to the step before."""

    tokens: VisualTokens
    """n ≥ 1 tokens of one step; its grid is still that of the whole clip."""
    heading: str = ""
    """The stream's name where the first of several streams' steps begin, else empty."""
    follows: bool = False
    """True if it goes on where the step before ended: the same stream, and no gap between."""

    @property
    def seconds(self) -> float:
        """Time of the step from the start of its stream."""
        return float(self.tokens.seconds[0])


def steps(evidence: Sequence[Evidence]) -> Iterator[Step]:
    """The time steps of some evidence.

    Streams come one after the other, each in time order; a step or a record from which nothing was
    kept leaves no trace. With several streams, each one's label is the heading of its first step.

    Args:
        evidence: records in any order.
    """
    kept = [item for item in evidence if len(item.record.tokens)]
    ordered = sorted(kept, key=lambda item: (item.record.stream, item.record.start))
    names = labels([item.record.stream for item in ordered])
    last, end = None, float("nan")
    for item in ordered:
        record = item.record
        heading = names[record.stream] if len(names) > 1 and record.stream != last else ""
        follows = record.stream == last and record.start <= end + _SEAM
        for tokens in _cut(record.tokens):
            yield Step(tokens, heading, follows)
            heading, follows = "", True
        last, end = record.stream, record.end


def runs(evidence: Sequence[Step]) -> Iterator[list[Step]]:
    """Steps that follow one another without a gap, together.

    Args:
        evidence: the time steps in order.
    """
    run: list[Step] = []
    for step in evidence:
        if run and not step.follows:
            yield run
            run = []
        run.append(step)
    if run:
        yield run


def _cut(tokens: VisualTokens) -> Iterator[VisualTokens]:
    # Tokens are in time order, so each step is one run of rows.
    _, counts = torch.unique_consecutive(tokens.position[:, 0], return_counts=True)
    ends = counts.cumsum(0).tolist()
    for first, end in zip([0, *ends[:-1]], ends, strict=True):
        yield tokens.select(torch.arange(first, end, device=tokens.features.device))


def clock(seconds: float) -> str:
    """Seconds as a prompt writes them: `01:05`, from one hour on `01:00:05`; rounded down."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02}" if hours else f"{minute:02}:{second:02}"


def labels(streams: Sequence[str]) -> dict[str, str]:
    """A short name for each stream: its file's name, with as many folders as tell it apart.

    Names may go to a server of somebody else, so no more than that is said, and never the query of
    a URL, which may be signed. Streams that differ in nothing else are numbered.

    Args:
        streams: ids, in any number each.
    """
    places = {stream: _place(stream) for stream in streams}
    names = {stream: _apart(stream, places) for stream in places}
    taken = list(names.values())
    numbers: dict[str, Iterator[int]] = {name: count(1) for name in taken}
    return {
        stream: name if taken.count(name) == 1 else f"{name} ({next(numbers[name])})"
        for stream, name in names.items()
    }


def _place(stream: str) -> tuple[str, ...]:
    """Host, folders and file of a stream, as far as it has them."""
    if "://" not in stream:
        return tuple(part for part in PurePosixPath(stream).parts if part != "/")
    address = urlsplit(stream)
    host = address.netloc.rpartition("@")[2]
    return tuple(part for part in (host, *address.path.split("/")) if part)


def _apart(stream: str, places: Mapping[str, tuple[str, ...]]) -> str:
    """The shortest end of a stream's place that is no other's; its last part if there is none."""
    place = places[stream]
    others = [each for other, each in places.items() if other != stream]
    for depth in range(1, len(place) + 1):
        if all(each[-depth:] != place[-depth:] for each in others):
            return "/".join(place[-depth:])
    return place[-1] if place else "stream"
