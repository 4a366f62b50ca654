"""Qwen2.5-VL: frames of any size, two of them a step, and time as an axis of the positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from streamvlm.models._evidence import Step, clock, runs
from streamvlm.models._places import Rule
from streamvlm.models._prompt import Piece, Slots, Text
from streamvlm.models._qwen import QwenVL, TextAfter, Timed
from streamvlm.models._taps import Taps


@dataclass(eq=False, kw_only=True)
class Qwen25VL(QwenVL):
    """Qwen2.5-VL (Bai et al. 2025, arXiv:2502.13923): the eye and the mouth of one family.

    Any Hugging Face checkpoint of `Qwen2_5_VLForConditionalGeneration`. Evidence without a gap is
    one video. Within a video, time is an axis of the positions: `tokens_per_second` places for each
    second, as seen. With timestamps, the time at which a video begins stands before it in words,
    which stock transformers does not write.

    The tower attends within windows in most layers; cues are read from its last layer that sees the
    whole frame, `attention_middle` from the one nearest to a third of the way up.
    """

    min_pixels: int = 128 * 28 * 28
    """Smaller frames are enlarged to at least this many pixels."""
    max_pixels: int = 768 * 28 * 28
    """Larger frames are reduced to at most this many pixels."""
    text_after: TextAfter = "max"
    """Where text goes after a video: `max`, behind its last place on any axis, as the model's
    authors and vLLM do; `hf`, behind its rows and columns only, as transformers 5 does."""

    families: ClassVar[tuple[str, ...]] = ("qwen2_5_vl",)

    @staticmethod
    def architecture() -> Any:
        """See `VideoLM.architecture`."""
        from transformers import Qwen2_5_VLForConditionalGeneration

        return Qwen2_5_VLForConditionalGeneration

    def layout(self, evidence: Sequence[Step]) -> Iterator[Piece]:
        """See `VideoLM.layout`: each video between its marks, before it when it begins."""
        for number, run in enumerate(runs(evidence)):
            if self.timestamps:
                if heading := run[0].heading:
                    yield Text("\n" * (number > 0) + f"{heading}\n", literal=True)
                yield Text(clock(run[0].seconds))
            yield Text(self.wrap[0])
            yield Slots(tuple(step.tokens for step in run))
            yield Text(self.wrap[1])

    def rule(self) -> Rule:
        """See `VideoLM.rule`."""
        vision = self.network.config.vision_config
        return Timed(vision.tokens_per_second, self.text_after)

    def step_seconds(self, seconds: torch.Tensor) -> torch.Tensor:
        """See `VideoLM.step_seconds`: the first frame's, so that odd videos keep their beat."""
        return seconds[:, 0]

    def taps(self) -> Taps:
        """See `VideoLM.taps`."""
        tower = self.network.model.visual
        whole = sorted(tower.fullatt_block_indexes)
        third = len(tower.blocks) // 3
        return Taps(
            tower,
            [block.attn for block in tower.blocks],
            layer=whole[-1],
            middle=min(whole, key=lambda layer: abs(layer - third)),
        )

    def token_order(self, grid: torch.Tensor) -> torch.Tensor:
        """See `QwenVL.token_order`: the tower sorts tokens by window until its very end."""
        from transformers.vision_utils import get_vision_window_index

        vision = self.network.config.vision_config
        window, _ = get_vision_window_index(
            grid,
            spatial_merge_size=vision.spatial_merge_size,
            window_size=vision.window_size,
            patch_size=vision.patch_size,
        )
        order: torch.Tensor = window.argsort()
        return order
