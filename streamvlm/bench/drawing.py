"""Pictures of a film of shapes, and real H.264 files of it with the truth beside.

A picture is a pure function of the plan and a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.world import COLOURS, HELD_OUT_TEXTURES, Film, Scene, Thing

_COMMENT = "streamvlm shapes world"


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
    canvas = _background(scene, seconds, size)
    grid = (np.arange(size, dtype=np.float32) + 0.5) / size
    for thing in scene.things:
        if not thing.is_seen(seconds):
            continue
        x, y = thing.centre(seconds)
        across, down = (grid - x) / thing.radius, (grid - y) / thing.radius
        columns = slice(*np.searchsorted(across, (-1.1, 1.1)))
        rows = slice(*np.searchsorted(down, (-1.1, 1.1)))
        edge = _signed_distance(thing.shape, across[None, columns], down[rows, None])
        # One pixel of soft edge, as a lens would give.
        cover = np.clip(0.5 - edge * thing.radius * size, 0, 1)[..., None]
        colour = np.array(COLOURS[thing.colour], np.float32)
        canvas[rows, columns] += cover * (colour - canvas[rows, columns])
    return np.clip(canvas, 0, 255).astype(np.uint8)


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


def _background(scene: Scene, seconds: float, size: int) -> NDArray[np.float32]:
    random = np.random.default_rng(scene.seed)
    base = random.uniform(60, 150) + random.uniform(-18, 18, 3)
    coarse = (
        int(random.integers(3, 9))
        if scene.seed < HELD_OUT_TEXTURES
        else int(random.integers(9, 14))
    )
    texture = random.normal(0, 14, (2 * coarse + 2, 2 * coarse + 2, 1))
    texture = base + texture + random.normal(0, 4, (2 * coarse + 2, 2 * coarse + 2, 3))
    shift = 0.03 * (seconds - scene.start) if scene.background == "panning" else 0.0
    across = ((np.arange(size) + 0.5) / size + shift) * coarse
    down = (np.arange(size) + 0.5) / size * coarse
    canvas = _bilinear(texture.astype(np.float32), down, across)
    if scene.background == "noisy":
        noise = np.random.default_rng((scene.seed, int(seconds * 1000)))
        canvas += 7 * noise.standard_normal((size, size, 1), np.float32)
    return canvas


def _bilinear(
    texture: NDArray[np.float32], down: NDArray[np.float64], across: NDArray[np.float64]
) -> NDArray[np.float32]:
    """(H, W, 3) values of a (h, w, 3) texture between its points."""
    row, column = np.floor(down).astype(int), np.floor(across).astype(int)
    f_row = (down - row).astype(np.float32)[:, None, None]
    f_column = (across - column).astype(np.float32)[None, :, None]
    upper, lower = texture[row], texture[row + 1]
    rows = upper + f_row * (lower - upper)
    left, right = rows[:, column], rows[:, column + 1]
    mixed: NDArray[np.float32] = left + f_column * (right - left)
    return mixed


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


def write_film(film: Film, path: Path, *, fps: int = 10, size: int = 384) -> Path:
    """Encode a film as H.264 and write its ground truth beside it.

    Args:
        film: the plan.
        path: the mp4 to write; the truth goes into the same name with `.json`.
        fps: pictures a second.
        size: height and width in pixels, even. At 384 the bytes are the same each time; at 192
            x264 was seen to vary them, from the very same pictures.

    Returns:
        The path of the mp4.
    """
    # One thread: x264 divides the work differently on other machines, and the bytes with it.
    options = {"preset": "veryfast", "crf": "23", "threads": "1"}
    # Without the clock in its header, the file is the same whenever it is made.
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        container.metadata["comment"] = _COMMENT
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.width = stream.height = size
        stream.pix_fmt = "yuv420p"
        for image in pictures(film, fps, size):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    path.with_suffix(".json").write_text(json.dumps(asdict(film), indent=1) + "\n")
    return path
