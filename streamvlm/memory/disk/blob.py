"""Named arrays and one text as a safetensors blob, written and read without copying the arrays.

The format is that of the `safetensors` library, which can read every blob: the length of a JSON
head, the head, the arrays. For a record of a few hundred kilobytes the library's own way, through
several copies and a pointer for each tensor, takes longer than the disk does.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

Array = torch.Tensor | NDArray[Any]
"""What can be written."""
Pieces = list[bytes | memoryview]
"""Bytes that follow one another."""

_NUMPY: dict[str, np.dtype[Any]] = {
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "I16": np.dtype(np.int16),
    "F16": np.dtype(np.float16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "I64": np.dtype(np.int64),
    "U64": np.dtype(np.uint64),
}
_NAMES: dict[Any, str] = {
    **{kind: name for name, kind in _NUMPY.items()},
    **{torch.from_numpy(np.empty(0, kind)).dtype: name for name, kind in _NUMPY.items()},
    torch.bfloat16: "BF16",
}
_READ_AS = {**_NUMPY, "BF16": np.dtype(np.int16)}
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


def text(blob: bytes | memoryview) -> str:
    """The text of a blob.

    Raises:
        ValueError: `save` did not write it.
    """
    found: str = _head(blob)[0]["__metadata__"][_TEXT]
    return found


class Arrays:
    """Named arrays that share the memory of a blob.

    Args:
        blob: what `save` gave, in memory that may be written.

    Raises:
        ValueError: `save` did not write it.
    """

    def __init__(self, blob: bytearray | memoryview) -> None:
        self._about, begin = _head(blob)
        self.text: str = self._about.pop("__metadata__")[_TEXT]
        """What was saved with them."""
        self._content = memoryview(blob)[begin:]

    @property
    def names(self) -> Collection[str]:
        """Of all arrays."""
        return self._about.keys()

    def numpy(self, name: str) -> NDArray[Any]:
        """One of them; bfloat16, which numpy does not have, as int16.

        Raises:
            KeyError: there is none of that name.
            ValueError: it is not whole.
        """
        about = self._about[name]
        try:
            first, last = about["data_offsets"]
            kind = _READ_AS[about["dtype"]]
            return np.frombuffer(self._content[first:last], kind).reshape(about["shape"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"no array {name}: {error}") from error

    def tensor(self, name: str) -> torch.Tensor:
        """The same as a tensor, of its own type."""
        found = torch.from_numpy(self.numpy(name))
        return found.view(torch.bfloat16) if self._about[name]["dtype"] == "BF16" else found


def _head(blob: bytes | bytearray | memoryview) -> tuple[dict[str, Any], int]:
    """The JSON head, and where the arrays begin."""
    begin = 8 + int.from_bytes(blob[:8], "little")
    try:
        head: dict[str, Any] = json.loads(str(blob[8:begin], "utf-8"))
        head["__metadata__"][_TEXT]
    except (KeyError, TypeError, UnicodeDecodeError) as error:
        raise ValueError(f"no head: {error}") from error
    return head, begin
