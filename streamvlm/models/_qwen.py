"""What the Qwen-VL line shares: pictures of any size as patches, two frames a step, three axes.

Letters: P patches, n tokens, L levels of deeper features.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from streamvlm.errors import ModelError
from streamvlm.models._base import VideoLM
from streamvlm.models._seen import Seen
from streamvlm.models._taps import Taps
from streamvlm.pixels import PixelBudget, Preprocessing, patchify, read_preprocessing
from streamvlm.types import VisualTokens
from streamvlm.weights import Checkpoint

TextAfter = Literal["max", "hf"]

# Seconds are sums of frame durations: 0.9999999 of a place is the next one.
_ROUNDING = 1e-6


@dataclass(eq=False, kw_only=True)
class QwenVL(VideoLM):
    """The eye of the Qwen-VL line.

    A frame keeps its shape and is resized to whole tokens within a budget of pixels, which looks at
    one frame only, so that a frame's tokens do not depend on the length of its clip. Two frames
    make one step; an odd last one is repeated. Within a step the tower attends freely, between
    steps not at all.
    """

    min_pixels: int
    """Smaller frames are enlarged to at least this many pixels."""
    max_pixels: int
    """Larger frames are reduced to at most this many pixels."""

    cues: ClassVar[frozenset[str]] = frozenset(
        {"attention", "attention_middle", "keys", "frame_vector"}
    )
    axes: ClassVar[int] = 3
    step_frames: ClassVar[int] = 2
    wrap: ClassVar[tuple[str, str]] = ("<|vision_start|>", "<|vision_end|>")

    def preprocessing(self, folder: Path) -> Preprocessing:
        """See `VideoLM.preprocessing`: all but the size, which `budget` decides."""
        return read_preprocessing(folder, "video", sized=False)

    def budget(self) -> PixelBudget:
        """See `VideoLM.budget`."""
        vision = self.network.config.vision_config
        cell = vision.patch_size * vision.spatial_merge_size
        return PixelBudget(cell, self.min_pixels, self.max_pixels)

    def check(self, found: Checkpoint) -> None:
        """See `VideoLM.check`: the tower must take two frames a step."""
        each = self.network.config.vision_config.temporal_patch_size
        if each != self.step_frames:
            raise ModelError(
                f"{self.weights}: its tower takes {each} frames a step, needed are "
                f"{self.step_frames}; choose other weights"
            )

    def see(self, pixels: torch.Tensor) -> Seen:
        """See `VideoLM.see`."""
        vision = self.network.config.vision_config
        patch, merge = vision.patch_size, vision.spatial_merge_size
        steps = len(pixels) // self.step_frames
        height, width = pixels.shape[2] // patch, pixels.shape[3] // patch
        grid = torch.tensor([[steps, height, width]], device=pixels.device)
        with self.listening() as heard:
            out = self.network.model.get_video_features(
                patchify(pixels, patch, merge, self.step_frames), grid
            )
        shape = (steps, height // merge, width // merge)
        deepstack = None
        if levels := getattr(out, "deepstack_features", None):
            deepstack = torch.stack([torch.cat(level) for level in levels], dim=1)
            deepstack = deepstack.reshape(*shape, *deepstack.shape[1:])
        vectors = {}
        if "frame_vector" in self.with_cues:
            patches = out.last_hidden_state.reshape(steps, height * width, -1)
            vectors = {"frame_vector": patches.mean(1)}
        return Seen(
            torch.cat(out.pooler_output).reshape(*shape, -1),
            deepstack,
            {name: self.pool_scores(cue, grid, shape) for name, cue in heard.items()},
            vectors,
        )

    def pool_scores(
        self, cue: torch.Tensor, grid: torch.Tensor, shape: tuple[int, int, int]
    ) -> torch.Tensor:
        """Side signals of patches as those of tokens: the mean over the patches of each.

        Args:
            cue: (P, …) in the order of the tower's layers.
            grid: (1, 3) steps, rows and columns of patches.
            shape: steps, rows and columns of tokens.

        Returns:
            (steps, rows, columns, …).
        """
        tokens = cue.reshape(shape[0] * shape[1] * shape[2], -1, *cue.shape[1:]).mean(1)
        return tokens[self.token_order(grid)].reshape(*shape, *cue.shape[1:])

    def token_order(self, grid: torch.Tensor) -> Any:
        """Where each token stands among the tower's groups of patches; by default at its place.

        Args:
            grid: (1, 3) steps, rows and columns of patches.
        """
        return slice(None)

    def taps(self) -> Taps:
        """See `VideoLM.taps`."""
        tower = self.network.model.visual
        return Taps(tower, [block.attn for block in tower.blocks])


class Blocks:
    """Three axes; each step is a block of its own at one place in time.

    Rows and columns count from the first free place, and the next text or step stands behind the
    longer side of the whole grid, whatever was dropped. So time is only in the text.
    """

    axes: ClassVar[int] = 3

    def place(self, steps: Sequence[VisualTokens], start: int) -> tuple[torch.Tensor, int]:
        """See `Rule.place`."""
        places = []
        for tokens in steps:
            _, row, column = tokens.position.cpu().T
            places.append(torch.stack([torch.zeros_like(row), row, column]) + start)
            start += max(tokens.grid[1:])
        return torch.cat(places, dim=1), start


class Timed:
    """Three axes, the first of which is time.

    Args:
        per_second: places for each second since the run began.
        text_after: where text goes: `max`, behind the last place on any axis; `hf`, behind the
            longer side of the grid.
    """

    axes: ClassVar[int] = 3

    def __init__(self, per_second: float, text_after: TextAfter) -> None:
        self._per_second = per_second
        self._text_after = text_after

    def place(self, steps: Sequence[VisualTokens], start: int) -> tuple[torch.Tensor, int]:
        """See `Rule.place`."""
        seconds = torch.cat([tokens.seconds for tokens in steps]).cpu()
        time = ((seconds - seconds[0]) * self._per_second + _ROUNDING).long()
        _, row, column = torch.cat([tokens.position for tokens in steps]).cpu().T
        reach = max(side for tokens in steps for side in tokens.grid[1:])
        if self._text_after == "max":
            reach = max(reach, int(time[-1]) + 1)
        return torch.stack([time, row, column]) + start, start + reach
