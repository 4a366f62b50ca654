"""The eye of a video-LLM: from the frames of a clip to dense tokens. A family adds its facts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.models._options import Options
from streamvlm.models._seen import Seen, join
from streamvlm.models._taps import Taps
from streamvlm.pixels import PixelBudget, Preprocessing, pixel_batches, read_preprocessing
from streamvlm.types import Clip, VisualTokens
from streamvlm.weights import enough_memory


class Eye(Options):
    """What looks: the half of a family that encodes. The weights are loaded by the whole."""

    network: Any
    _how: Preprocessing
    _budget: PixelBudget | None
    _taps: Taps | None
    _model: str

    step_frames: ClassVar[int] = 1
    """Frames that become one time step."""

    # What a family says of its eye.

    def see(self, pixels: torch.Tensor) -> Seen:
        """Look at some frames: the tower and the projector.

        Args:
            pixels: (B · step_frames, 3, h, w) float32 on the model's device.

        Returns:
            B time steps, each a pure function of its own frames.
        """
        raise NotImplementedError

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
