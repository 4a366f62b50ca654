"""SigLIP and SigLIP 2: a picture and the words for it become neighbours."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.embedders._naflex import patch_batches
from streamvlm.errors import ModelError
from streamvlm.pixels import pixel_batches, read_preprocessing
from streamvlm.types import Clip
from streamvlm.weights import Precision, open_checkpoint


@dataclass(eq=False)
class Siglip:
    """SigLIP (Zhai et al. 2023, arXiv:2303.15343) and SigLIP 2 (2025, arXiv:2502.14786) keys.

    Any Hugging Face checkpoint of `SiglipModel` or, for pictures in their own aspect ratio
    (NaFlex), of `Siglip2Model`. One key for each frame.

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
    network: Any = field(init=False, repr=False)
    """The Hugging Face model itself, for those who measure it."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, found {self.batch}")
        from transformers import Siglip2Model, SiglipModel

        classes = {"siglip": SiglipModel, "siglip2": Siglip2Model}
        found = open_checkpoint(
            self.weights,
            "retriever",
            tuple(classes),
            device=self.device,
            dtype=self.dtype,
            download=self.download,
        )
        self._how = read_preprocessing(found.folder, "image")
        self._tokenizer = found.tokenizer()
        self._lock = threading.Lock()
        self.network = found.load(classes[found.family])
        self._check(found.family)
        self._model = found.fingerprint("siglip", self._how)

    @property
    def model(self) -> str:
        """Fingerprint of weights and preprocessing: equal means keys are comparable."""
        return self._model

    @property
    def width(self) -> int:
        """E, the length of a key."""
        width: int = self.network.config.vision_config.hidden_size
        return width

    def embed_clip(self, clip: Clip) -> NDArray[np.float32]:
        """Keys by which the clip can be found.

        Args:
            clip: T ≥ 1 frames of any size.

        Returns:
            (T, E) float32 unit vectors, one for each frame.
        """
        images = [frame.image for frame in clip.frames]
        keys = [self._see(inputs)[:count] for inputs, count in self._batches(images)]
        return np.concatenate(keys)

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """The key of a question or description; words beyond the model's length are cut off.

        The text is padded to the full length without a mask, as SigLIP was trained: it reads its
        answer off the last place, padding or not.

        Returns:
            (E,) float32 unit vector.
        """
        # A fast tokenizer keeps truncation, padding and the switch for special tokens as state.
        with self._lock:
            words = self._tokenizer(
                text,
                padding="max_length",
                truncation=True,
                max_length=self.network.config.text_config.max_position_embeddings,
                split_special_tokens=True,
                return_tensors="pt",
            )
        return self._read(words["input_ids"])

    def _check(self, family: str) -> None:
        vision = self.network.config.vision_config
        side = getattr(vision, "image_size", None)
        fits = self._how.size == (side, side) if family == "siglip" else self._how.patches
        if not fits:
            wish = f"{side}×{side} pictures" if family == "siglip" else "a max_num_patches"
            raise ModelError(
                f"{self.weights}: the tower needs {wish}, but preprocessor_config.json gives size "
                f"{self._how.size} and max_num_patches {self._how.patches}; correct that file"
            )
        if not vision.vision_use_head:
            raise ModelError(
                f"{self.weights}: the tower has no pooling head, so it makes no keys; "
                "choose a checkpoint trained for retrieval"
            )
        if self._tokenizer.pad_token_id is None:
            raise ModelError(f"{self.weights}: the tokenizer has no padding token; add pad_token")

    def _batches(
        self, images: Sequence[NDArray[np.uint8]]
    ) -> Iterator[tuple[dict[str, torch.Tensor], int]]:
        if self._how.size is None:
            patch = self.network.config.vision_config.patch_size
            yield from patch_batches(images, self._how, patch, self.batch)
            return
        for pixels, count in pixel_batches(images, self._how, self.batch):
            yield {"pixel_values": pixels}, count

    @torch.no_grad()
    def _see(self, inputs: dict[str, torch.Tensor]) -> NDArray[np.float32]:
        moved = {name: value.to(self.network.device) for name, value in inputs.items()}
        return _unit(self.network.get_image_features(**moved).pooler_output)

    @torch.no_grad()
    def _read(self, ids: torch.Tensor) -> NDArray[np.float32]:
        out = self.network.get_text_features(input_ids=ids.to(self.network.device))
        return _unit(out.pooler_output[0])


def _unit(vectors: torch.Tensor) -> NDArray[np.float32]:
    unit: NDArray[np.float32] = torch.nn.functional.normalize(vectors.float(), dim=-1).cpu().numpy()
    return unit
