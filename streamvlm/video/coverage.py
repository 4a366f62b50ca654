"""Keep account of how every second of a stream was watched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from streamvlm.types import Coverage, Frame, Lost, Span, SpanKind

_TAIL_SECONDS = 0.25
"""The last picture's length is a guess, and sound may run on a little: no gap below this."""


class CoverageLog:
    """Watches the frames before and after a filter, and says what was seen.

    Put `saw` before a `FrameFilter` and `kept` after it; both hand the frames on unchanged.
    A sampled frame stands for the time until the next one: *sampled* if the filter kept it,
    *still* if it showed nothing new. Only the spans so far are held, not the frames.

    Args:
        stream: the stream's id.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._spans: list[Span] = []
        self._until = 0.0
        self._last_index: int | None = None
        self._is_kept = False

    def saw(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Hand on the frames of a source, noting each."""
        for frame in frames:
            self._finish(frame.seconds, frame.lost)
            self._last_index, self._is_kept = frame.index, False
            yield frame

    def kept(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Hand on the frames that a filter kept, noting each."""
        for frame in frames:
            # A filter never looks ahead, so this is the frame that was seen last.
            self._is_kept = self._is_kept or frame.index == self._last_index
            yield frame

    def close(self, duration: float | None, ended_at: float | None) -> Coverage:
        """The account up to the end of the stream; call once, after the last frame.

        Args:
            duration: seconds that the source promised; None if it promised nothing.
            ended_at: seconds at which its last picture ended; None if not known.

        Returns:
            Spans from 0 to the larger of the two, without hole or overlap, neighbours of
            different kind or reason.
        """
        watched = max(self._until, ended_at if ended_at is not None else duration or 0.0)
        whole = max(watched, duration or 0.0)
        if self._last_index is None:
            self._add(whole, "gap", "no picture decoded")
            return Coverage(self._stream, tuple(self._spans))
        if whole - watched <= _TAIL_SECONDS:
            watched = whole
        self._finish(watched, None)
        self._add(whole, "gap", "ends early")
        return Coverage(self._stream, tuple(self._spans))

    def _finish(self, seconds: float, lost: Lost | None) -> None:
        """Account for the time from the last frame to `seconds`, of which `lost` is missing."""
        missing = 0.0 if lost is None else lost.seconds
        if self._last_index is not None:
            self._add(seconds - missing, "sampled" if self._is_kept else "still")
        if lost is not None and lost.reason == "overload":
            self._add(seconds, "skipped", "overload")
        else:
            is_hole = lost is None or lost.reason == "gap"
            self._add(seconds, "gap", "no pictures stored" if is_hole else "damage")

    def _add(self, end: float, kind: SpanKind, reason: str = "") -> None:
        if end <= self._until:
            return
        start, self._until = self._until, end
        if self._spans and (self._spans[-1].kind, self._spans[-1].reason) == (kind, reason):
            start = self._spans.pop().start
        self._spans.append(Span(start, end, kind, reason))
