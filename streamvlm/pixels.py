"""Frames become the pixel tensor a vision tower wants, exactly as its checkpoint says.

Plain torch, and on the CPU whatever the model's device, so that the same frame gives the same
numbers everywhere. The formula is that of Hugging Face's image and video processors on torchvision
(antialiased resize of uint8, then one fused normalisation), without needing torchvision.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.errors import ModelError

# PIL's numbers, which the configuration files use. Lanczos, which a few files name, is not among
# them: torch's differs from PIL's by up to two grey levels. Those checkpoints are refused rather
# than resized in another way; SmolVLM, which needs it, resizes with PIL.
_RESAMPLE: Mapping[int, Literal["bilinear", "bicubic"]] = {2: "bilinear", 3: "bicubic"}
_SECTIONS = {"image": "image_processor", "video": "video_processor"}
_FILES = {
    "image": ("preprocessor_config.json",),
    "video": ("video_preprocessor_config.json", "preprocessor_config.json"),
}


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How a checkpoint wants its pictures."""

    size: tuple[int, int] | None
    """(height, width) in pixels of what the tower sees; None if it depends on the picture."""
    mean: tuple[float, ...]
    """Three numbers, R G B, on the scale after multiplying with `scale`."""
    std: tuple[float, ...]
    """Three numbers, R G B."""
    resample: Literal["bilinear", "bicubic"]
    """How to resize."""
    scale: float
    """What a uint8 value is multiplied with before normalising; 1/255 nearly always."""
    patches: int | None = None
    """At most this many patches a picture, where the checkpoint limits those instead of a size."""


@dataclass(frozen=True, slots=True)
class PixelBudget:
    """A size for every picture: its own shape, whole cells, and an area within bounds.

    The rule of the Qwen-VL line's processors for one picture (Wang et al. 2024, arXiv:2409.12191).
    It looks at one picture alone: newer processors share a budget among the frames of a video,
    which makes what a frame becomes depend on how many come with it.
    """

    cell: int
    """Both sides become multiples of this many pixels."""
    least: int
    """Smaller pictures are enlarged to at least this many pixels."""
    most: int
    """Larger pictures are reduced to at most this many pixels."""

    def __post_init__(self) -> None:
        if not self.cell**2 <= self.least <= self.most:
            raise ValueError(
                f"min_pixels and max_pixels must rise from {self.cell**2} (one token), found "
                f"{self.least} and {self.most}"
            )

    def size(self, height: int, width: int) -> tuple[int, int]:
        """What a picture is resized to.

        Args:
            height: in pixels.
            width: in pixels.

        Returns:
            (height, width) in pixels; a very long picture may exceed the bounds, since no side is
            shorter than a cell.
        """
        sides = (height, width)
        rounded = [round(side / self.cell) * self.cell for side in sides]
        area = rounded[0] * rounded[1]
        if area > self.most:
            shrink = math.sqrt(height * width / self.most)
            rounded = [
                max(self.cell, math.floor(side / shrink / self.cell) * self.cell) for side in sides
            ]
        elif area < self.least:
            grow = math.sqrt(self.least / (height * width))
            rounded = [math.ceil(side * grow / self.cell) * self.cell for side in sides]
        return rounded[0], rounded[1]


def read_preprocessing(
    folder: Path, kind: Literal["image", "video"], *, sized: bool = True
) -> Preprocessing:
    """Read how a checkpoint wants its pictures.

    Args:
        folder: the checkpoint's folder. `processor_config.json` wins over the older
            `video_preprocessor_config.json` and `preprocessor_config.json`, as in transformers.
        kind: which of the two a model was trained with; `video` falls back on the image's file.
        sized: False if a `PixelBudget` will decide the size, whatever the file says.

    Raises:
        ModelError: there is no such file, or it asks for something that is not supported.
    """
    source, found = read_settings(folder, kind)
    size, code = found.get("size"), found.get("resample", 3)
    if found.get("do_center_crop") or code not in _RESAMPLE:
        asked = "a centre crop" if found.get("do_center_crop") else f"resample {code}"
        raise ModelError(
            f"{source} asks for {asked}, which is not supported (a plain bilinear or bicubic "
            "resize is); choose other weights"
        )
    patches = found.get("max_num_patches")
    if not sized:
        size = patches = None
    elif patches is None and not (isinstance(size, dict) and {"height", "width"} <= size.keys()):
        raise ModelError(f'{source} gives no "size" with height and width; choose other weights')
    for name in ("image_mean", "image_std"):
        if len(found.get(name) or ()) != 3:
            raise ModelError(f'{source} gives no "{name}" of three numbers; choose other weights')
    return Preprocessing(
        size=None if patches is not None or size is None else (size["height"], size["width"]),
        mean=tuple(found["image_mean"]),
        std=tuple(found["image_std"]),
        resample=_RESAMPLE[code],
        scale=found.get("rescale_factor", 1 / 255),
        patches=patches,
    )


def read_settings(folder: Path, kind: str) -> tuple[Path, dict[str, Any]]:
    """Find what a checkpoint says about its pictures, as it is written there.

    Args:
        folder: the checkpoint's folder.
        kind: `image` or `video`.

    Returns:
        The file, and its settings for that kind.

    Raises:
        ModelError: there is no such file, or it is not JSON.
    """
    nested = folder / "processor_config.json"
    candidates = [(nested, _SECTIONS[kind]), (nested, "image_processor")] if nested.exists() else []
    for path, section in [*candidates, *((folder / name, "") for name in _FILES[kind])]:
        if not path.exists():
            continue
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ModelError(f"{path} is not JSON ({error}); fetch the file again") from error
        if found := settings.get(section) if section else settings:
            return path, found
    raise ModelError(
        f"{folder} has no {_FILES[kind][0]}, so it is unknown how its pictures are resized and "
        "normalised; add the file from the same checkpoint"
    )


def resize(
    image: NDArray[np.uint8], size: tuple[int, int], resample: Literal["bilinear", "bicubic"]
) -> torch.Tensor:
    """Resize one picture with antialiasing.

    Args:
        image: (H, W, 3) uint8, RGB.
        size: (height, width) of the result in pixels; the aspect ratio is not kept.
        resample: the interpolation.

    Returns:
        (3, height, width) uint8, on the CPU.
    """
    # torch takes neither read-only nor flipped arrays, and frames may be both.
    picture = torch.from_numpy(np.require(image, requirements=["C", "W"]))
    resized = torch.nn.functional.interpolate(
        picture.permute(2, 0, 1)[None], size=size, mode=resample, antialias=True
    )
    return resized[0].contiguous()


def normalise(pictures: torch.Tensor, how: Preprocessing) -> torch.Tensor:
    """Scale and normalise in one go, in the order of operations of Hugging Face's processors.

    Args:
        pictures: (…, 3, H, W) uint8.
        how: the checkpoint's wishes.

    Returns:
        (…, 3, H, W) float32.
    """
    mean = torch.tensor(how.mean) * (1.0 / how.scale)
    std = torch.tensor(how.std) * (1.0 / how.scale)
    return (pictures.float() - mean[:, None, None]) / std[:, None, None]


def patchify(pictures: torch.Tensor, patch: int, merge: int, step: int) -> torch.Tensor:
    """Cut pictures into the patches that the towers of the Qwen-VL line take, in their order.

    Args:
        pictures: (F, 3, H, W); F a multiple of `step`, H and W of `patch · merge`.
        patch: side of a patch in pixels.
        merge: patches along each side of what becomes one token.
        step: frames that become one time step.

    Returns:
        (P, 3 · step · patch²): by step, then token in reading order, then its patches in reading
        order; each with its values by colour, frame, row and column.
    """
    frames, colours, height, width = pictures.shape
    side = patch * merge
    cut = pictures.reshape(
        frames // step, step, colours, height // side, merge, patch, width // side, merge, patch
    )
    return cut.permute(0, 3, 6, 4, 7, 2, 1, 5, 8).reshape(-1, colours * step * patch * patch)


def pixel_batches(
    images: Sequence[NDArray[np.uint8]],
    how: Preprocessing,
    batch: int,
    size: tuple[int, int] | None = None,
) -> Iterator[tuple[torch.Tensor, int]]:
    """Preprocess frames in batches of one fixed size.

    Kernels may round differently for another batch size, so the last batch is filled up with its
    last frame: what a frame becomes does not depend on how many come with it.

    Args:
        images: T ≥ 1 pictures, (H, W, 3) uint8 each; sizes may differ.
        how: the checkpoint's wishes.
        batch: B, frames a batch.
        size: (height, width) in pixels, where the checkpoint fixes none.

    Yields:
        (B, 3, height, width) float32 on the CPU, and how many of the B are real.
    """
    size = size or how.size
    assert size is not None
    for first in range(0, len(images), batch):
        part = images[first : first + batch]
        resized = [resize(image, size, how.resample) for image in part]
        filled = resized + resized[-1:] * (batch - len(part))
        yield normalise(torch.stack(filled), how), len(part)
