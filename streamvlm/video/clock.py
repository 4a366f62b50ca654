"""From a container's timestamps to seconds since the first picture."""

from __future__ import annotations

_JUMP_SECONDS = 1.0
"""Reordering moves a timestamp back by a few pictures; a restarted clock by more than this."""
_GAP_SECONDS = 2.0
"""A picture may stand longer than it says (variable rate); beyond this something is missing."""


class Clock:
    """Seconds of one pass over a stream: zero at the first picture, never running back.

    A clock that jumps back (a restarted recorder) goes on from the last picture. A jump ahead is
    kept and counted in `gap`. Rules from tests on real files: timestamps may be missing, equal,
    or slightly out of order.
    """

    def __init__(self) -> None:
        self._zero: float | None = None
        self.last = 0.0
        """Time of the last picture in seconds."""
        self.end = 0.0
        """Time at which the last picture ends, in seconds."""
        self.gap = 0.0
        """Seconds jumped over since this was last set to 0."""

    def __call__(self, raw: float | None, period: float) -> float:
        """Time of the next picture in seconds, rounded to microseconds.

        Args:
            raw: its timestamp in the container's seconds, None if it has none.
            period: how long it is shown, in seconds.
        """
        if self._zero is None:
            self._zero = raw if raw is not None else 0.0
        seconds = self.end if raw is None else round(raw - self._zero, 6)
        if seconds < self.last - _JUMP_SECONDS:
            self._zero -= self.end - seconds
            seconds = self.end
        seconds = max(seconds, self.last)
        if seconds - self.end > _GAP_SECONDS:
            self.gap += seconds - self.end
        self.last = seconds
        self.end = round(max(self.end, seconds + period), 6)
        return seconds

    def pass_over(self, raw_end: float) -> None:
        """Count source time as present although its picture was not decoded.

        Args:
            raw_end: where that picture ends, in the container's seconds.
        """
        self.end = max(self.end, round(raw_end - (self._zero or 0.0), 6))

    def raw(self, seconds: float) -> float:
        """The container's timestamp in seconds for a time of the stream."""
        return seconds + (self._zero or 0.0)
