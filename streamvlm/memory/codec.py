"""The bytes of one record in a shard; knows nothing of files.

    head     64 bytes: magic, version, number and width of keys, length of the body, three crc32
    keys     (K, E) float16, row by row: what the index is made from, readable without the body
    body     one safetensors blob: tokens, times, frame hashes, thumbnail, and in its metadata
             everything else, so that a lost catalogue can be made again from shards alone
    padding  zeros to a multiple of 64, so that a scan can find the next head after damage

The same record gives the same bytes on every run: metadata is one sorted JSON text and the
tensors are ordered by safetensors itself.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load, save

from streamvlm.errors import MemoryStoreError
from streamvlm.memory import quant
from streamvlm.types import MemoryRecord, VisualTokens

HEAD_BYTES = 64
"""Length of a head, and what every packed record's length is a multiple of."""

_MAGIC = b"SVMRECRD"
_VERSION = 1
# magic, version, flags, keys, key width, body bytes, crc of keys, crc of body, zeros, crc of head
_HEAD = struct.Struct("<8sHHIIQII24xI")
_KEY_BYTES = 2
# Rounding to float16 alone changes a length by up to 0.0005.
_UNIT = 0.002


class DamagedRecord(MemoryStoreError):
    """What was read of a record is not what was written."""


class Head(NamedTuple):
    """How a packed record is laid out and what its parts must sum to."""

    num_keys: int
    key_width: int
    body_bytes: int
    keys_crc: int
    body_crc: int

    @property
    def keys_end(self) -> int:
        """Where the keys end and the body begins, in bytes from the head."""
        return HEAD_BYTES + self.num_keys * self.key_width * _KEY_BYTES

    @classmethod
    def parse(cls, blob: bytes, name: str) -> Self:
        """Read the head of a packed record.

        Args:
            blob: at least the first 64 bytes.
            name: the record's id, for messages.

        Raises:
            DamagedRecord: this is not an intact head.
            MemoryStoreError: a newer version wrote it.
        """
        if (
            len(blob) < HEAD_BYTES
            or zlib.crc32(blob[: HEAD_BYTES - 4]) != _HEAD.unpack(blob[:HEAD_BYTES])[-1]
        ):
            raise DamagedRecord(_damage(name, "its head"))
        magic, version, _flags, *sizes, _crc = _HEAD.unpack(blob[:HEAD_BYTES])
        if magic != _MAGIC:
            raise DamagedRecord(_damage(name, "its head"))
        if version > _VERSION:
            raise MemoryStoreError(
                f"record {name} has version {version}, this StreamVLM reads up to {_VERSION}; "
                "upgrade streamvlm"
            )
        return cls(*sizes)


def _damage(name: str, part: str) -> str:
    return (
        f"record {name} is damaged ({part} is not what was written); the others are not affected: "
        "forget its stream and ingest it again"
    )


def pack(record: MemoryRecord, payload: str) -> bytes:
    """Turn a record into bytes.

    Args:
        record: what to write; cues of its tokens are not kept.
        payload: the codec of the features, see `quant.PAYLOADS`.

    Returns:
        A multiple of 64 bytes; the same for the same record, always.

    Raises:
        MemoryStoreError: the keys are not unit vectors, or the features cannot be written.
    """
    keys = np.ascontiguousarray(record.keys, dtype="<f2")
    lengths = np.linalg.norm(keys.astype(np.float32), axis=-1)
    if keys.ndim != 2 or not len(keys) or not (np.abs(lengths - 1) < _UNIT).all():
        raise MemoryStoreError(
            f"record {record.id}: keys must be (K, E) unit vectors with K ≥ 1, found shape "
            f"{record.keys.shape} and lengths {np.array2string(lengths, threshold=4)}; check the "
            "embedder"
        )
    key_bytes = keys.tobytes()
    body = _pack_body(record, payload)
    head = _HEAD.pack(
        _MAGIC, _VERSION, 0, *keys.shape, len(body), zlib.crc32(key_bytes), zlib.crc32(body), 0
    )
    head = head[:-4] + struct.pack("<I", zlib.crc32(head[:-4]))
    packed = head + key_bytes + body
    return packed + bytes(-len(packed) % HEAD_BYTES)


def unpack_keys(blob: bytes, name: str) -> NDArray[np.float16]:
    """Read the keys from a packed record's beginning.

    Args:
        blob: at least head and keys.
        name: the record's id, for messages.

    Returns:
        (K, E) float16.

    Raises:
        DamagedRecord: head or keys are not what was written.
    """
    head = Head.parse(blob, name)
    key_bytes = blob[HEAD_BYTES : head.keys_end]
    if len(blob) < head.keys_end or zlib.crc32(key_bytes) != head.keys_crc:
        raise DamagedRecord(_damage(name, "a key"))
    return np.frombuffer(key_bytes, dtype="<f2").reshape(head.num_keys, head.key_width)


def unpack(blob: bytes, name: str) -> MemoryRecord:
    """Turn bytes back into the record.

    Args:
        blob: a whole packed record.
        name: the id it must have.

    Returns:
        The record: exact but for keys (rounded to float16) and, with the payload `int8`, features.

    Raises:
        DamagedRecord: a part is not what was written, or it is another record.
    """
    head = Head.parse(blob, name)
    keys = unpack_keys(blob, name)
    body = blob[head.keys_end : head.keys_end + head.body_bytes]
    if len(body) != head.body_bytes or zlib.crc32(body) != head.body_crc:
        raise DamagedRecord(_damage(name, "its body"))
    record = _unpack_body(body, keys.astype(np.float32), name)
    if record.id != name:
        raise DamagedRecord(f"{_damage(name, 'its id')} (found record {record.id} in its place)")
    return record


def _pack_body(record: MemoryRecord, payload: str) -> bytes:
    tokens = record.tokens
    parts = {
        "position": _narrow(tokens.position),
        "seconds": tokens.seconds.to(torch.float64),
        "weight": tokens.weight.to(torch.float32),
        "frame_seconds": torch.from_numpy(np.array(record.frame_seconds, dtype=np.float64)),
        "frame_hash": torch.from_numpy(np.array(record.frame_hash, dtype=np.uint64)),
        "thumbnail": torch.from_numpy(np.frombuffer(record.thumbnail, np.uint8).copy()),
    }
    for field in ("features", "deepstack"):
        if (tensor := getattr(tokens, field)) is not None:
            encoded = quant.encode(payload, tensor)
            parts |= {f"{field}.{part}": value for part, value in encoded.items()}
    if tokens.rank is not None:
        parts["rank"] = tokens.rank.to(torch.int32)
    about = {
        "id": record.id,
        "stream": record.stream,
        "start": record.start,
        "end": record.end,
        "model": tokens.model,
        "grid": list(tokens.grid),
        "dtype": str(tokens.features.dtype).removeprefix("torch."),
        "payload": payload,
    }
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in parts.items()}
    blob: bytes = save(contiguous, {"record": json.dumps(about, sort_keys=True)})
    return blob


def _narrow(position: torch.Tensor) -> torch.Tensor:
    """Positions as int16 if they fit, which they do up to 32,767 steps, rows or columns."""
    fits = len(position) == 0 or int(position.abs().max()) <= torch.iinfo(torch.int16).max
    return position.to(torch.int16 if fits else torch.int64)


def _unpack_body(body: bytes, keys: NDArray[np.float32], name: str) -> MemoryRecord:
    try:
        parts: dict[str, torch.Tensor] = load(body)
        header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
        about: dict[str, Any] = json.loads(header["__metadata__"]["record"])
    except (SafetensorError, ValueError, KeyError) as error:
        raise DamagedRecord(_damage(name, "its body")) from error

    def feature(field: str) -> torch.Tensor | None:
        prefix = f"{field}."
        own = {part[len(prefix) :]: parts[part] for part in parts if part.startswith(prefix)}
        dtype = getattr(torch, about["dtype"])
        return quant.decode(about["payload"], own, dtype) if own else None

    features = feature("features")
    assert features is not None
    steps, rows, columns = about["grid"]
    tokens = VisualTokens(
        model=about["model"],
        features=features,
        position=parts["position"].to(torch.int64),
        seconds=parts["seconds"],
        grid=(steps, rows, columns),
        weight=parts["weight"],
        deepstack=feature("deepstack"),
        rank=parts["rank"].to(torch.int64) if "rank" in parts else None,
    )
    return MemoryRecord(
        id=about["id"],
        stream=about["stream"],
        start=about["start"],
        end=about["end"],
        keys=keys,
        tokens=tokens,
        frame_seconds=parts["frame_seconds"].numpy(),
        frame_hash=parts["frame_hash"].numpy(),
        thumbnail=parts["thumbnail"].numpy().tobytes(),
    )
