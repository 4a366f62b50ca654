"""Qwen3-VL: two frames a step, its time in words before it, and features for deeper layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from streamvlm.models._evidence import Step
from streamvlm.models._places import Rule
from streamvlm.models._prompt import Piece, Slots, Text
from streamvlm.models._qwen import Blocks, QwenVL


@dataclass(eq=False, kw_only=True)
class Qwen3VL(QwenVL):
    """Qwen3-VL (Bai et al. 2025, arXiv:2511.21631): the eye and the mouth of one family.

    Any Hugging Face checkpoint of `Qwen3VLForConditionalGeneration`. Before each step stands its
    time, `<12.5 seconds>`, the mean of its two frames'. A token carries one vector more for each
    level of DeepStack (Meng et al. 2024, arXiv:2406.04334), stored beside its features.
    """

    min_pixels: int = 128 * 32 * 32
    """Smaller frames are enlarged to at least this many pixels."""
    max_pixels: int = 768 * 32 * 32
    """Larger frames are reduced to at most this many pixels."""
    outer_pair: bool = True
    """Write a pair of vision marks around a whole video too, as transformers does since 5.10."""

    families: ClassVar[tuple[str, ...]] = ("qwen3_vl",)

    @staticmethod
    def architecture() -> Any:
        """See `VideoLM.architecture`."""
        from transformers import Qwen3VLForConditionalGeneration

        return Qwen3VLForConditionalGeneration

    def container(self, features: torch.Tensor, deepstack: torch.Tensor | None) -> Any:
        """See `VideoLM.container`."""
        from transformers.models.qwen3_vl.modeling_qwen3_vl import (
            BaseModelOutputWithDeepstackFeatures,
        )

        levels = [] if deepstack is None else deepstack.unbind(1)
        return BaseModelOutputWithDeepstackFeatures(
            pooler_output=[features], deepstack_features=[[level] for level in levels]
        )

    def layout(self, evidence: Sequence[Step]) -> Iterator[Piece]:
        """See `VideoLM.layout`: times and steps in turn, each step between marks."""
        opened, closed = self.wrap
        outer = self.wrap if self.outer_pair else ("", "")
        for number, step in enumerate(evidence):
            if step.heading or not number:
                yield Text(outer[1] * (number > 0))
                if step.heading and self.timestamps:
                    yield Text("\n" * (number > 0) + f"{step.heading}\n", literal=True)
                yield Text(outer[0])
            if self.timestamps:
                yield Text(f"<{step.seconds:.1f} seconds>")
            yield Text(opened)
            yield Slots((step.tokens,))
            yield Text(closed)
        if evidence:
            yield Text(outer[1])

    def rule(self) -> Rule:
        """See `VideoLM.rule`."""
        return Blocks()
