"""A pool of films, encoded and decoded as H.264, with what each of the 36 tokens should show."""

from __future__ import annotations

import io
from dataclasses import dataclass
from multiprocessing import get_context

import av
import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.bench.world import COLOURS, NUMBERS, SHAPES, Film, Split
from streamvlm.bench.world.drawing import picture, thing_cover
from streamvlm.bench.world.planning import plan_film
from streamvlm.pixels import resize

SIZE, GRID = 96, 6
FORMS = (*SHAPES, *NUMBERS)
"""What a cell may show the shape of."""
BACKGROUND, UNSURE = -1, -2
SCENES_PER_FILM = 3
_RENDERED = 192


@dataclass(frozen=True, slots=True)
class Pool:
    """Films as the model sees them, one frame a second."""

    films: tuple[Film, ...]
    first: NDArray[np.int64]
    """(films,) where each film's frames start in the arrays below."""
    images: NDArray[np.uint8]
    """(F, 96, 96, 3) uint8, RGB."""
    colour: NDArray[np.int8]
    """(F, 36) index into `COLOURS`, `BACKGROUND` or `UNSURE`, for each cell of the 6 × 6 grid."""
    shape: NDArray[np.int8]
    """(F, 36) index into `FORMS`, likewise."""
    thing: NDArray[np.int8]
    """(F, 36) index into the things of the film, or −1."""


def make_pool(seeds: range, split: Split = "training", workers: int = 2) -> Pool:
    """Render, encode, decode and label one film per seed.

    Args:
        seeds: of the films.
        split: where they come from.
        workers: processes.
    """
    films = tuple(plan_film(seed, SCENES_PER_FILM, split=split) for seed in seeds)
    with get_context("spawn").Pool(workers) as processes:
        made = list(processes.imap(_one, films, chunksize=16))
    images = np.concatenate([pictures for pictures, _ in made])
    colour, shape, thing = np.concatenate([labels for _, labels in made], axis=1)
    lengths = [film.seconds for film in films]
    return Pool(films, np.cumsum([0, *lengths[:-1]]), images, colour, shape, thing)


def _one(film: Film) -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """(seconds, 96, 96, 3) pictures and (3, seconds, 36) labels of a film."""
    torch.set_num_threads(1)
    crf = np.random.default_rng((film.seed, 1)).integers(18, 31)
    images = [resize(image, (SIZE, SIZE), "bicubic") for image in _through_h264(film, int(crf))]
    labels = [cell_labels(film, second) for second in range(film.seconds)]
    return torch.stack(images).permute(0, 2, 3, 1).numpy(), np.stack(labels, axis=1)


def _through_h264(film: Film, crf: int) -> list[NDArray[np.uint8]]:
    """The film's pictures, one a second, after encoding and decoding."""
    file = io.BytesIO()
    options = {"preset": "veryfast", "crf": str(crf), "threads": "1"}
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=1, options=options)
        stream.width = stream.height = _RENDERED
        stream.pix_fmt = "yuv420p"
        for second in range(film.seconds):
            image = picture(film, second, _RENDERED)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as reader:
        frames = reader.decode(video=0)
        return [np.asarray(frame.to_ndarray(format="rgb24"), np.uint8) for frame in frames]


def cell_labels(film: Film, second: int) -> NDArray[np.int8]:
    """(3, 36) colour, shape and thing of what covers each cell most at a second of a film."""
    cells = GRID * GRID
    most = np.zeros(cells)
    labels = np.full((3, cells), BACKGROUND, np.int8)
    for thing in film.scene_at(second).drawn:
        if not thing.is_seen(second):
            continue
        cover = thing_cover(thing, second, 48).reshape(GRID, 8, GRID, 8).mean((1, 3)).ravel()
        more = cover > np.maximum(most, 0.05)
        enough = cover > (0.1 if thing.shape in NUMBERS else 0.2)
        named = (
            list(COLOURS).index(thing.colour_at(second)),
            FORMS.index(thing.shape),
            film.things.index(thing) if thing in film.things else BACKGROUND,
        )
        for label, name in zip(labels, named, strict=True):
            label[more] = np.where(enough[more], name, UNSURE)
        most = np.maximum(most, cover)
    labels[2] = np.maximum(labels[2], BACKGROUND)
    return labels
