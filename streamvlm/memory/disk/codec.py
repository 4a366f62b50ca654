"""The bytes of one record in a shard; knows nothing of files.

    head     64 bytes: magic, version, numbers and width of keys, length of the body, checksums
    keys     first the k that are indexed, as (k, E) float16, readable without what follows; then
             the others, as (K - k, E) int8 and (K - k,) float16 scales
    body     one safetensors blob: tokens, times, frame hashes, thumbnail, and in its metadata
             everything else, so that a lost catalogue can be made again from shards alone
    padding  zeros to a multiple of 64, so that a scan can find the next head after damage

The same record gives the same bytes on every run: metadata is one sorted JSON text and the
tensors are ordered by width and name. Checksums are XXH3 (Collet 2019), which costs a record
a thirtieth of what crc32 does.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64
from xxhash import xxh3_64_intdigest as checksum

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.disk import body as bodies
from streamvlm.memory.disk.blob import Pieces, size
from streamvlm.memory.disk.keys import PackedKeys, as_stored, pack_keys, unpack_others
from streamvlm.types import MemoryRecord

HEAD_BYTES = 64
"""Length of a head, and what every packed record's length is a multiple of."""
MAGIC = b"SVMRECRD"
"""What every head begins with."""

_VERSION = 2
# magic, version, whether an anchor, all keys, indexed keys, key width, body bytes; then checksums
# of indexed keys, other keys, body, head
_HEAD = struct.Struct("<8sHHIIIQQQQQ")
_SUM_BYTES = 8
_KEY_BYTES = 2
_SCALE_BYTES = 2


class DamagedRecord(MemoryStoreError):
    """What was read of a record is not what was written."""


class GoneRecord(MemoryStoreError):
    """There is no record of that id, or no longer: forgotten, or merged with its neighbours."""


class Head(NamedTuple):
    """How a packed record is laid out and what its parts must sum to."""

    is_anchor: int
    """1 or 0, see `novelty`."""
    num_keys: int
    """K, all keys."""
    num_indexed: int
    """k, those that are indexed."""
    key_width: int
    body_bytes: int
    indexed_sum: int
    other_sum: int
    body_sum: int

    @property
    def indexed_end(self) -> int:
        """Where the indexed keys end, in bytes from the head."""
        return HEAD_BYTES + self.num_indexed * self.key_width * _KEY_BYTES

    @property
    def keys_end(self) -> int:
        """Where all keys end and the body begins."""
        others = self.num_keys - self.num_indexed
        return self.indexed_end + others * (self.key_width + _SCALE_BYTES)

    @property
    def packed_bytes(self) -> int:
        """Length of the whole record with its padding."""
        length = self.keys_end + self.body_bytes
        return length + -length % HEAD_BYTES

    @classmethod
    def parse(cls, blob: bytes | memoryview, name: str) -> Self:
        """Read the head of a packed record.

        Args:
            blob: at least the first 64 bytes.
            name: the record's id, for messages.

        Raises:
            DamagedRecord: this is not an intact head.
            MemoryStoreError: another version wrote it.
        """
        if len(blob) < HEAD_BYTES:
            raise DamagedRecord(_damage(name, "its head"))
        magic, version, is_anchor, *sizes, own_sum = _HEAD.unpack_from(blob)
        if magic != MAGIC or checksum(blob[: HEAD_BYTES - _SUM_BYTES]) != own_sum:
            raise DamagedRecord(_damage(name, "its head"))
        if version != _VERSION:
            remedy = "upgrade streamvlm" if version > _VERSION else "ingest its stream again"
            raise MemoryStoreError(
                f"record {name} has version {version}, this StreamVLM reads {_VERSION}; {remedy}"
            )
        return cls(is_anchor, *sizes)


def keys_bytes(num_keys: int, num_indexed: int, key_width: int) -> int:
    """Length of a record's head and all its keys: what must be read to compare them."""
    return Head(0, num_keys, num_indexed, key_width, 0, 0, 0, 0).keys_end


def indexed_bytes(num_indexed: int, key_width: int) -> int:
    """Length of a record's head and its indexed keys."""
    return Head(0, num_indexed, num_indexed, key_width, 0, 0, 0, 0).indexed_end


def _damage(name: str, part: str) -> str:
    return (
        f"record {name} is damaged ({part} is not what was written); the others are not affected: "
        "forget its stream and ingest it again"
    )


def pack(
    record: MemoryRecord,
    payload: str,
    indexed: NDArray[np.bool_] | None = None,
    *,
    is_anchor: bool = False,
) -> bytes:
    """Turn a record into bytes; see `pack_keys` and `assemble`, which are its two halves.

    Args:
        record: what to write; cues of its tokens are not kept.
        payload: the codec of the features, see `quant.PAYLOADS`.
        indexed: (K,) which keys the index gets; None for all.
        is_anchor: whether what follows is compared with nothing before it, see `novelty`.

    Returns:
        A multiple of 64 bytes; the same for the same record, always.

    Raises:
        MemoryStoreError: the keys are not unit vectors, or the features cannot be written.
    """
    (keys,) = as_stored([record])
    if indexed is None:
        indexed = np.ones(len(keys), bool)
    return b"".join(assemble(record, payload, pack_keys(keys, indexed), is_anchor=is_anchor))


def assemble(record: MemoryRecord, payload: str, keys: PackedKeys, *, is_anchor: bool) -> Pieces:
    """A record as pieces that follow one another, as `pack` joins them.

    Args:
        record: what to write.
        payload: the codec of the features.
        keys: the record's own.
        is_anchor: see `pack`.

    Returns:
        Pieces, of which some are the memory of the record itself: to be written before it changes.

    Raises:
        MemoryStoreError: the features cannot be written.
    """
    body = bodies.pack(record, payload, keys.order)
    sums = (checksum(keys.first), checksum(keys.others), _checksum(body))
    counts = (keys.num_keys, keys.num_indexed, keys.width)
    head = _HEAD.pack(MAGIC, _VERSION, int(is_anchor), *counts, size(body), *sums, 0)
    own_sum: int = checksum(head[:-_SUM_BYTES])
    begin = head[:-_SUM_BYTES] + own_sum.to_bytes(_SUM_BYTES, "little") + keys.first + keys.others
    pieces = [begin, *body]
    return [*pieces, bytes(-size(pieces) % HEAD_BYTES)]


def _checksum(pieces: Pieces) -> int:
    digest = xxh3_64()
    for piece in pieces:
        digest.update(piece)
    found: int = digest.intdigest()
    return found


def unpack_indexed(blob: bytes | memoryview, name: str) -> NDArray[np.float16]:
    """Read the indexed keys from a packed record's beginning.

    Args:
        blob: at least head and indexed keys.
        name: the record's id, for messages.

    Returns:
        (k, E) float16.

    Raises:
        DamagedRecord: head or keys are not what was written.
    """
    return _indexed(Head.parse(blob, name), blob, name)


def unpack_keys(blob: bytes | memoryview, name: str) -> NDArray[np.float32]:
    """Read all keys from a packed record's beginning, the indexed ones first.

    Args:
        blob: at least head and keys.
        name: the record's id, for messages.

    Returns:
        (K, E) float32, of unit length up to rounding.

    Raises:
        DamagedRecord: head or keys are not what was written.
    """
    return _keys(Head.parse(blob, name), blob, name)


def _indexed(head: Head, blob: bytes | memoryview, name: str) -> NDArray[np.float16]:
    part = memoryview(blob)[HEAD_BYTES : head.indexed_end]
    if len(blob) < head.indexed_end or checksum(part) != head.indexed_sum:
        raise DamagedRecord(_damage(name, "a key"))
    return np.frombuffer(part, dtype="<f2").reshape(head.num_indexed, head.key_width)


def _keys(head: Head, blob: bytes | memoryview, name: str) -> NDArray[np.float32]:
    first = _indexed(head, blob, name).astype(np.float32)
    if head.num_keys == head.num_indexed:
        return first
    part = memoryview(blob)[head.indexed_end : head.keys_end]
    if len(blob) < head.keys_end or checksum(part) != head.other_sum:
        raise DamagedRecord(_damage(name, "a key"))
    others = unpack_others(part, head.num_keys - head.num_indexed, head.key_width)
    return np.concatenate([first, others])


class Stored(NamedTuple):
    """A record as it came back from a shard."""

    record: MemoryRecord
    """Exact but for keys (float16, or int8 if not indexed) and, with `int8`, features."""
    indexed: NDArray[np.bool_]
    """(K,) which of its keys the index has."""


def unpack(blob: bytes | memoryview, name: str) -> MemoryRecord:
    """Turn bytes back into the record; see `unpack_stored`."""
    return unpack_stored(blob, name).record


def unpack_stored(blob: bytes | memoryview, name: str) -> Stored:
    """Turn bytes back into the record, and into what the index has of it.

    Args:
        blob: a whole packed record; the record shares its memory if that may be written.
        name: the id it must have.

    Raises:
        DamagedRecord: a part is not what was written, or it is another record.
    """
    head = Head.parse(blob, name)
    keys = _keys(head, blob, name)
    body = memoryview(blob)[head.keys_end : head.keys_end + head.body_bytes]
    if len(body) != head.body_bytes or checksum(body) != head.body_sum:
        raise DamagedRecord(_damage(name, "its body"))
    try:
        record, order = bodies.unpack(body, keys)
    except ValueError as error:
        raise DamagedRecord(_damage(name, "its body")) from error
    if record.id != name:
        raise DamagedRecord(f"{_damage(name, 'its id')} (found record {record.id} in its place)")
    indexed = np.zeros(len(order), bool)
    indexed[order[: head.num_indexed]] = True
    return Stored(record, indexed)
