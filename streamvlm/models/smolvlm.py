"""SmolVLM2: a SigLIP eye, one token for 3×3 or 4×4 patches, and a small Llama that reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.models._base import VideoLM
from streamvlm.models._evidence import Step
from streamvlm.models._lanczos import Twice, read_twice, twice_resized
from streamvlm.models._loading import check_pictures
from streamvlm.models._numbers import in_words
from streamvlm.models._prompt import Piece, Slots, Text
from streamvlm.models._seen import Seen
from streamvlm.models._squares import mean_of_squares
from streamvlm.models._taps import Taps
from streamvlm.weights import Checkpoint


@dataclass(eq=False, kw_only=True)
class SmolVLM(VideoLM):
    """SmolVLM2 (Marafioti et al. 2025, arXiv:2504.05299), of 256 million parameters and up.

    Any Hugging Face checkpoint of `SmolVLMForConditionalGeneration`. To transformers a video is a
    row of images. The eye sees 9×9 tokens of a frame in the 2.2B model and 8×8 in the smaller ones.
    With timestamps the prompt is that of stock transformers: a sentence with the number of frames
    and the length of the video, then `Frame from 01:05:` before each frame, with minutes above 59.
    For the length stands the time of the last frame read. Without timestamps the frames follow one
    another like images.

    A frame whose normalised pixels are all zero is seen like any other. Stock transformers takes
    it for padding and drops it, so that there it has no tokens.

    The cues come from the tower's last layer and are pooled like the tokens, over squares of
    patches; `frame_vector` is the mean of the tower's normalised output, since these checkpoints
    carry no pooling head.
    """

    families: ClassVar[tuple[str, ...]] = ("smolvlm",)
    cues: ClassVar[frozenset[str]] = frozenset(
        {"attention", "attention_middle", "keys", "frame_vector"}
    )
    modality: ClassVar[Literal["video", "image"]] = "image"
    video: ClassVar[str] = "<video>"
    # Templates without a place for videos get one as a line of the text; stock breaks no line.
    wrap: ClassVar[tuple[str, str]] = ("", "\n")

    @staticmethod
    def architecture() -> Any:
        """See `VideoLM.architecture`."""
        from transformers import SmolVLMForConditionalGeneration

        return SmolVLMForConditionalGeneration

    def preprocessing(self, folder: Path) -> Twice:
        """See `VideoLM.preprocessing`."""
        self._twice = read_twice(folder)
        return self._twice

    def pixels(self, images: Sequence[NDArray[np.uint8]]) -> Iterator[tuple[torch.Tensor, int]]:
        """See `VideoLM.pixels`: two resizes with Lanczos."""
        return twice_resized(images, self._twice, self.batch)

    def check(self, found: Checkpoint) -> None:
        """See `VideoLM.check`: the preprocessor must make pictures of the tower's size."""
        side = self.network.config.vision_config.image_size
        check_pictures(self.weights, self._twice.size, (side, side), "max_image_size")

    def see(self, pixels: torch.Tensor) -> Seen:
        """See `VideoLM.see`."""
        model = self.network.model
        # What `get_image_features` does, without its search for padding.
        with self.listening() as heard:
            seen = model.vision_model(pixel_values=pixels.to(self.network.dtype)).last_hidden_state
        config = model.config
        patches = config.vision_config.image_size // config.vision_config.patch_size
        side = patches // config.scale_factor
        vectors = {"frame_vector": seen.mean(1)} if "frame_vector" in self.with_cues else {}
        return Seen(
            model.connector(seen).unflatten(1, (side, side)),
            cues={n: mean_of_squares(cue, side, config.scale_factor) for n, cue in heard.items()},
            frame_cues=vectors,
        )

    def layout(self, evidence: Sequence[Step]) -> Iterator[Piece]:
        """See `VideoLM.layout`: each stream as one video of the stock processor."""
        starts = [place for place, step in enumerate(evidence) if place == 0 or step.heading]
        for first, end in pairwise([*starts, len(evidence)]):
            yield from self._video(evidence[first:end])

    def taps(self) -> Taps:
        """See `VideoLM.taps`."""
        tower = self.network.model.vision_model
        return Taps(tower, [layer.self_attn for layer in tower.encoder.layers])

    def _video(self, frames: Sequence[Step]) -> Iterator[Piece]:
        """What stands for the frames of one stream, n ≥ 1."""
        if self.timestamps:
            if frames[0].heading:
                yield Text(f"{frames[0].heading}\n", literal=True)
            length = timedelta(seconds=int(frames[-1].seconds))
            yield Text(
                f"You are provided the following series of {in_words(len(frames))} frames from a "
                f"{length} [H:MM:SS] video.\n"
            )
        for frame in frames:
            if self.timestamps:
                minute, second = divmod(int(frame.seconds), 60)
                yield Text(f"\nFrame from {minute:02}:{second:02}:")
            yield Text("<fake_token_around_image><global-img>")
            yield Slots((frame.tokens,))
            yield Text("<fake_token_around_image>")
        yield Text("\n\n")
