"""How often to look at a stream, and how large."""

from __future__ import annotations

import math
from dataclasses import dataclass

from streamvlm.errors import BadOption


@dataclass(frozen=True, slots=True)
class Sampling:
    """Which pictures of a source are handed on, and how large.

    Raises:
        BadOption: when made, if a value is out of range.
    """

    fps: float = 1.0
    """Pictures per second of stream time; at each step the first picture at or after it."""
    max_frames: int | None = None
    """At most so many pictures of the whole source: the step grows to duration / max_frames."""
    max_side: int = 448
    """Longest side of the frames handed on, in pixels; aspect kept, never enlarged."""
    allow_local: bool = False
    """Whether http(s) URLs may lead to private, loopback or link-local addresses."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.fps) and self.fps > 0):
            raise BadOption(f"fps must be a number above 0, found {self.fps}; 1 is usual")
        if self.max_frames is not None and self.max_frames < 1:
            raise BadOption(
                f"max_frames must be at least 1, found {self.max_frames}; leave it out for no limit"
            )
        if self.max_side < 1:
            raise BadOption(f"max_side must be at least 1 pixel, found {self.max_side}")

    def step_seconds(self, duration: float | None) -> float:
        """Seconds between two samples of a source.

        Args:
            duration: length of the source in seconds, None if unknown.

        Returns:
            1 / fps, or more where `max_frames` asks for it.
        """
        step = 1.0 / self.fps
        if self.max_frames is None or duration is None:
            return step
        return max(step, duration / self.max_frames)
