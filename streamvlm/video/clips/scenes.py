"""Clips that end where the scene changes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamvlm.types import Clip, Frame
from streamvlm.video.pictures import small_ycc

_DEFAULT_STEP = 1.0
_BINS = 16


def _histogram(small: NDArray[np.float32]) -> NDArray[np.float64]:
    """(4096,) shares of the blocks by luma and colour, from (H, W, 3) blocks."""
    luma, blue, red = (small // (256 // _BINS)).astype(np.int64).reshape(-1, 3).T
    counts = np.bincount((luma * _BINS + blue) * _BINS + red, minlength=_BINS**3)
    return counts / len(luma)


def _change(small: NDArray[np.float32], before: NDArray[np.float32]) -> float:
    """How far two pictures, as (H, W, 3) blocks, are from one scene: 0 alike, 1 a sure cut.

    Both the colours that occur and the brightness in place must differ: motion leaves the
    first, a change of exposure alone mostly the second.
    """
    colours = 0.5 * float(np.abs(_histogram(small) - _histogram(before)).sum())
    brightness = float(np.abs(small[..., 0] - before[..., 0]).mean()) / 64
    return min(colours, brightness)


@dataclass(frozen=True)
class Scenes:
    """Cuts where colours and brightness change at once (after Zhang et al. 1993, histograms).

    A clip is at least `min_seconds` long unless the stream ends, and at most `max_seconds`;
    stretches without a frame make no clip.
    """

    threshold: float = 0.38
    """Change that counts as a cut, 0 to 1; bikes.mp4 has its weakest cut at 0.40."""
    min_seconds: float = 2.0
    """Cuts that come sooner after the last one are ignored."""
    max_seconds: float = 16.0
    """Longest clip."""
    max_frames: int = 64
    """Most frames in a clip."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must be above 0 and at most 1, found {self.threshold}")
        if not (math.isfinite(self.max_seconds) and 0 <= self.min_seconds <= self.max_seconds):
            raise ValueError(
                "min_seconds must be at least 0 and at most max_seconds, "
                f"found {self.min_seconds} and {self.max_seconds}"
            )
        if self.max_frames < 1 or self.max_seconds <= 0:
            raise ValueError("max_frames must be at least 1 and max_seconds above 0")

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Clip]:
        """Yield each clip as soon as the frame after it, or the end, is seen."""
        held: list[Frame] = []
        start, step = 0.0, math.inf
        before: NDArray[np.float32] | None = None
        for frame in frames:
            small = small_ycc(frame.image)
            if not held or before is None:
                start = frame.seconds
            elif (elapsed := frame.seconds - held[-1].seconds) > 0:
                step = min(step, elapsed)
                is_cut = (
                    frame.seconds - start >= self.min_seconds
                    and _change(small, before) >= self.threshold
                )
                is_long = frame.seconds - start >= self.max_seconds
                if is_cut or is_long or len(held) >= self.max_frames:
                    border = min(frame.seconds, start + self.max_seconds)
                    yield Clip(held[0].stream, start, border, tuple(held))
                    held, start = [], frame.seconds
            held.append(frame)
            before = small
        if held:
            last = held[-1].seconds + (step if step < math.inf else _DEFAULT_STEP)
            yield Clip(held[0].stream, start, min(last, start + self.max_seconds), tuple(held))
