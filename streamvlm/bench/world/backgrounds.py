"""Backgrounds of the world of shapes: four families of textures, and what they do in time.

A background is a pure function of its family, its seed, its size and a time. What does not depend
on the time is computed once per scene.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.world import Scene, Texture

_Painter = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""(W,) places from left to right → (H, W, 3) the colours there, or what a texture adds to them."""
_PAN = 0.03
"""Units of the picture a second."""
_KEPT = 4
"""Scenes: films are drawn from begin to end, or a few of them side by side."""


def background(scene: Scene, seconds: float, size: int) -> NDArray[np.float32]:
    """What is behind the things at a time.

    Args:
        scene: the plan.
        seconds: the time, within the scene.
        size: height and width in pixels.

    Returns:
        (size, size, 3) float32, RGB, about 0 to 255; the caller's own.
    """
    if scene.background == "panning":
        places = _places(size) + _PAN * (seconds - scene.start)
        return _painter(scene.texture, scene.seed, size)(places)
    canvas = still_background(scene.texture, scene.seed, size).copy()
    random = np.random.default_rng((scene.seed, int(seconds * 1000)))
    if scene.background == "noisy":
        noise = 7 * random.standard_normal((size, size), np.float32)
        # NumPy is several times slower when it repeats along an axis of three.
        for channel in range(3):
            canvas[..., channel] += noise
    if scene.background == "flickering":
        canvas *= random.uniform(0.85, 1.15)
    return canvas


@lru_cache(maxsize=_KEPT)
def still_background(texture: Texture, seed: int, size: int) -> NDArray[np.float32]:
    """A background as it is when it does nothing.

    Args:
        texture: its family.
        seed: of its details.
        size: height and width in pixels.

    Returns:
        (size, size, 3) float32, RGB; shared, so it cannot be written to.
    """
    canvas = _painter(texture, seed, size)(_places(size))
    canvas.flags.writeable = False
    return canvas


@lru_cache(maxsize=_KEPT)
def _painter(texture: Texture, seed: int, size: int) -> _Painter:
    """All of a background that does not depend on the time."""
    random = np.random.default_rng(seed)
    colour = (random.uniform(60, 150) + random.uniform(-18, 18, 3)).astype(np.float32)
    colours = np.tile(colour, (size, 1))
    relief = _TEXTURES[texture](random, _places(size))
    return lambda x: relief(x) + colours


def _places(size: int) -> NDArray[np.float32]:
    """(size,) float32 centres of the pixels, in units of the picture."""
    return (np.arange(size, dtype=np.float32) + np.float32(0.5)) / np.float32(size)


def _clouds(random: np.random.Generator, y: NDArray[np.float32]) -> _Painter:
    return _noise(random, y, int(random.integers(3, 9)))


def _grain(random: np.random.Generator, y: NDArray[np.float32]) -> _Painter:
    return _noise(random, y, int(random.integers(12, 18)))


def _noise(random: np.random.Generator, y: NDArray[np.float32], coarse: int) -> _Painter:
    """Random values, so many in the height of the picture, and bilinear between them."""
    points = (2 * coarse + 2, 2 * coarse + 2)
    drawn = random.normal(0, 14, (*points, 1)) + random.normal(0, 4, (*points, 3))
    values = drawn.astype(np.float32).reshape(points[0], -1)
    row, part = _split(y * coarse)
    lines = _mixed(values[row], values[row + 1], part[:, None])

    def relief(x: NDArray[np.float32]) -> NDArray[np.float32]:
        column, part = _split(x * coarse)
        left = (3 * column[:, None] + np.arange(3)).ravel()
        mixed = _mixed(lines.take(left, 1), lines.take(left + 3, 1), part.repeat(3))
        return mixed.reshape(len(y), len(x), 3)

    return relief


def _split(places: NDArray[np.float32]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Places as the number of the point before and the part of the way to the next."""
    before = np.floor(places).astype(np.intp)
    return before, (places - before).astype(np.float32)


def _mixed(
    one: NDArray[np.float32], other: NDArray[np.float32], part: NDArray[np.float32]
) -> NDArray[np.float32]:
    return one + part * (other - one)


def _stripes(random: np.random.Generator, y: NDArray[np.float32]) -> _Painter:
    angle, rate = random.uniform(0, np.pi), random.uniform(3, 8)
    strength = random.normal(0, 14, 3)
    across, down = np.cos(angle), np.sin(angle) * y[:, None]

    def relief(x: NDArray[np.float32]) -> NDArray[np.float32]:
        wave = np.sin(2 * np.pi * rate * (across * x[None, :] + down))
        canvas = np.empty((*wave.shape, 3), np.float32)
        for channel in range(3):
            canvas[..., channel] = wave * strength[channel]
        return canvas

    return relief


def _checks(random: np.random.Generator, y: NDArray[np.float32]) -> _Painter:
    rate = random.uniform(3, 8)
    strength = random.normal(0, 24, 3)
    # One field in so many is odd; it is as much brighter as an even one is darker.
    colours = np.array([-0.5 * strength, 0.5 * strength]).astype(np.float32)
    down = np.floor(y * rate).astype(int)[:, None]
    return lambda x: colours.take((np.floor(x * rate).astype(int)[None, :] + down) % 2, 0)


_TEXTURES: dict[Texture, Callable[[np.random.Generator, NDArray[np.float32]], _Painter]] = {
    "clouds": _clouds,
    "stripes": _stripes,
    "checks": _checks,
    "grain": _grain,
}
"""Family → (random, (H,) places from top to bottom) → the texture."""
