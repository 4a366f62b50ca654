"""Drop the frames of a still camera."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamvlm.types import Frame
from streamvlm.video.pictures import small_ycc

_MAX_NOISE = 3.0
"""Levels; what flickers more than this everywhere is movement of the camera, not noise."""
_NOISE_DOWN, _NOISE_UP = 0.3, 0.05
"""How fast the noise estimate follows; slowly up, so that a passing crowd is not taken for it."""


def _smooth(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean over 3×3 blocks of (H, W, C), edges repeated."""
    rows, columns, _ = blocks.shape
    padded = np.pad(blocks, ((1, 1), (1, 1), (0, 0)), mode="edge")
    down = padded[:rows] + padded[1 : rows + 1] + padded[2:]
    across = down[:, :columns] + down[:, 1 : columns + 1] + down[:, 2:]
    return np.asarray(across / 9, dtype=np.float32)


def _difference(small: NDArray[np.float32], before: NDArray[np.float32]) -> NDArray[np.float32]:
    """What changed between two pictures, apart from brightness as a whole.

    Args:
        small: (H, W, 3) blocks as `small_ycc` gives them.
        before: likewise.

    Returns:
        (H, W, 3) absolute differences in levels, smoothed.
    """
    luma, luma_before = small[..., 0], before[..., 0]
    raw = luma - luma_before
    off = np.abs(raw - np.median(raw))
    # The half of the picture that fits best shows how exposure changed: gain and offset.
    inlier = off <= np.median(off)
    x, y = luma_before[inlier], luma[inlier]
    spread = float(x.var())
    gain = float(((x - x.mean()) * (y - y.mean())).mean()) / spread if spread > 25 else 1.0
    gain = min(max(gain, 0.6), 1.6)
    expected = (before - (0, 128, 128)) * gain + (0, 128, 128)
    change = _smooth((small - expected).astype(np.float32))
    return np.abs(change - np.median(change, axis=(0, 1)))


@dataclass(frozen=True)
class Still:
    """Drops frames that show nothing new on a small picture, given the stream's own noise.

    Each frame is compared with the last one kept, so slow changes add up until they count, in
    brightness and in colour. The threshold follows the noise between neighbouring frames.
    Changes of brightness as a whole do not count.
    """

    levels: float = 8.0
    """A block changed if it differs by more than this, of 255 …"""
    noises: float = 6.0
    """… and by more than so many times the stream's own noise."""
    area: float = 0.003
    """Share of the picture that must have changed, 0 to 1."""
    max_gap_seconds: float = 60.0
    """After so long without a kept frame one is kept anyway."""

    def __post_init__(self) -> None:
        if not all(math.isfinite(v) and v > 0 for v in (self.levels, self.noises)):
            raise ValueError("levels and noises must be above 0")
        if not 0 < self.area < 1:
            raise ValueError(f"area must lie between 0 and 1, found {self.area}")
        if not self.max_gap_seconds > 0:
            raise ValueError(f"max_gap_seconds must be above 0, found {self.max_gap_seconds}")

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the frames worth keeping; the first one always is."""
        kept: NDArray[np.float32] | None = None
        before: NDArray[np.float32] | None = None
        kept_seconds, noise = 0.0, None
        for frame in frames:
            small = small_ycc(frame.image)
            if before is not None:
                found = 1.4826 * np.median(_difference(small, before), axis=(0, 1))
                found = np.minimum(found, _MAX_NOISE)
                noise = (
                    found
                    if noise is None
                    else noise + np.where(found < noise, _NOISE_DOWN, _NOISE_UP) * (found - noise)
                )
            is_due = frame.seconds - kept_seconds >= self.max_gap_seconds
            if kept is None or noise is None or is_due or self._is_new(small, kept, noise):
                kept, kept_seconds = small, frame.seconds
                yield frame
            before = small

    def _is_new(
        self, small: NDArray[np.float32], kept: NDArray[np.float32], noise: NDArray[np.float32]
    ) -> bool:
        threshold = np.maximum(self.levels, self.noises * noise)
        changed = (_difference(small, kept) > threshold).any(axis=2)
        return bool(changed.mean() > self.area)
