"""Frames as SmolVLM's processor makes them: resized twice with the Lanczos filter of PIL.

First to their own shape with a given longer side, then to a square. PIL, because the checkpoints
were trained with it: torch has a Lanczos filter since 2.12 or so that differs by up to two grey
levels, and what stock transformers does depends on torchvision's version and on the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from streamvlm import pixels
from streamvlm.errors import ModelError
from streamvlm.pixels import Preprocessing

_LANCZOS = 1
"""PIL's number, which the configuration files use."""
_LONGEST = 4096
"""No side becomes longer than this before the square."""


@dataclass(frozen=True, slots=True)
class Twice(Preprocessing):
    """How SmolVLM wants its pictures."""

    # Neither is as in the base: the filter is not one of torch's, and a size is always given.
    size: tuple[int, int]
    resample: Literal["lanczos"]  # type: ignore[assignment]
    edge: int = _LONGEST
    """The longer side after the first resize, in pixels."""


def read_twice(folder: Path) -> Twice:
    """Read how a SmolVLM checkpoint wants the frames of a video.

    Args:
        folder: the checkpoint's folder.

    Raises:
        ModelError: there is no such file, or it does not say all that is needed.
    """
    source, found = pixels.read_settings(folder, "video")
    # Older files name a size for video beside the one for images; transformers prefers the latter.
    sampling = found.get("video_sampling") or {}
    edge = (found.get("size") or sampling.get("video_size") or {}).get("longest_edge")
    side = (found.get("max_image_size") or {}).get("longest_edge")
    colours = [tuple(found.get(name) or ()) for name in ("image_mean", "image_std")]
    if not edge or not side or {len(colour) for colour in colours} != {3}:
        raise ModelError(
            f'{source} must give "longest_edge" in "size" and in "max_image_size", and three '
            'numbers each in "image_mean" and "image_std"; take the file from the same checkpoint'
        )
    if found.get("do_center_crop") or found.get("resample", _LANCZOS) != _LANCZOS:
        raise ModelError(
            f"{source} asks for a centre crop or for resample {found.get('resample')}, but SmolVLM "
            f"resizes with Lanczos ({_LANCZOS}) and does not crop; choose other weights"
        )
    return Twice(
        size=(side, side),
        mean=colours[0],
        std=colours[1],
        resample="lanczos",
        scale=found.get("rescale_factor", 1 / 255),
        edge=min(edge, _LONGEST),
    )


def twice_resized(
    images: Sequence[NDArray[np.uint8]], how: Twice, batch: int
) -> Iterator[tuple[torch.Tensor, int]]:
    """Preprocess frames in batches of one fixed size, as `pixel_batches` does.

    Args:
        images: T ≥ 1 pictures, (H, W, 3) uint8 each; sizes may differ.
        how: the checkpoint's wishes.
        batch: B, frames a batch.

    Yields:
        (B, 3, side, side) float32 on the CPU, and how many of the B are real.
    """
    for first in range(0, len(images), batch):
        part = [_resize(image, how) for image in images[first : first + batch]]
        filled = part + part[-1:] * (batch - len(part))
        yield pixels.normalise(torch.stack(filled), how), len(part)


def _resize(image: NDArray[np.uint8], how: Twice) -> torch.Tensor:
    """(H, W, 3) → (3, side, side) uint8."""
    height, width = image.shape[:2]
    # In the order of operations of the stock processor, which rounds at each.
    if width >= height:
        wide, high = how.edge, _even(how.edge / (width / height))
    else:
        wide, high = _even(how.edge * (width / height)), how.edge
    picture = Image.fromarray(np.ascontiguousarray(image))
    picture = picture.resize((wide, high), Image.Resampling.LANCZOS)
    picture = picture.resize(how.size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def _even(side: float) -> int:
    """Down to a whole number and then up to an even one, at least 1."""
    return max(int(side) + int(side) % 2, 1)
