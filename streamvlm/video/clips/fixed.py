"""Clips on a fixed time grid."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from streamvlm.types import Clip, Frame

_DEFAULT_STEP = 1.0


@dataclass(frozen=True)
class Fixed:
    """Cuts a stream every so many seconds, at the same times whatever is seen.

    Clip k holds the frames in [k·seconds, (k+1)·seconds); stretches without a frame make no clip.
    The last clip ends when its last frame does, which is taken to stand for the shortest step
    between two frames so far.
    """

    seconds: float = 8.0
    """Length of a clip in seconds."""
    max_frames: int = 64
    """A clip with more frames than this is cut into several."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds > 0):
            raise ValueError(f"seconds must be above 0, found {self.seconds}")
        if self.max_frames < 1:
            raise ValueError(f"max_frames must be at least 1, found {self.max_frames}")

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Clip]:
        """Yield each clip as soon as a frame beyond it, or the end, is seen."""
        held: list[Frame] = []
        start, end, step = 0.0, 0.0, math.inf
        for frame in frames:
            if held:
                if (elapsed := frame.seconds - held[-1].seconds) > 0:
                    step = min(step, elapsed)
                is_full = len(held) >= self.max_frames and frame.seconds > held[-1].seconds
                if frame.seconds >= end or is_full:
                    border = min(end, frame.seconds)
                    yield Clip(held[0].stream, start, border, tuple(held))
                    held, start = [], border
            if frame.seconds >= end:
                cell = math.floor(frame.seconds / self.seconds)
                # Dividing may round down at a border: the frame belongs to the next clip then.
                cell += frame.seconds >= (cell + 1) * self.seconds
                start, end = cell * self.seconds, (cell + 1) * self.seconds
            held.append(frame)
        if held:
            last = held[-1].seconds + (step if step < math.inf else _DEFAULT_STEP)
            yield Clip(held[0].stream, start, min(end, last), tuple(held))
