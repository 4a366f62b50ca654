"""The options that all video-LLM families share."""

# No `from __future__ import annotations` here: annotations that are strings would be looked up in
# the module of the subclass that inherits them.

from dataclasses import dataclass
from typing import Any, ClassVar

from streamvlm.models._loading import Attention, Quantisation
from streamvlm.models._places import Positions
from streamvlm.weights import Precision


@dataclass(eq=False, kw_only=True)
class Options:
    """How a family is to run; its fields are what may be written in a configuration.

    Raises:
        ValueError: an option is out of range.
    """

    weights: str
    """A folder, or a Hugging Face name."""
    device: str = "cpu"
    """Where to run: cpu, cuda, cuda:1, …"""
    dtype: Precision = "float32"
    """The precision to run in."""
    attention: Attention = "sdpa"
    """The attention kernel; cues are read from sdpa only."""
    quantisation: Quantisation = ""
    """How to round the language model's weights; empty for not at all. The eye is never rounded."""
    download: bool = False
    """Whether weights given by name may be fetched from Hugging Face."""
    batch: int = 8
    """Frames a forward pass of the eye; a shorter rest is filled up."""
    max_new_tokens: int = 64
    """Longest answer."""
    temperature: float = 0.0
    """0 takes the likeliest word; above 0 draws with a fixed seed."""
    stop: tuple[str, ...] = ()
    """Words that end an answer; they are not said."""
    positions: Positions = "full"
    """`full`: tokens keep their places, whatever was dropped; `compact`: numbered like words."""
    timestamps: bool = True
    """Write times into the prompt, in the family's own way."""
    with_cues: tuple[str, ...] = ()
    """The cues to compute."""

    cues: ClassVar[frozenset[str]] = frozenset()
    """The side signals that the family can give beside the features."""
    axes: ClassVar[int] = 1
    """A, the axes of its language model's rotary embedding: 1, or 3 for time, row and column."""

    def __post_init__(self) -> None:
        self.stop, self.with_cues = _words("stop", self.stop), _words("with_cues", self.with_cues)
        if self.batch < 1 or self.max_new_tokens < 1 or self.temperature < 0:
            raise ValueError("batch and max_new_tokens must be at least 1, temperature at least 0")
        if unknown := set(self.with_cues) - self.cues:
            raise ValueError(f"with_cues may name {sorted(self.cues)}, found {sorted(unknown)}")
        if set(self.with_cues) - {"frame_vector"} and self.attention != "sdpa":
            raise ValueError(
                f"cues are read from sdpa attention only, found {self.attention}; set attention: "
                "sdpa, or use a compressor that needs no cue"
            )
        holes = self.axes == 1 and self.positions == "full"
        if self.attention == "flash_attention_2" and holes:
            raise ValueError(
                "flash_attention_2 reads holes in the positions as the seams of packed texts; set "
                'positions: "compact", or attention: sdpa'
            )


def _words(name: str, value: Any) -> tuple[str, ...]:
    """An option that lists words, which YAML gives as a list."""
    if isinstance(value, str) or not all(isinstance(word, str) and word for word in value):
        raise ValueError(f"{name} must be a list of words, found {value!r}")
    return tuple(value)
