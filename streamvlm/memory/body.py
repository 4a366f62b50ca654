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
from safetensors import SafetensorError
from safetensors.torch import load, save

from streamvlm.memory import quant
from streamvlm.types import MemoryRecord, VisualTokens


def pack(record: MemoryRecord, payload: str, key_order: NDArray[np.int64]) -> bytes:
    """Turn everything but the keys into bytes.

    Args:
        record: what to write.
        payload: the codec of the features, see `quant.PAYLOADS`.
        key_order: (K,) which key of the record each one written is.
    """
    tokens = record.tokens
    parts = {
        **_where_and_when(tokens),
        "frame_seconds": torch.from_numpy(np.array(record.frame_seconds, dtype=np.float64)),
        "frame_hash": torch.from_numpy(np.array(record.frame_hash, dtype=np.uint64)),
        "thumbnail": torch.from_numpy(np.frombuffer(record.thumbnail, np.uint8).copy()),
    }
    for field in ("features", "deepstack"):
        if (tensor := getattr(tokens, field)) is not None:
            encoded = quant.encode(payload, tensor)
            parts |= {f"{field}.{part}": value for part, value in encoded.items()}
    if not bool((tokens.weight == 1).all()):
        parts["weight"] = tokens.weight.to(torch.float32)
    if tokens.rank is not None:
        parts["rank"] = _narrow(tokens.rank)
    if (np.diff(key_order) != 1).any():
        parts["key_order"] = _narrow(torch.from_numpy(key_order))
    about = {
        "id": record.id,
        "stream": record.stream,
        "start": record.start,
        "end": record.end,
        "tier": record.tier,
        "model": tokens.model,
        "grid": list(tokens.grid),
        "dtype": str(tokens.features.dtype).removeprefix("torch."),
        "payload": payload,
    }
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in parts.items()}
    blob: bytes = save(contiguous, {"record": json.dumps(about, sort_keys=True)})
    return blob


def _where_and_when(tokens: VisualTokens) -> dict[str, torch.Tensor]:
    steps, rows, columns = tokens.grid
    step = tokens.position[:, 0]
    parts = {"place": _narrow(tokens.flat_index), "position": tokens.position}
    inside = tokens.position < torch.tensor([max(steps, 1), rows, columns])
    del parts["position" if bool((inside & (tokens.position >= 0)).all()) else "place"]
    table = torch.zeros(max(steps, 1), dtype=torch.float64)
    if "place" in parts:
        table[step] = tokens.seconds.to(torch.float64)
        if torch.equal(table[step], tokens.seconds):
            return {**parts, "step_seconds": table}
    return {**parts, "seconds": tokens.seconds.to(torch.float64)}


def _narrow(numbers: torch.Tensor) -> torch.Tensor:
    """As int16 if all fit, else as int64."""
    fits = len(numbers) == 0 or int(numbers.abs().max()) <= torch.iinfo(torch.int16).max
    return numbers.to(torch.int16 if fits else torch.int64)


def about(body: bytes) -> dict[str, Any]:
    """What a body says of its record: id, stream, start, end, tier, …

    Raises:
        ValueError: it is not what `pack` wrote.
    """
    try:
        header = json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])
        found: dict[str, Any] = json.loads(header["__metadata__"]["record"])
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError("no record") from error
    return found


def unpack(body: bytes, keys: NDArray[np.float32]) -> tuple[MemoryRecord, NDArray[np.int64]]:
    """Turn a body back into the record.

    Args:
        body: what `pack` gave.
        keys: (K, E) in the order in which they were written.

    Returns:
        The record with its keys in their own order, and the `key_order` that was given.

    Raises:
        ValueError: it is not what `pack` wrote.
    """
    known = about(body)
    try:
        parts: dict[str, torch.Tensor] = load(body)
    except SafetensorError as error:
        raise ValueError("no tensors") from error
    order = np.arange(len(keys))
    if "key_order" in parts:
        order = parts["key_order"].to(torch.int64).numpy()
        keys = keys[np.argsort(order)]
    record = MemoryRecord(
        id=known["id"],
        stream=known["stream"],
        start=known["start"],
        end=known["end"],
        keys=keys,
        tokens=_tokens(parts, known),
        frame_seconds=parts["frame_seconds"].numpy(),
        frame_hash=parts["frame_hash"].numpy(),
        thumbnail=parts["thumbnail"].numpy().tobytes(),
        tier=known["tier"],
    )
    return record, order


def _tokens(parts: dict[str, torch.Tensor], known: dict[str, Any]) -> VisualTokens:
    def feature(field: str) -> torch.Tensor | None:
        prefix = f"{field}."
        own = {part[len(prefix) :]: parts[part] for part in parts if part.startswith(prefix)}
        return quant.decode(known["payload"], own, getattr(torch, known["dtype"])) if own else None

    features = feature("features")
    if features is None:
        raise ValueError("no features")
    steps, rows, columns = known["grid"]
    if "place" in parts:
        place = parts["place"].to(torch.int64)
        split = (place // (rows * columns), place // columns % rows, place % columns)
        position = torch.stack(split, dim=1)
    else:
        position = parts["position"]
    seconds = parts["step_seconds"][position[:, 0]] if "step_seconds" in parts else parts["seconds"]
    ones = torch.ones(len(features), dtype=torch.float32)
    return VisualTokens(
        model=known["model"],
        features=features,
        position=position,
        seconds=seconds,
        grid=(steps, rows, columns),
        weight=parts.get("weight", ones),
        deepstack=feature("deepstack"),
        rank=parts["rank"].to(torch.int64) if "rank" in parts else None,
    )
