"""What is sought, as search keys: the words of a question, pictures, and moments of the memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from streamvlm.errors import BadOption, MemoryStoreError, SourceError
from streamvlm.memory.catalog.catalog import FORGOTTEN
from streamvlm.memory.retrieve import intact
from streamvlm.memory.spans import Stretch, grown
from streamvlm.memory.store import Hit, Memory
from streamvlm.types import Clip, Frame, MemoryRecord, Query

if TYPE_CHECKING:
    from streamvlm.protocols import Embedder

_MOMENT = re.compile(r"(?P<stream>.+)@(?P<time>(?:(?:\d+:)?\d{1,2}:)?\d+(?:\.\d+)?)")
_MOST_KEYS = 8
"""Of a moment; more say nothing new and cost as much again."""
_AT = 1e-6
"""Seconds; a record that starts at a second shows it."""


@dataclass(frozen=True, slots=True, eq=False)
class Sought:
    """What to look for, and where not to."""

    keys: NDArray[np.float32]
    """(Q, E) float32 unit vectors; a record is scored by the mean over them."""
    apart: tuple[Stretch, ...] = ()
    """Around the moments themselves, as far as the same is to be seen there."""


def sought(memory: Memory, embedder: Embedder, query: Query) -> Sought:
    """What a query looks for.

    Args:
        memory: where the moments are.
        embedder: what its keys were made with.
        query: its words and what it is `like`.

    Raises:
        SourceError: a picture cannot be read.
        MemoryStoreError: a moment is not in the memory.
        BadOption: a picture is of another shape.
    """
    keys = [embedder.embed_text(query.text)[None]] if query.text.strip() else []
    apart: list[Stretch] = []
    for like in query.like:
        moment = parse_moment(like) if isinstance(like, str) else None
        if moment is None:
            keys.append(embedder.embed_clip(_still(picture(like))))
            continue
        record = at_moment(memory, *moment)
        count = len(record.keys)
        own = record.keys[np.linspace(0, count - 1, min(count, _MOST_KEYS)).round().astype(int)]
        keys.append(own)
        hit = Hit(record.id, 1.0, record.stream, record.start, record.end)
        apart.append(grown(memory, own, hit, replace(query, since=None, until=None)))
    return Sought(np.concatenate(keys), tuple(apart))


def parse_moment(text: str) -> tuple[str, float] | None:
    """The stream's name and the second in `video.mp4@00:40`; None if it is written otherwise.

    >>> parse_moment("hall.mp4@1:02:05"), parse_moment("yard.mp4@7.5"), parse_moment("me@home.png")
    (('hall.mp4', 3725.0), ('yard.mp4', 7.5), None)
    """
    found = _MOMENT.fullmatch(text)
    if found is None or Path(text).exists():
        return None
    parts = reversed(found["time"].split(":"))
    return found["stream"], sum(float(part) * 60.0**power for power, part in enumerate(parts))


def nothing_found(query: Query) -> str:
    """What is said if a search of a memory that is not empty found nothing.

    Args:
        query: what was sought, and within which limits.

    Returns:
        One sentence.
    """
    has_times = query.since is not None or query.until is not None
    if any(isinstance(like, str) and parse_moment(like) for like in query.like):
        where = " within those limits" if has_times else ""
        return f"Nothing else was found{where}: the moment itself and its neighbours are left out."
    if has_times:
        return "Nothing in the memory lies within those limits."
    return "Nothing was found of those streams." if query.streams else "Nothing was found."


def at_moment(memory: Memory, name: str, seconds: float) -> MemoryRecord:
    """The record that shows a moment; at a time in which nothing changed, the still scene's.

    Args:
        memory: where to look.
        name: a stream's id, or the end of it.
        seconds: of that stream.

    Raises:
        MemoryStoreError: there is no such stream, or nothing was seen of it at that time, or that
            was forgotten.
    """
    infos = memory.streams()
    stream = match_stream(name, [info.stream for info in infos])
    (info,) = (info for info in infos if info.stream == stream)
    coverage = info.coverage
    # While it is read it is not known how long it is.
    if not info.seconds or seconds < coverage.seconds:
        before = memory.last_before(stream, seconds + _AT)
        record = intact(memory, before) if before else None
        if record is not None and record.frame_seconds.min() > seconds:
            # It begins with a later picture: what stood there still is of the one before.
            before = memory.last_before(stream, record.start)
            record = (intact(memory, before) if before else None) or record
        span = next((s for s in coverage.spans if s.start <= seconds < s.end), None)
        is_seen = span is None or span.kind in ("sampled", "still")
        if record is not None and (is_seen or record.start <= seconds < record.end):
            return record
        if span is not None and span.reason == FORGOTTEN:
            raise MemoryStoreError(
                f"what was seen of {stream} at {seconds:g} s was forgotten, as was all before "
                f"{span.end:g} s; name a later moment"
            )
    raise MemoryStoreError(
        f"nothing of {stream} was seen at {seconds:g} s (it is {coverage.seconds:g} s long); "
        "name another moment"
    )


def picture(given: str | Path | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A picture as pixels.

    Args:
        given: a file, or pixels (H, W, 3) uint8 RGB.

    Returns:
        (H, W, 3) uint8 RGB, upright.

    Raises:
        SourceError: there is no such file, or it is no picture.
        BadOption: the pixels are of another shape or type.
    """
    if isinstance(given, np.ndarray):
        if given.ndim != 3 or given.shape[2] != 3 or given.dtype != np.uint8 or not given.size:
            raise BadOption(
                f"a picture must be (H, W, 3) uint8 RGB, found {given.shape} {given.dtype}"
            )
        return given
    try:
        with Image.open(given) as opened:
            return np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    except FileNotFoundError:
        raise SourceError(
            f"{given}: there is no such picture; give a file such as person.jpg, or a moment of "
            "the memory such as video.mp4@00:40"
        ) from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        detail = "it is no picture" if isinstance(error, UnidentifiedImageError) else error
        raise SourceError(f"{given} cannot be read ({detail}); give a JPEG or PNG file") from error


def _still(image: NDArray[np.uint8]) -> Clip:
    """A clip of one picture."""
    return Clip("picture", 0.0, 1.0, (Frame("picture", 0, 0.0, image),))


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
