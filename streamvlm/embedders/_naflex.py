"""Pictures in their own aspect ratio, as SigLIP 2's NaFlex checkpoints take them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.pixels import Preprocessing, normalise, resize


def patch_batches(
    images: Sequence[NDArray[np.uint8]], how: Preprocessing, patch: int, batch: int
) -> Iterator[tuple[dict[str, torch.Tensor], int]]:
    """Preprocess frames for `Siglip2Model` in batches of one fixed size.

    Each picture is resized to the largest size of whole patches that fits into `how.patches`,
    nearly keeping its aspect ratio, and cut into patches; the rest of its row is zeros
    (Tschannen et al. 2025, "SigLIP 2", arXiv:2502.14786, section 2.4.2).

    Args:
        images: T ≥ 1 pictures, (H, W, 3) uint8 each; sizes may differ.
        how: the checkpoint's wishes, with a limit of patches P.
        patch: p, a patch's side in pixels.
        batch: B, frames a batch; a shorter rest is filled up with its last frame.

    Yields:
        `pixel_values` (B, P, p·p·3) float32, `pixel_attention_mask` (B, P) int32 and
        `spatial_shapes` (B, 2) int64, and how many of the B are real.
    """
    for first in range(0, len(images), batch):
        part = [_patches(image, how, patch) for image in images[first : first + batch]]
        filled = part + part[-1:] * (batch - len(part))
        rows = [values for values, _ in filled]
        sizes = torch.tensor([len(values) for values in rows])
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
        limit = how.patches or 0
        yield (
            {
                "pixel_values": torch.nn.functional.pad(padded, (0, 0, 0, limit - padded.shape[1])),
                "pixel_attention_mask": (torch.arange(limit) < sizes[:, None]).int(),
                "spatial_shapes": torch.tensor([shape for _, shape in filled]),
            },
            len(part),
        )


def _patches(
    image: NDArray[np.uint8], how: Preprocessing, patch: int
) -> tuple[torch.Tensor, tuple[int, int]]:
    """(n, p·p·3) float32, row by row, and (rows, columns) with n = rows·columns."""
    from transformers.models.siglip2.image_processing_pil_siglip2 import (
        get_image_size_for_max_num_patches as fit,
    )

    height, width = fit(*image.shape[:2], patch, how.patches)
    pixels = normalise(resize(image, (height, width), how.resample), how)
    rows, columns = height // patch, width // patch
    cut = pixels.reshape(3, rows, patch, columns, patch).permute(1, 3, 2, 4, 0)
    return cut.reshape(rows * columns, -1), (rows, columns)
