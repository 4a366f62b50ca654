"""Which packets of a file a decoder must see so that the sampled pictures come out unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import av
from av.video.stream import VideoStream

_LAZY_FORMATS = frozenset({"mov", "mp4", "matroska", "webm"})
_LAZY_CODECS = frozenset({"h264", "hevc", "vp8", "vp9", "av1", "libdav1d", "mjpeg"})
_MAX_HELD_BYTES = 32 * 2**20


def can_skip(format_name: str, codec: str) -> bool:
    """Whether key pictures of such a file can be trusted as points to start from.

    Not so in AVI (wrong display times) and transport streams (may start between key pictures).

    Args:
        format_name: FFmpeg's name of the container, such as `mov,mp4,m4a`.
        codec: FFmpeg's name of the decoder.
    """
    return codec in _LAZY_CODECS and not _LAZY_FORMATS.isdisjoint(format_name.split(","))


class H264Units:
    """Reads the unit headers of H.264 packets as MP4 and Matroska store them (ISO 14496-15).

    Args:
        extradata: the stream's `avcC` box; without one every packet counts as needed.
    """

    def __init__(self, extradata: bytes | None) -> None:
        is_avcc = extradata is not None and len(extradata) > 6 and extradata[0] == 1
        self._prefix = (extradata[4] & 3) + 1 if extradata and is_avcc else 0

    def _headers(self, packet: av.Packet[VideoStream]) -> Iterator[tuple[int, int]]:
        """(type, reference level) of each slice in the packet."""
        data, at = memoryview(packet), 0
        while self._prefix and at + self._prefix < len(data):
            size = int.from_bytes(data[at : at + self._prefix], "big")
            first = data[at + self._prefix]
            if 1 <= (kind := first & 31) <= 5:
                yield kind, first >> 5 & 3
            at += self._prefix + size

    def is_restart(self, packet: av.Packet[VideoStream]) -> bool:
        """Whether the packet starts with an IDR slice: nothing after it needs what came before."""
        return next(self._headers(packet), (0, 0))[0] == 5

    def is_reference(self, packet: av.Packet[VideoStream]) -> bool:
        """Whether other pictures may need this one; True in doubt."""
        levels = [level for _, level in self._headers(packet)]
        return not levels or any(levels)


class Feed:
    """Passes on only the packets that the next wanted picture needs.

    Packets wait, compressed, until one of them lies at or after `due`. If the next group of
    pictures starts before that, and nothing in it refers back, the waiting ones are dropped
    and the decoder restarts there. H.264 pictures that no other refers to are never decoded
    before `due`. The pictures at or after `due` are the same as when all packets are decoded.
    Measured at 720p: 0.7 of the CPU time of decoding everything at 1 fps, 0.5 (long groups) and
    0.2 (groups of 2 s) at one picture in 4 s. In a damaged file a picture after the damage may
    be patched up differently, never at another time.

    Args:
        time_base: seconds per tick of the packets' timestamps.
        units: reads H.264 packets; None for other codecs.
        dropped: told where each dropped packet ends, in the container's seconds.
    """

    def __init__(
        self, time_base: float, units: H264Units | None, dropped: Callable[[float], None]
    ) -> None:
        self.due = float("-inf")
        """Timestamp of the next wanted picture, in the container's seconds."""
        self.is_damaged = False
        """Set this once a picture failed: from then on every packet is passed on."""
        self._time_base = time_base
        self._units = units
        self._dropped = dropped
        self._fed_until = float("-inf")
        self._held: list[tuple[av.Packet[VideoStream], float]] = []
        self._held_until = float("-inf")
        self._held_bytes = 0
        self._restart: int | None = None

    def __call__(
        self, packets: Iterable[av.Packet[VideoStream]]
    ) -> Iterator[av.Packet[VideoStream] | None]:
        """Yield the packets to decode in order; None means: flush the decoder first."""
        for packet in packets:
            if packet.pts is None or self.is_damaged:
                yield from self._release()
                yield packet
                continue
            raw = packet.pts * self._time_base
            if self._held and self._restart is not None:
                yield from self._settle(raw)
                yield from self._release_if_wanted()
            if self._is_useless(packet, raw):
                self._drop([(packet, raw)])
            elif not self._held and self._fed_until >= self.due:
                self._fed_until = max(self._fed_until, raw)
                yield packet
            else:
                self._hold(packet, raw)
                yield from self._release_if_wanted()
        if self._restart is not None:
            yield from self._settle(float("inf"))
        yield from self._release()

    def _is_useless(self, packet: av.Packet[VideoStream], raw: float) -> bool:
        return self._units is not None and raw < self.due and not self._units.is_reference(packet)

    def _hold(self, packet: av.Packet[VideoStream], raw: float) -> None:
        is_restart = packet.is_keyframe and (self._units is None or self._units.is_restart(packet))
        if is_restart:
            self._restart = len(self._held)
        self._held.append((packet, raw))
        self._held_until = max(self._held_until, raw)
        self._held_bytes += packet.size

    def _settle(self, raw: float) -> Iterator[None]:
        """Drop what waits before a key picture, unless a picture shown before it comes after it."""
        assert self._restart is not None
        key_raw = self._held[self._restart][1]
        if raw > key_raw:
            self._drop(self._held[: self._restart])
            self._held = self._held[self._restart :]
            self._held_until = key_raw
            self._held_bytes = sum(packet.size for packet, _ in self._held)
            yield None
        if raw != key_raw:
            self._restart = None

    def _release_if_wanted(self) -> Iterator[av.Packet[VideoStream]]:
        is_wanted = self._held_until >= self.due or self._held_bytes > _MAX_HELD_BYTES
        if self._held and self._restart is None and is_wanted:
            yield from self._release()

    def _release(self) -> Iterator[av.Packet[VideoStream]]:
        held, self._held, self._held_bytes, self._restart = self._held, [], 0, None
        self._held_until = float("-inf")
        for packet, raw in held:
            self._fed_until = max(self._fed_until, raw)
            yield packet

    def _drop(self, packets: list[tuple[av.Packet[VideoStream], float]]) -> None:
        for packet, raw in packets:
            self._dropped(raw + (packet.duration or 0) * self._time_base)
