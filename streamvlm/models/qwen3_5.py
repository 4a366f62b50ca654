"""Qwen3.5: the prompt of Qwen3-VL, one vector a token, and a language model with linear layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from streamvlm.models._base import VideoLM
from streamvlm.models.qwen3_vl import Qwen3VL
from streamvlm.types import Evidence, Query


@dataclass(eq=False, kw_only=True)
class Qwen35(Qwen3VL):
    """Qwen3.5: the successor of Qwen3-VL in the installed transformers, as a family of its own.

    Any Hugging Face checkpoint of `Qwen3_5ForConditionalGeneration`. Three of four layers of its
    language model are gated delta networks (Yang et al. 2024, arXiv:2412.06464): a dropped token
    leaves no place, but the state that these layers carry has not seen it.
    """

    families: ClassVar[tuple[str, ...]] = ("qwen3_5",)

    @staticmethod
    def architecture() -> Any:
        """See `VideoLM.architecture`."""
        from transformers import Qwen3_5ForConditionalGeneration

        return Qwen3_5ForConditionalGeneration

    def container(self, features: torch.Tensor, deepstack: torch.Tensor | None) -> Any:
        """See `VideoLM.container`: no deeper features."""
        return VideoLM.container(self, features, deepstack)

    def answer_all(self, queries: Sequence[Query], evidence: Sequence[Evidence]) -> list[str]:
        """See `VideoLM.answer_all`; one by one, since padding would leak into the linear layers."""
        return ["".join(map(str, self.answer(query, evidence))) for query in queries]
