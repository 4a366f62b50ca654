"""LLaVA-OneVision: a SigLIP eye, one token for each 2×2 patches, and a Qwen2 that reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from streamvlm.models._base import VideoLM
from streamvlm.models._evidence import Step, clock
from streamvlm.models._loading import check_pictures
from streamvlm.models._prompt import Extra, Piece, Slots, Text
from streamvlm.models._seen import Seen
from streamvlm.models._taps import Taps
from streamvlm.weights import Checkpoint


@dataclass(eq=False, kw_only=True)
class LlavaOneVision(VideoLM):
    """LLaVA-OneVision (Li et al. 2024, arXiv:2408.03326): the eye and the mouth of one family.

    Any Hugging Face checkpoint of `LlavaOnevisionForConditionalGeneration`. The eye sees 14×14
    tokens of a frame at the usual 384 pixels; all frames are followed by one vector of the model's
    own, `image_newline`. With timestamps, each frame's time stands before its tokens; without, the
    layout is that of stock transformers.

    LLaVA-Video (Zhang et al. 2024, arXiv:2410.02713) is a checkpoint of the same architecture, but
    transformers has no class of its own for it and its authors publish it in their own format only.
    Converted, it runs here with the pooling and the one newline of LLaVA-OneVision; it was trained
    with 13×13 averaged tokens and a newline behind every row, so expect less of it.

    The cues come from the tower's last layer and are pooled like the tokens, bilinearly;
    `frame_vector` is the mean of the tower's normalised output, since these checkpoints carry no
    pooling head.
    """

    weights: str = "demo"
    """`demo`, a folder, or a Hugging Face name."""

    families: ClassVar[tuple[str, ...]] = ("llava_onevision",)
    cues: ClassVar[frozenset[str]] = frozenset(
        {"attention", "attention_middle", "keys", "frame_vector"}
    )

    @staticmethod
    def architecture() -> Any:
        """See `VideoLM.architecture`."""
        from transformers import LlavaOnevisionForConditionalGeneration

        return LlavaOnevisionForConditionalGeneration

    def check(self, found: Checkpoint) -> None:
        """See `VideoLM.check`: the preprocessor must make pictures of the tower's size."""
        side = self.network.config.vision_config.image_size
        check_pictures(self.weights, self._how.size, (side, side))

    def see(self, pixels: torch.Tensor) -> Seen:
        """See `VideoLM.see`."""
        with self.listening() as cues:
            out = self.network.model.get_video_features(pixels[None])
        config = self.network.config.vision_config
        side = math.ceil(config.image_size // config.patch_size / 2)
        # The one token after the whole video is image_newline; the prompt adds it.
        tokens = out.pooler_output[0, :-1].unflatten(0, (len(pixels), side, side))
        pooled = {name: self._pool(cue, len(pixels), side) for name, cue in cues.items()}
        vectors = {}
        if "frame_vector" in self.with_cues:
            vectors = {"frame_vector": out.last_hidden_state.mean(1)}
        return Seen(tokens, cues=pooled, frame_cues=vectors)

    def container(self, features: torch.Tensor, deepstack: torch.Tensor | None) -> Any:
        """See `VideoLM.container`."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return BaseModelOutputWithPooling(pooler_output=features[None])

    def layout(self, evidence: Sequence[Step]) -> Iterator[Piece]:
        """See `VideoLM.layout`: times and frames in turn, and the newline's slot behind them."""
        for number, step in enumerate(evidence):
            if self.timestamps:
                if step.heading:
                    yield Text("\n" * (number > 0) + f"{step.heading}\n", literal=True)
                yield Text(clock(step.seconds))
            yield Slots((step.tokens,))
        yield Extra(self.network.model.image_newline[None])

    def taps(self) -> Taps:
        """See `VideoLM.taps`."""
        tower = self.network.model.vision_tower
        return Taps(tower, [layer.self_attn for layer in tower.encoder.layers])

    def _pool(self, cue: torch.Tensor, frames: int, side: int) -> torch.Tensor:
        """(patches, …) of all frames → (B, side, side, …), as the tokens are pooled."""
        flat = cue.flatten(1) if cue.ndim > 1 else cue[:, None]
        pooled: torch.Tensor = self.network.model.apply_pooling(
            flat.reshape(frames, -1, flat.shape[1])
        )
        return pooled.reshape(frames, side, side, *cue.shape[1:])
