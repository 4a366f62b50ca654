"""What plugs in: nine small protocols, with nothing to inherit from.

Importing this module loads neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

from streamvlm.reduction import Plan, Signal, VisualRows
from streamvlm.types import Clip, Evidence, Frame, Query, VisualTokens, Word

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray


@runtime_checkable
class Source(Protocol):
    """A file or a camera. Iterating decodes."""

    @property
    def stream(self) -> str:
        """The stream's id: an absolute path or a URL without credentials."""

    @property
    def live(self) -> bool:
        """True if the source never ends by itself and cannot be read again."""

    @property
    def duration(self) -> float | None:
        """Seconds the source promises from its first picture on; None for a live one."""

    def __iter__(self) -> Iterator[Frame]:
        """Decode, in time order."""


@runtime_checkable
class FrameFilter(Protocol):
    """Drops frames that show nothing new; keeps order; never looks ahead."""

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Yield the frames worth keeping; the first one always is."""


@runtime_checkable
class Clipper(Protocol):
    """Groups the frames of one stream into clips, in order."""

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Clip]:
        """Yield each clip as soon as it is complete, the last one when the frames end."""


@runtime_checkable
class Encoder(Protocol):
    """The eye of a video-LLM; knows no other clip."""

    cues: ClassVar[frozenset[str]]
    """The side signals it can give beside the features."""

    @property
    def model(self) -> str:
        """Fingerprint of weights and preprocessing: equal means tokens are interchangeable."""

    def encode(self, clip: Clip) -> VisualTokens:
        """Turn one clip into dense tokens."""


@runtime_checkable
class Compressor(Protocol):
    """A pure function of one clip's tokens.

    A progressive compressor also reads the compressed tokens of the clip before, as it gave them:
    what it has to remember of its stream it adds to their `frame_cues`, which are never stored. One
    that leaves out what the clip before has sent says `chained = True`: then the two are read
    together.
    """

    needs: ClassVar[frozenset[str]]
    """The cues it reads; must be among those its encoder gives."""

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        """Give fewer tokens."""


@runtime_checkable
class Reducer(Protocol):
    """Drops or merges visual tokens inside a language model, while it reads a prompt."""

    wants: ClassVar[Signal]
    """The attention it decides by."""

    def layers(self, depth: int, lowest: int) -> tuple[int, ...]:
        """Before which layers of a model it is asked, increasing.

        Args:
            depth: how many layers the model has.
            lowest: the first layer at which rows may leave; layers that nobody chose start there.
        """

    def plan(self, rows: VisualRows, signal: torch.Tensor | None) -> Plan:
        """Decide at one layer: a pure function.

        Args:
            rows: V ≥ 1 visual rows about to enter the layer.
            signal: (V,) float32, what it `wants`; None for `none`, or with no layer below.
        """


@runtime_checkable
class Embedder(Protocol):
    """One space where near means alike."""

    @property
    def model(self) -> str:
        """Fingerprint of weights and preprocessing."""

    @property
    def width(self) -> int:
        """E, the length of a key."""

    def embed_clip(self, clip: Clip) -> NDArray[np.float32]:
        """(K, E) unit vectors by which the clip can be found, one for each frame."""

    def embed_text(self, text: str) -> NDArray[np.float32]:
        """(E,) unit vector of a question or description."""


@runtime_checkable
class Answerer(Protocol):
    """Reads evidence in time order and speaks piece by piece."""

    def answer(self, query: Query, evidence: Sequence[Evidence]) -> Iterator[Word]:
        """Answer from the evidence; the first piece comes before the last is known."""


@runtime_checkable
class Onlooker(Answerer, Protocol):
    """An answerer that looks at pictures of the evidence, which are decoded anew for it."""

    @property
    def num_pictures(self) -> int:
        """At most so many for a question; 0 if it reads the stored tokens after all."""

    @property
    def max_side(self) -> int:
        """Longest side of a picture in pixels."""
