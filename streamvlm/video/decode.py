"""The packet loop: from an open video stream to sampled pictures with true times.

Works through packets, never through whole-file decoding: one damaged packet ends that, while the
packets after it are fine.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream
from numpy.typing import NDArray

from streamvlm.types import Lost
from streamvlm.video.clock import Clock
from streamvlm.video.feeding import Feed, H264Units, can_skip
from streamvlm.video.opening import read_traits
from streamvlm.video.pictures import Painter

logger = logging.getLogger(__name__)

_MAX_READ_ERRORS = 8
_EPSILON = 1e-6
"""Seconds; times are rounded to microseconds."""


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One sampled picture."""

    seconds: float
    """Its true time from the first picture of the stream."""
    image: NDArray[np.uint8]
    """(H, W, 3) uint8 RGB, upright."""
    lost: Lost | None
    """What is missing right before it."""


class Reader:
    """Reads the packets and pictures of an open stream and counts the damage.

    Args:
        container: open.
        video: its stream to read.
    """

    def __init__(self, container: InputContainer, video: VideoStream) -> None:
        self._container = container
        self._video = video
        self._decoder = video.codec_context
        # More threads cost more CPU per picture; many files are read side by side instead.
        self._decoder.thread_count = 1
        self.traits = read_traits(container, video)
        self.extradata = self._decoder.extradata
        """The decoder's set-up bytes, None if the container has none."""
        self.damage = 0.0
        """Seconds of pictures that did not decode since this was last set to 0."""

    def packets(self) -> Iterator[av.Packet[VideoStream]]:
        """The packets of the stream in file order; goes on after errors while there is more."""
        errors = 0
        while errors < _MAX_READ_ERRORS:
            try:
                for packet in self._container.demux(self._video):
                    if packet.size:
                        errors = 0
                        yield packet
                return
            except av.error.InvalidDataError:
                errors += 1
            except av.error.FFmpegError as error:
                logger.warning("reading ended early: %s", type(error).__name__)
                return

    def pictures(self, feed: Feed | None = None) -> Iterator[av.VideoFrame]:
        """The pictures of the stream in display order.

        Args:
            feed: chooses the packets to decode; None for all.
        """
        for packet in self.packets() if feed is None else feed(self.packets()):
            if packet is None:
                self._decoder.flush_buffers()
                continue
            yield from self._decode(packet)
        yield from self._decode(None)

    def _decode(self, packet: av.Packet[VideoStream] | None) -> list[av.VideoFrame]:
        try:
            return self._decoder.decode(packet)
        except av.error.FFmpegError:
            if packet is not None:
                self.damage += self.seconds(packet.duration) or self.traits.period
            return []

    def seconds(self, ticks: int | None) -> float:
        """Ticks of the stream's clock as seconds; 0 for None."""
        return (ticks or 0) * self.traits.time_base

    def raw_time(self, picture: av.VideoFrame | av.Packet[VideoStream]) -> float | None:
        """A picture's or packet's timestamp in the container's seconds; None if it has none.

        AVI stores no display times: there the decoder's order counts.
        """
        is_ordered = self.traits.is_avi or isinstance(picture, av.Packet)
        ticks = picture.dts if is_ordered else picture.pts
        return None if ticks is None else self.seconds(ticks)

    def period(self, picture: av.VideoFrame | av.Packet[VideoStream]) -> float:
        """How long a picture is shown, in seconds."""
        return self.seconds(picture.duration) or self.traits.period


class Decoding:
    """One pass over an open stream: iterating gives the samples.

    At each step the first picture at or after it is taken; a damaged picture only if no clean
    one comes within the step. Memory does not grow with the length of the stream.

    Args:
        reader: of the open stream.
        painter: makes the images.
        step: seconds between two samples.
        max_frames: stop sampling after so many, None for no limit.
    """

    def __init__(
        self, reader: Reader, painter: Painter, *, step: float, max_frames: int | None
    ) -> None:
        self._reader = reader
        self._painter = painter
        self._step = step
        self._max_frames = math.inf if max_frames is None else max_frames
        self._clock = Clock()

    @property
    def ended_at(self) -> float:
        """Seconds at which the last picture seen so far ends."""
        return self._clock.end

    def _feed(self) -> Feed | None:
        traits = self._reader.traits
        if not can_skip(traits.format, traits.codec):
            return None
        units = H264Units(self._reader.extradata) if traits.codec == "h264" else None
        return Feed(traits.time_base, units, self._clock.pass_over)

    def __iter__(self) -> Iterator[Sample]:
        """Decode from the start to the end."""
        reader, clock, feed = self._reader, self._clock, self._feed()
        due, taken, previous = 0.0, 0, 0.0
        for picture in reader.pictures(feed):
            period = reader.period(picture)
            seconds = clock(reader.raw_time(picture), period)
            is_late = taken == 0 or seconds >= due + self._step - _EPSILON
            if seconds >= due - _EPSILON and (is_late or not picture.is_corrupt):
                yield Sample(seconds, self._painter(picture), self._lost(seconds - previous))
                taken, previous = taken + 1, seconds
                due = (math.floor(seconds / self._step + _EPSILON) + 1) * self._step
                if taken >= self._max_frames:
                    due = math.inf
                if feed is not None:
                    feed.due = clock.raw(due) - _EPSILON
            if picture.is_corrupt:
                reader.damage += period
            if feed is not None and reader.damage:
                feed.is_damaged = True

    def _lost(self, elapsed: float) -> Lost | None:
        """What is missing since the last sample, `elapsed` seconds ago; starts counting anew."""
        gap, damage = self._clock.gap, self._reader.damage
        self._clock.gap = self._reader.damage = 0.0
        seconds = round(min(gap + damage, elapsed), 6)
        return Lost(seconds, "damage" if damage > gap else "gap") if seconds > 0 else None
