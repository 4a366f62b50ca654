"""Pictures of a film of shapes, and real H.264 files of it with the truth beside.

A picture is a pure function of the plan and a time. What stays the same from one picture to the
next is computed once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av
import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.world import COLOURS, NUMBERS, Film, Texture, Thing
from streamvlm.bench.world.backgrounds import background, still_background
from streamvlm.bench.world.strip import stamp
from streamvlm.errors import BadOption

if TYPE_CHECKING:
    from streamvlm.bench.world.needles import Needle

_COMMENT = "streamvlm shapes world"


class _Look(NamedTuple):
    """How a thing is seen at a moment."""

    shape: str
    radius: float
    x: float
    y: float
    colour: str


def picture(film: Film, seconds: float, size: int) -> NDArray[np.uint8]:
    """What is seen at a time.

    Args:
        film: the plan.
        seconds: the time, within the film.
        size: height and width in pixels.

    Returns:
        (size, size, 3) uint8, RGB.
    """
    scene = film.scene_at(seconds)
    looks = tuple(
        _Look(thing.shape, thing.radius, *thing.centre(seconds), thing.colour_at(seconds))
        for thing in scene.drawn
        if thing.is_seen(seconds)
    )
    if scene.background == "still":
        return _still_picture(scene.texture, scene.seed, looks, size).copy()
    return _drawn(background(scene, seconds, size), looks)


@lru_cache(maxsize=2)
def _still_picture(
    texture: Texture, seed: int, looks: tuple[_Look, ...], size: int
) -> NDArray[np.uint8]:
    """A picture on a still background, kept for as long as nothing in it moves."""
    return _drawn(still_background(texture, seed, size).copy(), looks)


def _drawn(canvas: NDArray[np.float32], looks: tuple[_Look, ...]) -> NDArray[np.uint8]:
    """Draw things onto a background, in place, and give the finished picture."""
    for look in looks:
        rows, columns, cover = _cover(look.shape, look.radius, look.x, look.y, len(canvas))
        colour = np.array(COLOURS[look.colour], np.float32)
        canvas[rows, columns] += cover * (colour - canvas[rows, columns])
    return np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)


@lru_cache(maxsize=16)
def _cover(
    shape: str, radius: float, x: float, y: float, size: int
) -> tuple[slice, slice, NDArray[np.floating]]:
    """Which rows and columns a thing is in, and how much of each of their pixels it covers."""
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    across, down = (grid - x) / radius, (grid - y) / radius
    columns = slice(*np.searchsorted(across, (-1.1, 1.1)))
    rows = slice(*np.searchsorted(down, (-1.1, 1.1)))
    edge = _signed_distance(shape, across[None, columns], down[rows, None])
    # One pixel of soft edge, as a lens would give.
    return rows, columns, np.clip(0.5 - edge * radius * size, 0, 1)[..., None]


def thing_cover(thing: Thing, seconds: float, size: int) -> NDArray[np.float32]:
    """How much of each pixel a thing covers, 0 to 1.

    Args:
        thing: what is looked at; it need not be in the picture at that time.
        seconds: the time.
        size: height and width in pixels.

    Returns:
        (size, size) float32.
    """
    x, y = thing.centre(seconds)
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    edge = _signed_distance(
        thing.shape, (grid - x)[None, :] / thing.radius, (grid - y)[:, None] / thing.radius
    )
    cover: NDArray[np.floating] = np.clip(0.5 - edge * thing.radius * size, 0, 1)
    return cover


def _signed_distance(
    shape: str, x: NDArray[np.floating], y: NDArray[np.floating]
) -> NDArray[np.floating]:
    """About how far each place is outside a shape of radius 1; negative inside."""
    x_abs, y_abs = np.abs(x), np.abs(y)
    distance: NDArray[np.floating]
    if shape == "circle":
        distance = np.hypot(x, y) - 0.95
    elif shape == "square":
        distance = np.maximum(x_abs, y_abs) - 0.82
    elif shape == "triangle":
        distance = np.maximum(0.894 * x_abs - 0.447 * y - 0.4, y - 0.8)
    elif shape == "cross":
        distance = np.minimum(
            np.maximum(x_abs - 0.95, y_abs - 0.3), np.maximum(x_abs - 0.3, y_abs - 0.95)
        )
    elif shape == "ring":
        distance = np.abs(np.hypot(x, y) - 0.7) - 0.25
    elif shape in NUMBERS:
        bars = [_BARS[name] for name in _LIT[NUMBERS.index(shape)]]
        distance = np.min(
            [
                np.maximum(np.abs(x - at_x) - wide, np.abs(y - at_y) - high)
                for at_x, at_y, wide, high in bars
            ],
            axis=0,
        )
    else:
        angle = np.arctan2(x, -y)
        # Distance to the nearest of the star's ten edges: fold all points into one.
        fold = np.abs((angle + np.pi / 5) % (2 * np.pi / 5) - np.pi / 5)
        radius = np.hypot(x, y)
        along, beside = radius * np.cos(fold), radius * np.sin(fold)
        tip, notch = (1.0, 0.0), (0.42 * np.cos(np.pi / 5), 0.42 * np.sin(np.pi / 5))
        normal = np.array([notch[1] - tip[1], tip[0] - notch[0]])
        normal = normal / np.hypot(*normal)
        distance = (along - tip[0]) * normal[0] + beside * normal[1]
    return distance


_BARS = {
    "a": (0.0, -0.82, 0.55, 0.14),
    "b": (0.45, -0.41, 0.14, 0.5),
    "c": (0.45, 0.41, 0.14, 0.5),
    "d": (0.0, 0.82, 0.55, 0.14),
    "e": (-0.45, 0.41, 0.14, 0.5),
    "f": (-0.45, -0.41, 0.14, 0.5),
    "g": (0.0, 0.0, 0.55, 0.14),
}
"""The bars of a seven-segment digit: centre x and y, half the width and half the height."""
_LIT = ("abcdef", "bc", "abdeg", "abcdg", "bcfg", "acdfg", "acdefg", "abc", "abcdefg", "abcdfg")
"""Which of them each digit has."""


def pictures(film: Film, fps: int, size: int) -> Iterator[NDArray[np.uint8]]:
    """Every picture of a film, in order.

    Args:
        film: the plan.
        fps: pictures a second.
        size: height and width in pixels.
    """
    first = film.scenes[0].start
    for index in range((film.seconds - first) * fps):
        yield picture(film, first + index / fps, size)


def write_film(
    film: Film,
    path: Path | str,
    *,
    fps: int = 10,
    size: int = 384,
    crf: int = 23,
    strip: bool = False,
    needles: Sequence[Needle] = (),
) -> Path:
    """Encode a film as H.264 and write its ground truth beside it.

    Args:
        film: the plan.
        path: the file to write, `.mp4` or `.mkv`, in a folder that is there; the truth goes into
            the same name with `.json`.
        fps: pictures a second.
        size: height and width in pixels, even. At 384 the bytes are the same each time; at 192
            x264 was seen to vary them, from the very same pictures.
        crf: H.264 quality, 0 the best to 51.
        strip: draw the number of each picture and its time into its lowest rows; see `strip.py`.
        needles: what is planted in it; they are written into the truth, with their questions.

    Returns:
        The path of the film.

    Raises:
        BadOption: a number is out of range, or the file cannot be written there.
    """
    path = Path(path)
    _check(path, fps, size, crf)
    # One thread: x264 divides the work differently on other machines, and the bytes with it.
    options = {"preset": "veryfast", "crf": str(crf), "threads": "1"}
    # Without the clock in its header, the file is the same whenever it is made.
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        container.metadata["comment"] = _COMMENT
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for index, image in enumerate(pictures(film, fps, size)):
            if strip:
                stamp(image, index, round(1000 * index / fps))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    truth = asdict(film)
    if needles:
        truth["needles"] = [asdict(needle) for needle in needles]
    path.with_suffix(".json").write_text(json.dumps(truth, indent=1) + "\n")
    return path


def _check(path: Path, fps: int, size: int, crf: int) -> None:
    if path.suffix not in (".mp4", ".mkv") or not path.parent.is_dir():
        raise BadOption(f"{path}: expected the name of an .mp4 or .mkv in a folder that is there")
    if fps < 1 or size < 2 or size % 2 or not 0 <= crf <= 51:
        raise BadOption(
            f"a film at {fps} fps, {size} pixels, CRF {crf}; expected at least 1 fps, an even "
            "number of pixels, and a CRF of 0 to 51"
        )
