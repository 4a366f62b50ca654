"""What flows through StreamVLM: one frozen dataclass per arrow of the picture in `streamvlm`.

Times are float64 seconds from a stream's first picture. Images are RGB uint8 (H, W, 3).
T time steps, H rows, W columns, N tokens, D features, E key width, K keys.
Importing this module loads neither torch nor numpy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Self

from streamvlm.errors import BadOption

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

LossReason = Literal["gap", "damage", "overload"]
SpanKind = Literal["sampled", "still", "skipped", "gap"]


def _check_shape(name: str, found: Sequence[int], expected: object, *, ok: bool) -> None:
    if not ok:
        raise ValueError(f"{name} must have shape {expected}, found {tuple(found)}")


@dataclass(frozen=True, slots=True)
class Lost:
    """Source time for which there is no picture, right before a frame."""

    seconds: float
    """How much is missing, in seconds of stream time."""
    reason: LossReason
    """`gap`: the source has a hole. `damage`: packets did not decode. `overload`: we skipped."""


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One picture of a stream."""

    stream: str
    """The stream's id: an absolute path or a URL without credentials."""
    index: int
    """Counts the sampled pictures of the stream from 0, before any is dropped."""
    seconds: float
    """Time of the picture from the start of the stream."""
    image: NDArray[np.uint8]
    """(H, W, 3) uint8, RGB, upright."""
    lost: Lost | None = None
    """What is missing right before this picture, if anything is."""

    def __post_init__(self) -> None:
        shape = self.image.shape
        _check_shape("Frame.image", shape, "(H, W, 3)", ok=shape[2:] == (3,))


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """A few seconds of one stream: the unit of encoding, storing and finding."""

    stream: str
    """The stream's id."""
    start: float
    """First second of the clip, inclusive."""
    end: float
    """End of the clip in seconds, exclusive."""
    frames: tuple[Frame, ...]
    """The frames kept in [start, end), at least one, in time order."""

    def __post_init__(self) -> None:
        if not self.frames:
            raise ValueError("a Clip needs at least one frame")
        if not self.start < self.end:
            raise ValueError(f"a Clip must end after it starts, found [{self.start}, {self.end})")


@dataclass(frozen=True, slots=True, eq=False)
class VisualTokens:
    """The visual tokens of one clip, before and after compression.

    Dense (nothing dropped yet) if and only if N = T·H·W; always in time-then-place order.
    """

    model: str
    """Fingerprint of the encoder that made them; forbids mixing embedding spaces."""
    features: torch.Tensor
    """(N, D) floating point, in the language model's input space."""
    position: torch.Tensor
    """(N, 3) int64: step, row, column on the uncompressed grid."""
    seconds: torch.Tensor
    """(N,) float64: stream time of each token's frame."""
    grid: tuple[int, int, int]
    """(T, H, W) of the uncompressed clip."""
    weight: torch.Tensor
    """(N,) float32: how many source tokens each stands for (1 unless merged)."""
    cues: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Per-token side signals {name: (N, …)}, for the compressors that need them."""
    frame_cues: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Per-step side signals {name: (T, …)} of the uncompressed clip."""
    deepstack: torch.Tensor | None = None
    """(N, L, D) extra features of models that feed deeper layers, else None."""
    rank: torch.Tensor | None = None
    """(N,) int64, all different, the most important token first; None if nobody ordered them."""

    def __post_init__(self) -> None:
        n = len(self.features)
        _check_shape("features", self.features.shape, "(N, D)", ok=self.features.ndim == 2)
        for name, expected in (("position", (n, 3)), ("seconds", (n,)), ("weight", (n,))):
            found = getattr(self, name).shape
            _check_shape(name, found, expected, ok=found == expected)
        for cues, length in ((self.cues, n), (self.frame_cues, self.grid[0])):
            for name, cue in cues.items():
                _check_shape(f"cue {name!r}", cue.shape, f"({length}, …)", ok=len(cue) == length)

    def __len__(self) -> int:
        return len(self.features)

    def __repr__(self) -> str:
        return f"VisualTokens({len(self)} of grid {self.grid}, {self.features.dtype}, {self.model})"

    @property
    def is_dense(self) -> bool:
        """True if no token has been dropped or merged yet."""
        steps, rows, columns = self.grid
        return len(self) == steps * rows * columns

    @property
    def flat_index(self) -> torch.Tensor:
        """(N,) int64: each token's place in the uncompressed clip, step-major."""
        _, rows, columns = self.grid
        step, row, column = self.position.unbind(1)
        return (step * rows + row) * columns + column

    def select(self, index: torch.Tensor) -> Self:
        """The tokens at `index`, with every field kept together.

        Args:
            index: (M,) int64, increasing like the tokens' places, or (N,) bool.

        Returns:
            A new object; this one is unchanged.
        """
        fields = ("features", "position", "seconds", "weight", "deepstack", "rank")
        present = {name: getattr(self, name) for name in fields}
        chosen = {name: part[index] for name, part in present.items() if part is not None}
        return replace(self, cues={name: cue[index] for name, cue in self.cues.items()}, **chosen)

    def without_cues(self) -> Self:
        """The same tokens without side signals, as they are stored."""
        return replace(self, cues={}, frame_cues={})


@dataclass(frozen=True, slots=True, eq=False)
class MemoryRecord:
    """One clip as the memory keeps it: how to find it, what to show the model, how to check it."""

    id: str
    """Derived from stream and time, so the same clip has the same id on every run."""
    stream: str
    """The stream's id."""
    start: float
    """First second of the clip, inclusive."""
    end: float
    """End of the clip in seconds, exclusive."""
    keys: NDArray[np.float32]
    """(K, E) float32 unit vectors by which a query finds the clip; K ≥ 1."""
    tokens: VisualTokens
    """The compressed tokens, without cues."""
    frame_seconds: NDArray[np.float64]
    """(T,) float64: stream time of each frame of the clip."""
    frame_hash: NDArray[np.uint64]
    """(T,) uint64: hash of each frame's pixels as decoded, for `verify`."""
    thumbnail: bytes
    """A small JPEG of the clip's middle frame."""
    tier: int = 0
    """How far it was thinned: 0 as stored, 1 fewer tokens, 2 merged, 3 keys and thumbnail only."""


@dataclass(frozen=True, slots=True)
class Query:
    """A question with its limits."""

    text: str
    """The question, in words; may be empty for a search if there is something to be like."""
    streams: tuple[str, ...] = ()
    """Only these streams; empty for all."""
    since: float | None = None
    """Only what was seen from this second of the stream on, and what stood there still."""
    until: float | None = None
    """Only what was seen before this second of the stream."""
    max_records: int = 8
    """Read at most this many records."""
    max_tokens: int = 4096
    """Read at most this many visual tokens."""
    like: tuple[str | NDArray[np.uint8], ...] = field(default=(), compare=False)
    """What it looks like: pictures (files, or (H, W, 3) RGB), and moments such as `a.mp4@00:40`."""

    def __post_init__(self) -> None:
        if not self.text.strip() and not self.like:
            raise BadOption("the question is empty; write what you want to know")
        if self.max_records < 1 or self.max_tokens < 1:
            raise BadOption("max_records and max_tokens must be at least 1")
        if self.until is not None and self.until <= max(self.since or 0.0, 0.0):
            raise BadOption(f"until ({self.until:g} s) must lie after since and after 0")


@dataclass(frozen=True, slots=True, eq=False)
class Evidence:
    """A record that bears on a query."""

    record: MemoryRecord
    """What was found."""
    score: float
    """Similarity to the query, -1 to 1; compare within one query only."""
    pictures: Mapping[float, NDArray[np.uint8]] = field(default_factory=dict)
    """{second: (H, W, 3) uint8 RGB}, decoded anew for an answerer that looks; else empty."""


@dataclass(frozen=True, slots=True)
class Word:
    """A piece of an answer as it is spoken."""

    text: str
    """What to print, with its own leading space."""
    probability: float
    """What the model gave this piece, 0 to 1; NaN if it does not tell."""

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch [start, end) of stream time, in seconds, and how it was watched."""

    start: float
    end: float
    kind: SpanKind
    """`sampled`, `still` (nothing new), `skipped` (overload) or `gap` (no picture)."""
    reason: str = ""
    """Why there is no picture; empty otherwise."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """What of a stream was watched: spans that follow one another without hole or overlap."""

    stream: str
    """The stream's id."""
    spans: tuple[Span, ...]
    """In time order, from 0 to `seconds`."""

    @property
    def seconds(self) -> float:
        """The whole time in seconds; the shares of all kinds sum to it."""
        return self.spans[-1].end if self.spans else 0.0

    def share(self, kind: SpanKind) -> float:
        """The part of the whole time that is of this kind, 0 to 1."""
        total = sum(span.end - span.start for span in self.spans if span.kind == kind)
        return total / self.seconds if self.spans else 0.0


@dataclass(frozen=True, slots=True)
class Usage:
    """What an operation cost."""

    frames_decoded: int = 0
    """Pictures sampled from the sources."""
    frames_kept: int = 0
    """Of those, the ones that showed something new."""
    tokens_stored: int = 0
    """Visual tokens written to the memory."""
    tokens_read: int = 0
    """Visual tokens given to the language model."""
    milliseconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time per stage."""
    looked_at: Mapping[str, int] = field(default_factory=dict)
    """{`records`, `tokens`} that the model looked at one by one, to rank them; else empty."""


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What was answered, on what evidence, having watched how much."""

    query: Query
    text: str
    confidence: float
    """Geometric mean of the probabilities of the answer's pieces, 0 to 1; NaN if not told."""
    evidence: tuple[Evidence, ...]
    """In time order."""
    coverage: tuple[Coverage, ...]
    """One per stream that the query could reach."""
    usage: Usage

    def __str__(self) -> str:
        return self.text
