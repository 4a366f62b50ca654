"""What all video-LLM families share: loading, encoding, prompts, answers. A family adds its facts.

Tokens go back into the model by one way only: `input_ids` with as many placeholders as there are
tokens left, explicit `position_ids`, an `attention_mask`, and the stored tokens as
`mm_encoder_outputs`. It is the way that transformers itself takes inside `generate`, so an answer
from all tokens equals the answer from pixels, and any subset of tokens can be read.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.errors import ModelError
from streamvlm.models._evidence import Step, steps
from streamvlm.models._loading import loading
from streamvlm.models._options import Options
from streamvlm.models._places import Dense, Raster, Rule
from streamvlm.models._prompt import Piece, Template, check_room, stored
from streamvlm.models._seen import Seen, join
from streamvlm.models._speak import Voice
from streamvlm.models._taps import Taps
from streamvlm.pixels import PixelBudget, Preprocessing, pixel_batches, read_preprocessing
from streamvlm.types import Clip, Evidence, Query, VisualTokens, Word
from streamvlm.weights import Checkpoint, enough_memory, open_checkpoint


@dataclass(eq=False, kw_only=True)
class VideoLM(Options):
    """The eye and the mouth of one family. A family overrides the facts and the hooks.

    Raises:
        ModelError: the weights cannot be found, read or run.
        ValueError: an option is out of range.
    """

    network: Any = field(init=False, repr=False)
    """The Hugging Face model itself, for those who measure it."""

    families: ClassVar[tuple[str, ...]]
    """The `model_type`s of the checkpoints it runs."""
    modality: ClassVar[Literal["video", "image"]] = "video"
    """Under which name transformers takes the tokens back."""
    step_frames: ClassVar[int] = 1
    """Frames that become one time step."""
    wrap: ClassVar[tuple[str, str]] = ("", "")
    """What its chat template writes right around a video, and `layout` writes anew."""
    video: ClassVar[str] = ""
    """How its chat template spells a video, if not as one placeholder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        found = open_checkpoint(
            self.weights,
            "answerer",
            self.families,
            device=self.device,
            dtype=self.dtype,
            download=self.download,
        )
        architecture = self.architecture()
        _check_way_in(architecture)
        self._how: Preprocessing = self.preprocessing(found.folder)
        tokenizer = found.tokenizer()
        more = loading(found, self.attention, self.quantisation)
        self.network = found.load(architecture, more)
        self._budget = self.budget()
        self.check(found)
        plugin = type(self).__module__.rpartition(".")[2]
        self._model = found.fingerprint(plugin, self._how, self._budget)
        config = self.network.config
        slot: int = getattr(config, f"{self.modality}_token_id")
        self._template = Template(tokenizer, slot, self.weights, video=self.video, wrap=self.wrap)
        slots = {slot, config.image_token_id, getattr(config, "video_token_id", slot)}
        manner = (self.max_new_tokens, self.temperature, self.stop)
        self._voice = Voice(self.network, tokenizer, tuple(sorted(slots)), *manner)
        tapped = set(self.with_cues) - {"frame_vector"}
        self._taps = self.taps() if tapped else None

    # What a family says of itself.

    @staticmethod
    def architecture() -> Any:
        """The class of transformers that runs these checkpoints; imported when asked for."""
        raise NotImplementedError

    def see(self, pixels: torch.Tensor) -> Seen:
        """Look at some frames: the tower and the projector.

        Args:
            pixels: (B · step_frames, 3, h, w) float32 on the model's device.

        Returns:
            B time steps, each a pure function of its own frames.
        """
        raise NotImplementedError

    def container(self, features: torch.Tensor, deepstack: torch.Tensor | None) -> Any:
        """What `mm_encoder_outputs` holds for the modality; a new object at each call.

        Args:
            features: (n, D), all slots of the prompt in order.
            deepstack: (n, L, D), for models that feed deeper layers.
        """
        from transformers.modeling_outputs import BaseModelOutputWithPooling

        return BaseModelOutputWithPooling(pooler_output=[features])

    def layout(self, evidence: Sequence[Step]) -> Iterator[Piece]:
        """What stands between the beginning of the user's turn and the question.

        Args:
            evidence: the time steps to read, in order; may be empty.
        """
        raise NotImplementedError

    def rule(self) -> Rule:
        """Where the tokens go with positions `full`; by default on one axis."""
        return Raster()

    def preprocessing(self, folder: Path) -> Preprocessing:
        """How the checkpoint wants its pictures; by default as its video processor's file says."""
        return read_preprocessing(folder, "video", sized=True)

    def budget(self) -> PixelBudget | None:
        """What decides the size of pictures, if the checkpoint fixes none."""
        return None

    def pixels(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[tuple[torch.Tensor, int]]:
        """Preprocess the frames of one clip.

        All are resized to one size, which the first frame decides if the checkpoint fixes none.

        Args:
            images: T ≥ 1 pictures, (H, W, 3) uint8 each.

        Yields:
            Pixels of whole steps in batches of one size, (frames, 3, h, w) float32 on the CPU, and
            how many frames of each are real.
        """
        whole = max(1, self.batch // self.step_frames) * self.step_frames
        size = self._budget.size(*images[0].shape[:2]) if self._budget else None
        return pixel_batches(images, self._how, whole, size)

    def step_seconds(self, seconds: torch.Tensor) -> torch.Tensor:
        """The time of each step: (B, step_frames) → (B,) float64 seconds; by default the mean."""
        return seconds.mean(1)

    def taps(self) -> Taps:
        """Where the cues are read; called only if one other than `frame_vector` is wanted."""
        raise NotImplementedError

    @contextmanager
    def listening(self) -> Iterator[dict[str, torch.Tensor]]:
        """Read the cues that are wanted while the tower runs inside the `with` block.

        Yields:
            A dictionary, empty until the block has ended; then {cue: (patches, …) float32} in the
            order in which the tower's layers hold the patches.
        """
        if self._taps is None:
            yield {}
            return
        with self._taps.watch(self.with_cues) as heard:
            yield heard

    def check(self, found: Checkpoint) -> None:
        """Refuse a checkpoint whose files do not fit one another; by default none.

        Raises:
            ModelError: they do not.
        """

    # What a user of the model calls.

    @property
    def model(self) -> str:
        """Fingerprint of weights and preprocessing: equal means tokens are interchangeable."""
        return self._model

    @torch.no_grad()
    def encode(self, clip: Clip) -> VisualTokens:
        """Turn one clip into dense tokens, `batch` frames at a time.

        Args:
            clip: F ≥ 1 frames of any size. If a step takes several, an odd last one is repeated.

        Returns:
            T·H·W tokens on the model's device, with the cues asked for.

        Raises:
            ModelError: the device has not enough memory.
        """
        images = [frame.image for frame in clip.frames]
        parts = []
        with enough_memory("encoding a clip", "set a smaller batch"):
            for pixels, count in self.pixels(images):
                seen = self.see(pixels.to(self.network.device))
                parts.append(seen.first(math.ceil(count / self.step_frames)))
            whole = join(parts)
        seconds = torch.tensor([frame.seconds for frame in clip.frames], dtype=torch.float64)
        filled = torch.cat([seconds, seconds[-1:].expand(-len(seconds) % self.step_frames)])
        each = self.step_seconds(filled.reshape(-1, self.step_frames))
        return whole.tokens(self.model, each)

    def prompt(self, query: Query, evidence: Sequence[Evidence]) -> dict[str, Any]:
        """What the language model is given: the arguments of the stock model's `forward`.

        Args:
            query: the question; its limits are the retriever's business.
            evidence: what to read, in any order; none leaves only the question.

        Raises:
            ModelError: the tokens are of other weights, or do not fit into the context.
        """
        return self._prompts([query], evidence)[0]

    def _prompts(
        self, queries: Sequence[Query], evidence: Sequence[Evidence]
    ) -> list[dict[str, Any]]:
        """Prompts about the same evidence; only the first holds its visual features."""
        for item in evidence:
            if item.record.tokens.model != self.model:
                raise ModelError(
                    f"the stored tokens are of {item.record.tokens.model}, but the model that "
                    f"should read them is {self.model}; load those weights or ingest again"
                )
        pieces = list(self.layout(list(steps(evidence))))
        prompts = [self._words(query, pieces) for query in queries]
        with enough_memory("bringing back stored tokens", "ask with a smaller max_tokens"):
            features, deepstack = stored(pieces, self.network)
        if prompts and features is not None:
            container = self.container(features, deepstack)
            prompts[0]["mm_encoder_outputs"] = {self.modality: container}
        return prompts

    def _words(self, query: Query, pieces: Sequence[Piece]) -> dict[str, Any]:
        """Ids, places and mask of one prompt."""
        rule = self.rule() if self.positions == "full" else Dense(self.axes)
        prompt = self._template.write(pieces, query.text, rule)
        context = self.network.config.get_text_config().max_position_embeddings
        check_room(prompt, context - self.max_new_tokens, self.weights)
        device = self.network.device
        return {
            "input_ids": prompt.input_ids.to(device),
            "position_ids": prompt.position_ids.to(device),
            # Without a mask or a cache, transformers reads holes in the positions as the seams of
            # packed sequences and cuts attention there.
            "attention_mask": torch.ones_like(prompt.input_ids, device=device),
        }

    def answer(self, query: Query, evidence: Sequence[Evidence]) -> Iterator[Word]:
        """Answer from the evidence; each word is computed when it is asked for.

        Args:
            query: the question.
            evidence: what to read, in any order.

        Returns:
            The words; closing the iterator stops the work.

        Raises:
            ModelError: at the call, if the tokens are of other weights or do not fit; while
                listening, if the device has not enough memory.
        """
        return self._voice.speak(self.prompt(query, evidence))

    def answer_all(self, queries: Sequence[Query], evidence: Sequence[Evidence]) -> list[str]:
        """Answer several questions about the same evidence at once.

        Args:
            queries: the questions.
            evidence: what to read for all of them, in any order; read once.

        Returns:
            The answers in order; greedy ones are those that `answer` gives.

        Raises:
            ModelError: the tokens are of other weights, do not fit, or the device has not enough
                memory.
        """
        return self._voice.speak_all(self._prompts(queries, evidence))


def _check_way_in(architecture: Any) -> None:
    if "mm_encoder_outputs" not in inspect.signature(architecture.forward).parameters:
        raise ModelError(
            f"{architecture.__name__} of transformers {version('transformers')} takes no stored "
            "tokens (mm_encoder_outputs); install transformers 5.23 or newer"
        )
