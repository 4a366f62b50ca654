"""Find out how long a video is, and that it can be decoded at all."""

from __future__ import annotations

from streamvlm.errors import SourceError
from streamvlm.video.clock import Clock
from streamvlm.video.decode import Reader
from streamvlm.video.opening import opened
from streamvlm.video.remote import is_url

_OVERHANG_SECONDS = 1.0
"""Sound may be longer than the picture by so much without anything being cut off."""


def survey(uri: str, stream: str, *, allow_local: bool) -> float:
    """Seconds from a video's first picture to the end it promises.

    Decodes one picture. Where the container states no length that can be trusted, the packets
    are read through once, without decoding (about 1/50 of the time of decoding).

    Args:
        uri: path or http(s) URL.
        stream: what to call it in messages.
        allow_local: see `Sampling`.

    Raises:
        SourceError: it cannot be opened, or has no picture that decodes.
    """
    with opened(uri, stream, allow_local=allow_local) as source:
        reader = Reader(*source)
        traits = reader.traits
        picture = next(reader.pictures(), None)
        if picture is None:
            raise SourceError(
                f"{stream}: no picture in it could be decoded; it is damaged or cut off, "
                "so copy it again"
            )
        first = reader.raw_time(picture) or 0.0
        shortest = reader.period(picture)
    promised = None if traits.promised_end is None else traits.promised_end - first
    if promised is not None and (is_url(uri) or not traits.is_matroska):
        return round(max(promised, shortest), 6)
    with opened(uri, stream, allow_local=allow_local) as source:
        measured = max(_measure(Reader(*source), first), shortest)
    if promised is not None and promised > measured + _OVERHANG_SECONDS:
        return round(promised, 6)
    return round(measured, 6)


def _measure(reader: Reader, first: float) -> float:
    """Seconds from timestamp `first` to the end of the last packet, across clock jumps."""
    clock, start, end = Clock(), None, 0.0
    for packet in reader.packets():
        raw, period = reader.raw_time(packet), reader.period(packet)
        if raw is None and packet.pts is not None:
            raw = reader.seconds(packet.pts)
        if start is None:
            start = raw
        shown = clock(raw, period)
        if reader.traits.is_avi:
            first = start or 0.0
        elif packet.pts is not None and packet.dts is not None:
            shown += reader.seconds(packet.pts - packet.dts)
        end = max(end, shown + period)
    return end - (first - (start or 0.0))
