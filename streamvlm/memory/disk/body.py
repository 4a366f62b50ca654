"""The body of a packed record: one safetensors blob, with all but the tensors as JSON in its head.

What a reader can derive is not written: a time for each step instead of each token, one number for
a place instead of three, weights only if something was merged. At one frame a second of a 7B-class
model this is what keeps an hour below a quarter of a GiB.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from streamvlm.memory.disk import blob, quant
from streamvlm.memory.disk.blob import Array, Pieces
from streamvlm.types import MemoryRecord, VisualTokens

_INT16 = 2**15
_encode = json.JSONEncoder(separators=(",", ":")).encode


def pack(record: MemoryRecord, payload: str, key_order: NDArray[np.int64] | None) -> Pieces:
    """Turn everything but the keys into bytes.

    Args:
        record: what to write.
        payload: the codec of the features, see `quant.PAYLOADS`.
        key_order: (K,) which key of the record each one written is; None if they are in order.

    Returns:
        Pieces that follow one another; they may share the memory of the record.
    """
    tokens = record.tokens
    parts: dict[str, Array] = {
        **_where_and_when(tokens, record.frame_seconds),
        "frame_seconds": np.ascontiguousarray(record.frame_seconds, np.float64),
        "frame_hash": np.ascontiguousarray(record.frame_hash, np.uint64),
        "thumbnail": np.frombuffer(record.thumbnail, np.uint8),
    }
    for field in ("features", "deepstack"):
        if (tensor := getattr(tokens, field)) is not None:
            encoded = quant.encode(payload, tensor)
            parts |= {f"{field}.{part}": value for part, value in encoded.items()}
    weight = _numpy(tokens.weight)
    if not (weight == 1).all():
        parts["weight"] = _whole(weight.astype(np.float32))
    if tokens.rank is not None:
        parts["rank"] = _narrow(_numpy(tokens.rank))
    if key_order is not None:
        parts["key_order"] = _narrow(key_order)
    about = {
        "dtype": str(tokens.features.dtype).removeprefix("torch."),
        "end": record.end,
        "grid": tokens.grid,
        "id": record.id,
        "model": tokens.model,
        "payload": payload,
        "start": record.start,
        "stream": record.stream,
        "tier": record.tier,
    }
    return blob.save(parts, _encode(about))


def _numpy(tensor: torch.Tensor) -> NDArray[Any]:
    array: NDArray[Any] = tensor.numpy(force=True)
    return array


def _where_and_when(
    tokens: VisualTokens, frame_seconds: NDArray[np.float64]
) -> dict[str, NDArray[Any]]:
    steps, rows, columns = tokens.grid
    position = _numpy(tokens.position)
    seconds = _numpy(tokens.seconds).astype(np.float64, copy=False)
    if not ((position >= 0) & (position < (max(steps, 1), rows, columns))).all():
        return {"position": np.ascontiguousarray(position), "seconds": seconds}
    place = position @ np.array((rows * columns, columns, 1))
    place = place.astype(np.int16) if steps * rows * columns <= _INT16 else _narrow(place)
    step = position[:, 0]
    if steps <= len(frame_seconds) and (frame_seconds[step] == seconds).all():
        return {"place": place}
    by_step = _by_step(step, seconds, steps)
    if (by_step[step] == seconds).all():
        return {"place": place, "step_seconds": by_step}
    return {"place": place, "seconds": seconds}


def _by_step(
    step: NDArray[np.int64], seconds: NDArray[np.float64], steps: int
) -> NDArray[np.float64]:
    table = np.zeros(max(steps, 1))
    table[step] = seconds
    return table


def _whole(numbers: NDArray[np.float32]) -> NDArray[Any]:
    """As int16 if that holds them all, as it does how many tokens one stands for."""
    is_small = numbers.min(initial=0) >= 0 and numbers.max(initial=0) < _INT16
    narrow = numbers.astype(np.int16) if is_small else numbers
    return narrow if (narrow == numbers).all() else numbers


def _narrow(numbers: NDArray[np.int64]) -> NDArray[Any]:
    """As int16 if all fit, else as int64."""
    narrow = numbers.astype(np.int16)
    return narrow if (narrow == numbers).all() else numbers.astype(np.int64)


def about(body: bytes | memoryview) -> dict[str, Any]:
    """What a body says of its record: id, stream, start, end, tier, …

    Raises:
        ValueError: it is not what `pack` wrote.
    """
    found: dict[str, Any] = json.loads(blob.text(body))
    return found


def unpack(body: memoryview, keys: NDArray[np.float32]) -> tuple[MemoryRecord, NDArray[np.int64]]:
    """Turn a body back into the record.

    Args:
        body: what `pack` gave; the record shares its memory if that may be written.
        keys: (K, E) in the order in which they were written.

    Returns:
        The record with its keys in their own order, and the `key_order` that was given.

    Raises:
        ValueError: it is not what `pack` wrote.
    """
    parts = blob.Arrays(bytearray(body) if body.readonly else body)
    known = json.loads(parts.text)
    order = np.arange(len(keys))
    if "key_order" in parts.names:
        order = parts.numpy("key_order").astype(np.int64)
        keys = keys[np.argsort(order)]
    record = MemoryRecord(
        id=known["id"],
        stream=known["stream"],
        start=known["start"],
        end=known["end"],
        keys=keys,
        tokens=_tokens(parts, known),
        frame_seconds=parts.numpy("frame_seconds"),
        frame_hash=parts.numpy("frame_hash"),
        thumbnail=parts.numpy("thumbnail").tobytes(),
        tier=known["tier"],
    )
    return record, order


def _tokens(parts: blob.Arrays, known: dict[str, Any]) -> VisualTokens:
    def feature(field: str) -> torch.Tensor | None:
        prefix = f"{field}."
        names = [name for name in parts.names if name.startswith(prefix)]
        own = {name.removeprefix(prefix): parts.tensor(name) for name in names}
        return quant.decode(known["payload"], own, getattr(torch, known["dtype"])) if own else None

    features = feature("features")
    if features is None:
        raise ValueError("no features")
    steps, rows, columns = known["grid"]
    if "place" in parts.names:
        shape = (max(steps, 1), max(rows, 1), max(columns, 1))
        position = np.stack(np.unravel_index(parts.numpy("place"), shape), axis=1)
    else:
        position = parts.numpy("position")
    if "seconds" in parts.names:
        seconds = parts.numpy("seconds")
    else:
        times = "step_seconds" if "step_seconds" in parts.names else "frame_seconds"
        seconds = parts.numpy(times)[position[:, 0]]
    if "weight" in parts.names:
        weight = parts.tensor("weight").to(torch.float32)
    else:
        weight = torch.ones(len(features), dtype=torch.float32)
    return VisualTokens(
        model=known["model"],
        features=features,
        position=torch.from_numpy(position),
        seconds=torch.from_numpy(seconds),
        grid=(steps, rows, columns),
        weight=weight,
        deepstack=feature("deepstack"),
        rank=parts.tensor("rank").to(torch.int64) if "rank" in parts.names else None,
    )
