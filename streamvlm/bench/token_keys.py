"""Search keys of parts of a picture, from a SigLIP tower that was trained for whole pictures only.

The tower pools its patch vectors h by attention and then refines the result: with a probe q, heads
i and softmax over patches p, z = out(concat_i sum_p a_ip V_i h_p), key = z + mlp(norm(z)). With a
single patch the softmax is 1 and z = out(V h_p): the value path, by which MaskCLIP (Zhou et al.
2022, arXiv:2112.01071) reads CLIP's patches. So the pooling head, run on a few patches alone,
gives a key in the space of pictures and texts, and of the weights nothing is changed: for 2 x 2
neighbours it weighs the four as it would among all. The z of all windows, weighted head by head
with the attention that falls on each, add up to the z of the picture.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.embedders.siglip import Siglip
from streamvlm.errors import BadOption
from streamvlm.types import Clip

WINDOW = 2
"""Patches along each side of a window."""


class TokenKeys:
    """Keys of whole frames and of all their windows, in one pass through the tower.

    Args:
        embedder: with pictures of a fixed size.

    Raises:
        BadOption: the embedder is not such a one.
    """

    def __init__(self, embedder: object) -> None:
        if not isinstance(embedder, Siglip) or not hasattr(_vision(embedder).config, "image_size"):
            raise BadOption(
                "token keys are read off a SigLIP tower with pictures of a fixed size, found "
                f"{type(embedder).__name__}; set embedder.name=siglip and a checkpoint of SigLIP"
            )
        self._embedder, self._tower = embedder, _vision(embedder)
        side, odd = divmod(self._tower.config.image_size // self._tower.config.patch_size, WINDOW)
        if odd:
            raise BadOption(
                f"token keys are of {WINDOW} x {WINDOW} patches, found {WINDOW * side + odd} along "
                "a side; choose a checkpoint with an even number"
            )
        self.per_frame = side * side
        """N, windows of a frame."""

    def __call__(self, clip: Clip) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Look at a clip.

        Args:
            clip: T frames.

        Returns:
            (T, E) the keys of its frames and (T, N, E) those of their windows, row by row; all
            float32 of unit length.
        """
        seen: list[torch.Tensor] = []
        hook = self._tower.post_layernorm.register_forward_hook(
            lambda _module, _given, patches: seen.append(patches)
        )
        try:
            frames = self._embedder.embed_clip(clip)
        finally:
            hook.remove()
        # The last batch is filled up.
        patches = torch.cat(seen)[: len(frames)]
        with torch.no_grad():
            pooled = self._tower.head(windows(patches).flatten(0, 1)).float()
        unit = torch.nn.functional.normalize(pooled, dim=-1).view(len(frames), self.per_frame, -1)
        return frames, unit.cpu().numpy()


def windows(patches: torch.Tensor) -> torch.Tensor:
    """The patches of each window beside one another.

    Args:
        patches: (T, P, E), P a square, row by row.

    Returns:
        (T, P / 4, 4, E).
    """
    count, places, width = patches.shape
    side = round(places**0.5) // WINDOW
    rows = patches.view(count, side, WINDOW, side, WINDOW, width)
    return rows.transpose(2, 3).reshape(count, side * side, WINDOW * WINDOW, width)


def _vision(embedder: Siglip) -> Any:
    return embedder.network.vision_model
