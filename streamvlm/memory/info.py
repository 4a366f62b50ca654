"""What a memory tells about itself: whose vectors it holds, which streams, what a search found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.index.novelty import Novelty
from streamvlm.types import Coverage, MemoryRecord

Progress = Callable[[int, int], None]
"""Is told how much of how much is done, in records or bytes."""


def unwatched(done: int, total: int) -> None:
    """A `Progress` that tells nobody."""


def where(stream: str, start: float, end: float) -> str:
    """A stretch of a stream, for messages.

    >>> where("camera", 24.0, 32.5), where("camera", 1234567.0, 1234575.0)
    ('camera, 24–32.5 s', 'camera, 1234567–1234575 s')
    """
    first, last = (f"{seconds:.3f}".rstrip("0").rstrip(".") for seconds in (start, end))
    return f"{stream}, {first}–{last} s"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose vectors a memory holds; vectors of other weights mean nothing beside them."""

    encoder: str
    """Fingerprint of the encoder that made the tokens (`Encoder.model`)."""
    embedder: str
    """Fingerprint of the embedder that made the keys (`Embedder.model`)."""
    key_width: int
    """E, the length of a key."""

    def check(self, record: MemoryRecord) -> None:
        """Refuse a record with vectors of other weights.

        Raises:
            MemoryStoreError: its keys are of another width, or its tokens of another encoder.
        """
        if record.keys.ndim != 2 or record.keys.shape[1] != self.key_width:
            raise MemoryStoreError(
                f"record {record.id}: this memory takes keys (K, {self.key_width}), found "
                f"{record.keys.shape}; use the embedder {self.embedder}"
            )
        if record.tokens.model != self.encoder:
            raise MemoryStoreError(
                f"record {record.id}: this memory takes tokens of {self.encoder!r}, found those "
                f"of {record.tokens.model!r}; ingest into a new memory"
            )


@dataclass(frozen=True, slots=True)
class StreamInfo:
    """What a memory knows about one stream beside its records."""

    stream: str
    """The stream's id."""
    size: int
    """Bytes of the source when it was read; 0 if it has no size."""
    digest: str
    """Fingerprint of the source's content; empty if it cannot be read again."""
    recipe: str
    """How it was read: sampling, dedupe, clips, compressor, as text that can be compared."""
    seconds: float
    """Length of the stream so far, in seconds."""
    coverage: Coverage
    """What of it was watched."""
    complete: bool
    """False while it is being read, or if reading stopped halfway."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A record that a search found."""

    id: str
    """The record's id; give it to `Memory.load`."""
    score: float
    """Cosine between the query and the best of the record's keys, -1 to 1; of several query keys
    the mean, where a key that a record is not among the best for counts with the worst of these."""
    stream: str
    """The record's stream."""
    start: float
    """Its first second."""
    end: float
    """Its end in seconds, exclusive."""


@dataclass(frozen=True, slots=True)
class Holding:
    """How much a memory holds of one stream at one tier of age."""

    stream: str
    tier: int
    """0 as stored, 1 fewer tokens, 2 merged with neighbours, 3 keys and thumbnail only."""
    records: int
    bytes: int
    """Of those records in the shards."""
    keys: int
    indexed_keys: int
    start: float
    """First second."""
    end: float
    """Last second."""


@dataclass(frozen=True, slots=True)
class MemoryInfo:
    """What a memory is and how much it takes; `survey.survey` makes it."""

    path: str
    identity: Identity
    payload: str
    """How features are written."""
    novelty: Novelty
    """Which keys are indexed."""
    streams: tuple[str, ...]
    """Every stream by id, also those without a record."""
    unfinished: tuple[str, ...]
    """Those of them that are being ingested, or whose ingest was interrupted."""
    holdings: tuple[Holding, ...]
    """By stream and tier."""
    records: int
    shards: int
    missing_shards: int
    """Of those, the ones whose file is not there though it should hold records."""
    dead_bytes: int
    """Bytes in shards that belong to no record any more; maintenance gives them back."""
    index_bytes: int
    """Of the index files."""
    backup_bytes: int
    """Of the copies of the catalogue."""
    disk_bytes: int
    """Of all files of the memory."""
    files: int
    """How many files that is."""

    def of(self, stream: str) -> tuple[Holding, ...]:
        """What is held of one stream, by tier."""
        return tuple(holding for holding in self.holdings if holding.stream == stream)
