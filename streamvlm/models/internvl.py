"""InternVL3 and 3.5: an InternViT eye, one token for 2×2 patches, and a Qwen that reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch

from streamvlm.models._base import VideoLM
from streamvlm.models._evidence import Step, clock
from streamvlm.models._loading import check_pictures
from streamvlm.models._prompt import Piece, Slots, Text
from streamvlm.models._seen import Seen
from streamvlm.models._squares import mean_of_squares
from streamvlm.models._taps import Taps
from streamvlm.weights import Checkpoint


@dataclass(eq=False, kw_only=True)
class InternVL(VideoLM):
    """InternVL3 (Zhu et al. 2025, arXiv:2504.10479) and 3.5 (Wang et al. 2025, arXiv:2508.18265).

    Any checkpoint of `InternVLForConditionalGeneration`; on Hugging Face their names end in `-hf`.
    To transformers a video is a row of images, and its frames are never cut into tiles. The eye
    sees 16×16 tokens of a frame at the usual 448 pixels. The family numbers its frames and knows no
    times: stock transformers writes `Frame7: `, which is what stands here without timestamps, and
    `Frame7 at 00:07: ` with them. Each stream's frames are numbered from 1.

    The cues come from the tower's last layer, `cls_attention` from its [CLS] token, and are pooled
    like the tokens, over 2×2 patches; `frame_vector` is what the configuration names as the tower's
    summary, the mean of its patches or the [CLS] token.
    """

    families: ClassVar[tuple[str, ...]] = ("internvl",)
    cues: ClassVar[frozenset[str]] = frozenset(
        {"attention", "attention_middle", "cls_attention", "keys", "frame_vector"}
    )
    modality: ClassVar[Literal["video", "image"]] = "image"
    video: ClassVar[str] = "<video>"

    @staticmethod
    def architecture() -> Any:
        """See `VideoLM.architecture`."""
        from transformers import InternVLForConditionalGeneration

        return InternVLForConditionalGeneration

    def check(self, found: Checkpoint) -> None:
        """See `VideoLM.check`: the preprocessor must make the square pictures the tower takes."""
        height, width = self.network.config.vision_config.image_size
        check_pictures(self.weights, self._how.size, (height, width))

    def see(self, pixels: torch.Tensor) -> Seen:
        """See `VideoLM.see`."""
        model = self.network.model
        with self.listening() as heard:
            out = model.get_image_features(pixels)
        side, factor = (
            math.isqrt(out.pooler_output.shape[1]),
            round(1 / model.config.downsample_ratio),
        )
        vectors = {}
        if "frame_vector" in self.with_cues:
            is_mean = model.config.vision_config.use_mean_pooling
            states = out.last_hidden_state
            vectors["frame_vector"] = states[:, 1:].mean(1) if is_mean else states[:, 0]
        return Seen(
            out.pooler_output.unflatten(1, (side, side)),
            cues={name: mean_of_squares(cue, side, factor) for name, cue in heard.items()},
            frame_cues=vectors,
        )

    def container(self, features: torch.Tensor, deepstack: torch.Tensor | None) -> Any:
        """See `VideoLM.container`."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return BaseModelOutputWithPooling(pooler_output=features[None])

    def layout(self, evidence: Sequence[Step]) -> Iterator[Piece]:
        """See `VideoLM.layout`: a line for each frame, with its number and its time."""
        number, ended = 0, ""
        for step in evidence:
            number = 1 if step.heading else number + 1
            yield Text(ended)
            time = ""
            if self.timestamps:
                if step.heading:
                    yield Text(f"{step.heading}\n", literal=True)
                time = f" at {clock(step.seconds)}"
            yield Text(f"Frame{number}{time}: <img>")
            yield Slots((step.tokens,))
            ended = "</img>\n"
        yield Text(ended.rstrip())

    def taps(self) -> Taps:
        """See `VideoLM.taps`."""
        tower = self.network.model.vision_tower
        return Taps(tower, [layer.attention for layer in tower.encoder.layer], prefix=1)
