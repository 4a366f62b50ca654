"""LLaVA-OneVision: a SigLIP eye, one token for each 2×2 patches, and a Qwen2 that reads them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch

from streamvlm.errors import ModelError
from streamvlm.models._cues import attention_received
from streamvlm.models._prompt import Positions, Template, check_room, steps
from streamvlm.models._speak import Voice
from streamvlm.pixels import Preprocessing, pixel_batches, read_preprocessing
from streamvlm.types import Clip, Evidence, Query, VisualTokens, Word
from streamvlm.weights import Precision, open_checkpoint


@dataclass(eq=False)
class LlavaOneVision:
    """LLaVA-OneVision (Li et al. 2024, arXiv:2408.03326): the eye and the mouth of one family.

    Any Hugging Face checkpoint of `LlavaOnevisionForConditionalGeneration`. Tokens that were stored
    go back in through `mm_encoder_outputs`, so an answer from all tokens equals the answer from
    pixels. The cue `attention` is what each token's place receives in the tower's last layer,
    averaged over heads and queries and pooled like the tokens; `frame_vector` is the mean of the
    tower's normalised output, since these checkpoints carry no pooling head.

    Raises:
        ModelError: the weights cannot be found, read or run.
        ValueError: an option is out of range.
    """

    weights: str = "demo"
    """`demo`, a folder, or a Hugging Face name."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1, …"""
    dtype: Precision = "float32"
    """The precision to run in."""
    download: bool = False
    """Whether weights given by name may be fetched from Hugging Face."""
    batch: int = 8
    """Frames a forward pass; a shorter rest is filled up."""
    max_new_tokens: int = 64
    """Longest answer."""
    temperature: float = 0.0
    """0 takes the likeliest word; above 0 draws with a fixed seed."""
    positions: Positions = "full"
    """`full`: tokens keep their places, dropped ones leave holes; `compact`: no holes."""
    timestamps: bool = True
    """Write each step's time before its tokens; False is the layout of stock transformers."""
    with_cues: tuple[str, ...] = ()
    """The cues to compute."""
    network: Any = field(init=False, repr=False)
    """The Hugging Face model itself, for those who measure it."""

    cues: ClassVar[frozenset[str]] = frozenset({"attention", "frame_vector"})

    def __post_init__(self) -> None:
        if self.batch < 1 or self.max_new_tokens < 1 or self.temperature < 0:
            raise ValueError("batch and max_new_tokens must be at least 1, temperature at least 0")
        if unknown := set(self.with_cues) - self.cues:
            raise ValueError(f"with_cues may name {sorted(self.cues)}, found {sorted(unknown)}")
        from transformers import LlavaOnevisionForConditionalGeneration

        found = open_checkpoint(
            self.weights,
            "answerer",
            ("llava_onevision",),
            device=self.device,
            dtype=self.dtype,
            download=self.download,
        )
        self._how: Preprocessing = read_preprocessing(found.folder, "video")
        tokenizer = found.tokenizer()
        self.network = found.load(LlavaOnevisionForConditionalGeneration)
        config = self.network.config
        side = config.vision_config.image_size
        if self._how.size != (side, side):
            raise ModelError(
                f"{self.weights}: the preprocessor makes {self._how.size} pictures, but the tower "
                f"takes {side}×{side}; correct the size in the preprocessor's file"
            )
        self._side = math.ceil(side // config.vision_config.patch_size / 2)
        self._model = found.fingerprint("llava_onevision", self._how)
        self._template = Template(tokenizer, config.video_token_id, self.weights)
        slots = (config.image_token_id, config.video_token_id)
        self._voice = Voice(self.network, tokenizer, slots, self.max_new_tokens, self.temperature)

    @property
    def model(self) -> str:
        """Fingerprint of weights and preprocessing: equal means tokens are interchangeable."""
        return self._model

    def encode(self, clip: Clip) -> VisualTokens:
        """Turn one clip into dense tokens, `batch` frames at a time.

        Args:
            clip: T ≥ 1 frames of any size.

        Returns:
            T·H·W tokens on the model's device, with the cues asked for.
        """
        images = [frame.image for frame in clip.frames]
        parts = [
            {name: part[:count] for name, part in self._see(pixels).items()}
            for pixels, count in pixel_batches(images, self._how, self.batch)
        ]
        seen = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        features = seen.pop("features")
        device, grid = features.device, (len(images), self._side, self._side)
        places = [torch.arange(length, device=device) for length in grid]
        seconds = torch.tensor([frame.seconds for frame in clip.frames], dtype=torch.float64)
        each = self._side * self._side
        return VisualTokens(
            model=self.model,
            features=features.flatten(0, 1),
            position=torch.cartesian_prod(*places),
            seconds=seconds.to(device).repeat_interleave(each),
            grid=grid,
            weight=torch.ones(len(images) * each, device=device),
            cues={n: cue.flatten() for n, cue in seen.items() if n != "frame_vector"},
            frame_cues={n: cue for n, cue in seen.items() if n == "frame_vector"},
        )

    def prompt(self, query: Query, evidence: Sequence[Evidence]) -> dict[str, Any]:
        """What the language model is given: the arguments of the stock model's `forward`.

        Args:
            query: the question; its limits are the retriever's business.
            evidence: what to read, in any order; none leaves only the question.

        Raises:
            ModelError: the tokens are of other weights, or do not fit into the context.
        """
        for item in evidence:
            if item.record.tokens.model != self.model:
                raise ModelError(
                    f"the stored tokens are of {item.record.tokens.model}, but the model that "
                    f"should read them is {self.model}; load those weights or ingest again"
                )
        blocks = list(steps(evidence, timestamps=self.timestamps))
        prompt = self._template.write(blocks, query.text, positions=self.positions)
        context = self.network.config.text_config.max_position_embeddings
        check_room(prompt, context - self.max_new_tokens, self.weights)
        newline = self.network.model.image_newline[None]
        stored = [step.features.to(newline) for _, step in blocks]
        return {
            "input_ids": prompt.input_ids.to(newline.device),
            "position_ids": prompt.position_ids.to(newline.device),
            # Without a mask or a cache, transformers reads holes in the positions as the seams of
            # packed sequences and cuts attention there.
            "attention_mask": torch.ones_like(prompt.input_ids, device=newline.device),
            "mm_encoder_outputs": _as_video(torch.cat([*stored, newline])),
        }

    def answer(self, query: Query, evidence: Sequence[Evidence]) -> Iterator[Word]:
        """Answer from the evidence; each word is computed when it is asked for.

        Args:
            query: the question.
            evidence: what to read, in any order.

        Returns:
            The words; closing the iterator stops the work.

        Raises:
            ModelError: at the call, if the tokens are of other weights or do not fit.
        """
        return self._voice.speak(self.prompt(query, evidence))

    @torch.no_grad()
    def _see(self, pixels: torch.Tensor) -> Mapping[str, torch.Tensor]:
        """(B, 3, S, S) → `features` (B, n, D), `attention` (B, n, 1), `frame_vector` (B, Dg)."""
        model = self.network.model
        layers = model.vision_tower.encoder.layers if "attention" in self.with_cues else []
        last, taps = model.config.vision_feature_layer, {}
        if layers:
            # What goes into the last layer, beside what the features are made of.
            wanted = [len(layers) - 1, *([last] if isinstance(last, int) else last)]
            taps = {"output_hidden_states": wanted}
        out = model.get_video_features(pixels[None].to(self.network.device), **taps)
        # The one token after the whole video is image_newline; the prompt adds it.
        tokens = out.pooler_output[0, :-1].unflatten(0, (len(pixels), -1))
        seen = {"features": tokens}
        if layers:
            received = attention_received(layers[-1], out.hidden_states[len(layers) - 1])
            seen["attention"] = model.apply_pooling(received[..., None])
        if "frame_vector" in self.with_cues:
            seen["frame_vector"] = out.last_hidden_state.mean(1)
        return seen


def _as_video(features: torch.Tensor) -> dict[str, Any]:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return {"video": BaseModelOutputWithPooling(pooler_output=features[None])}
