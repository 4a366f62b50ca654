"""Named arrays and one text as a safetensors blob, written and read without copying the arrays.

The format is that of the `safetensors` library, which can read every blob: the length of a JSON
head, the head, the arrays. For a record of a few hundred kilobytes the library's own way, through
several copies and a pointer for each tensor, takes longer than the disk does.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = torch.Tensor | NDArray[Any]
"""What can be written."""
Pieces = list[bytes | memoryview]
"""Bytes that follow one another."""

_TYPES = {
    "U8": torch.uint8,
    "I8": torch.int8,
    "I16": torch.int16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "I64": torch.int64,
    "U64": torch.uint64,
}
_NAMES: dict[Any, str] = {
    **{kind: name for name, kind in _TYPES.items()},
    **{torch.empty(0, dtype=kind).numpy().dtype: n for n, kind in _TYPES.items() if n != "BF16"},
}
_TEXT = "record"
_ALIGNED = 8


def save(arrays: Mapping[str, Array], text: str) -> Pieces:
    """Turn arrays and a text into a blob; the same for the same content.

    Args:
        arrays: on the CPU, and contiguous; what is given back still shares their memory.
        text: read back without the arrays by `text`.
    """
    # Wide numbers first, so that each array begins at a multiple of its own width.
    order = sorted((-array.itemsize, name) for name, array in arrays.items())
    entries = [f'"__metadata__":{{"{_TEXT}":{json.dumps(text)}}}']
    pieces: Pieces = []
    end = 0
    for _, name in order:
        array = arrays[name]
        piece = _as_bytes(array)
        begin, end = end, end + len(piece)
        shape = ",".join(map(str, array.shape))
        kind = _NAMES[array.dtype]
        entries.append(
            f'"{name}":{{"dtype":"{kind}","shape":[{shape}],"data_offsets":[{begin},{end}]}}'
        )
        pieces.append(piece)
    head = f"{{{','.join(entries)}}}".encode()
    head += b" " * (-len(head) % _ALIGNED)
    return [len(head).to_bytes(8, "little"), head, *pieces]


def _as_bytes(array: Array) -> memoryview:
    if isinstance(array, torch.Tensor):
        array = array.view(-1).view(torch.uint8).numpy()
    return array.reshape(-1).view(np.uint8).data


def size(pieces: Sequence[bytes | memoryview]) -> int:
    """How many bytes they are together."""
    return sum(map(len, pieces))


def text(blob: bytes) -> str:
    """The text of a blob.

    Raises:
        ValueError: `save` did not write it.
    """
    found: str = _head(blob)[0]["__metadata__"][_TEXT]
    return found


def load(blob: bytearray) -> tuple[dict[str, torch.Tensor], str]:
    """Turn a blob back into arrays and text.

    Args:
        blob: what `save` gave; the arrays share its memory.

    Raises:
        ValueError: `save` did not write it.
    """
    head, begin = _head(blob)
    written = head.pop("__metadata__")[_TEXT]
    try:
        return {name: _array(blob, begin, about) for name, about in head.items()}, written
    except (KeyError, TypeError, RuntimeError) as error:
        raise ValueError(f"no arrays: {error}") from error


def _head(blob: bytes | bytearray) -> tuple[dict[str, Any], int]:
    """The JSON head, and where the arrays begin."""
    begin = 8 + int.from_bytes(blob[:8], "little")
    try:
        head: dict[str, Any] = json.loads(blob[8:begin])
        head["__metadata__"][_TEXT]
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"no head: {error}") from error
    return head, begin


def _array(blob: bytearray, begin: int, about: Mapping[str, Any]) -> torch.Tensor:
    first, last = about["data_offsets"]
    kind, shape = _TYPES[about["dtype"]], about["shape"]
    if first == last:
        return torch.empty(shape, dtype=kind)
    count = (last - first) // kind.itemsize
    return torch.frombuffer(blob, dtype=kind, count=count, offset=begin + first).view(shape)
