"""Frames become the pixel tensor a vision tower wants, exactly as its checkpoint says.

Plain torch, and on the CPU whatever the model's device, so that the same frame gives the same
numbers everywhere. The formula is that of Hugging Face's image and video processors on torchvision
(antialiased resize of uint8, then one fused normalisation), without needing torchvision.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.errors import ModelError

# PIL's numbers, which the configuration files use. Lanczos, which a few files name, is missing in
# torch; those checkpoints are refused rather than resized in another way.
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


def read_preprocessing(folder: Path, kind: Literal["image", "video"]) -> Preprocessing:
    """Read how a checkpoint wants its pictures.

    Args:
        folder: the checkpoint's folder. `processor_config.json` wins over the older
            `video_preprocessor_config.json` and `preprocessor_config.json`, as in transformers.
        kind: which of the two a model was trained with; `video` falls back on the image's file.

    Raises:
        ModelError: there is no such file, or it asks for something that is not supported.
    """
    source, found = _find(folder, kind)
    size, code = found.get("size"), found.get("resample", 3)
    if found.get("do_center_crop") or code not in _RESAMPLE:
        asked = "a centre crop" if found.get("do_center_crop") else f"resample {code}"
        raise ModelError(
            f"{source} asks for {asked}, which is not supported (a plain bilinear or bicubic "
            "resize is); choose other weights"
        )
    patches = found.get("max_num_patches")
    if patches is None and not (isinstance(size, dict) and {"height", "width"} <= size.keys()):
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


def _find(folder: Path, kind: str) -> tuple[Path, dict[str, Any]]:
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


def pixel_batches(
    images: Sequence[NDArray[np.uint8]], how: Preprocessing, batch: int
) -> Iterator[tuple[torch.Tensor, int]]:
    """Preprocess frames in batches of one fixed size.

    Kernels may round differently for another batch size, so the last batch is filled up with its
    last frame: what a frame becomes does not depend on how many come with it.

    Args:
        images: T ≥ 1 pictures, (H, W, 3) uint8 each; sizes may differ.
        how: the checkpoint's wishes, with a fixed size.
        batch: B, frames a batch.

    Yields:
        (B, 3, height, width) float32 on the CPU, and how many of the B are real.
    """
    assert how.size is not None
    for first in range(0, len(images), batch):
        part = images[first : first + batch]
        resized = [resize(image, how.size, how.resample) for image in part]
        filled = resized + resized[-1:] * (batch - len(part))
        yield normalise(torch.stack(filled), how), len(part)
