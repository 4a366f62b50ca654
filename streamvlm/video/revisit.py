"""Decode single pictures of a source again, and prove by their hashes that they are the same."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from streamvlm.video.decode import Reader
from streamvlm.video.opening import opened
from streamvlm.video.pictures import Painter, frame_hash
from streamvlm.video.sampling import Sampling
from streamvlm.video.sources import open_source

logger = logging.getLogger(__name__)

_EPSILON = 1e-6
"""Seconds; times are rounded to microseconds."""
_NEAR = 3.0
"""Seconds; to a picture so little ahead it is about as cheap to read on as to seek."""


def revisit(
    uri: str, wanted: Mapping[float, int], sampling: Sampling, *, max_side: int
) -> dict[float, NDArray[np.uint8]]:
    """The pictures that a source showed at some of the times at which it was sampled.

    Each is looked for where the container's own clock puts it, so that an hour of film need not be
    read. What is not found there, as behind a clock jump, is looked for from the start. A picture
    counts as found only if its pixels, at the size at which it was sampled, have the hash they had.

    Args:
        uri: path or http(s) URL.
        wanted: second → `frame_hash` of the picture as it was sampled.
        sampling: how it was sampled.
        max_side: longest side of the pictures in pixels, if that is more than what was sampled;
            never enlarged. What is looked for from the start comes as it was sampled.

    Returns:
        {second: (H, W, 3) uint8 RGB}; what the source no longer shows is missing.

    Raises:
        SourceError: the source cannot be read.
    """
    found: dict[float, NDArray[np.uint8]] = {}
    with opened(uri, uri, allow_local=sampling.allow_local) as source:
        aspect = Reader(*source).traits.aspect
        sampled, larger = Painter(sampling.max_side, aspect), Painter(max_side, aspect)
        for seconds, picture in _seek(*source, sorted(wanted)):
            image = sampled(picture)
            if frame_hash(image) == wanted[seconds]:
                found[seconds] = larger(picture) if max_side > sampling.max_side else image
    missing = len(wanted) - len(found)
    if not missing:
        return found
    logger.warning(
        "%s: %d of %d pictures are not where its clock puts them; it is read from the start",
        uri,
        missing,
        len(wanted),
    )
    for frame in open_source(uri, sampling):
        if wanted.get(frame.seconds) == frame_hash(frame.image):
            missing -= frame.seconds not in found
            found.setdefault(frame.seconds, frame.image)
        if not missing:
            break
    return found


def _seek(
    container: InputContainer, video: VideoStream, times: Sequence[float]
) -> Iterator[tuple[float, av.VideoFrame]]:
    """The pictures at some times, in order, as far as the container's clock leads to them."""
    reader = Reader(container, video)
    first = next(reader.pictures(), None)
    zero = None if first is None else reader.raw_time(first)
    if zero is None:
        return
    at, pictures = float("inf"), reader.pictures()
    for seconds in times:
        if not 0 <= seconds - at <= _NEAR:
            try:
                container.seek(int((zero + seconds) / reader.traits.time_base), stream=video)
            except av.error.FFmpegError:
                return
            pictures = reader.pictures()
        for picture in pictures:
            at = round((reader.raw_time(picture) or 0.0) - zero, 6)
            if at >= seconds - _EPSILON:
                if at <= seconds + _EPSILON:
                    yield seconds, picture
                break
