"""LongVU's first step: drop the frames that are like those around them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from streamvlm.types import Frame
from streamvlm.video.pictures import small_ycc

_WIDTH, _HEIGHT = 32, 18
"""Blocks of the small picture: noise averages out, a person does not."""
_FLAT = 4.0
"""Levels, of 255: a small picture that varies less than this is flat, up to noise."""


def _unit(frame: Frame) -> NDArray[np.float32]:
    """A frame as a unit vector, (H·W·C + 1,): a small picture without its mean, and a constant.

    The constant beside the pixels, the same in all, makes two flat pictures alike, whatever noise
    there is in them.
    """
    small = small_ycc(frame.image, _WIDTH, _HEIGHT)
    vector = np.append(small - small.mean((0, 1)), np.float32(_FLAT * math.sqrt(small.size)))
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


@dataclass(frozen=True)
class LongVU:
    """Drops frames that are like the mean of a window of frames (LongVU, arXiv 2410.17434).

    A frame is kept if its mean cosine similarity to the window, itself included, is below
    `threshold`. Two things differ from the paper. It compares DINOv2 features; here frames are
    small pictures without their mean in brightness and colour, so nothing has to be loaded, and
    evenly changing light is nothing new. And its windows stand still, so that a frame is also
    compared with later ones; a filter never looks ahead, so here the window is the frame itself and
    the `window` − 1 frames before it, kept or not. Instead of the middle frame of each window, the
    first frame is kept, and one whenever `window` − 1 in a row were dropped. The paper's cap of 400
    frames needs the end of the video and is left out.

    The threshold is the lowest multiple of 0.01 from 0.7 on at which each arrival in an empty room
    (1 fps), car on an empty road (2 fps) and cut (5 fps) that was marked by eye in three real clips
    has a frame that is kept; the paper's 0.83 misses the first arrival. A fifth of the room and an
    eighth of the road are dropped then. After a change frames are kept until the window has seen
    enough of the new.
    """

    threshold: float = 0.96
    """Mean cosine similarity below which a frame is new, 0 to 1 …"""
    window: int = 16
    """… to so many frames, itself included."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold <= 1:
            raise ValueError(f"threshold must lie between 0 and 1, found {self.threshold}")
        if self.window < 2:
            raise ValueError(f"window must be at least 2, found {self.window}")

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the frames worth keeping; the first one always is."""
        recent: deque[NDArray[np.float32]] = deque(maxlen=self.window)
        dropped = self.window - 1
        for frame in frames:
            unit = _unit(frame)
            recent.append(unit)
            similar = float(np.mean([unit @ other for other in recent]))
            if similar < self.threshold or dropped == self.window - 1:
                dropped = 0
                yield frame
            else:
                dropped += 1
