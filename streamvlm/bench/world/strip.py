"""A strip in the lowest rows of a picture that says which picture it is, for exact checks.

64 blocks, black or white, side by side: 24 bits of the picture's number, 32 bits of its time in
milliseconds, and 8 bits of their CRC-32, so that what is not a strip is not read as one.
"""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray

_BLOCKS = 64
_HIGH = 24
"""The strip takes one in so many rows of the picture."""
_CLEAR = 50
"""How far a block is from grey, of 127; the check alone would pass one in 256 other pictures."""


def stamp(image: NDArray[np.uint8], number: int, milliseconds: int) -> None:
    """Draw the strip into a picture, in place.

    Args:
        image: (H, W, 3) uint8; W at least 64, and best a multiple of it.
        number: of the picture, below 2²⁴.
        milliseconds: its time, below 2³².
    """
    said = number.to_bytes(3, "big") + milliseconds.to_bytes(4, "big")
    bits = np.unpackbits(np.frombuffer(said + _check(said), np.uint8))
    height, width = image.shape[:2]
    image[-(height // _HIGH) :] = 255 * bits[np.arange(width) * _BLOCKS // width, None]


def read_strip(image: NDArray[np.uint8]) -> tuple[int, int] | None:
    """The number of a picture and its time in milliseconds, or None if it has no strip.

    Args:
        image: (H, W, 3) uint8, as decoded.
    """
    height, width = image.shape[:2]
    rows = image[-(height // _HIGH) :].mean((0, 2))
    begin = -(-np.arange(_BLOCKS + 1) * width // _BLOCKS)
    middle = (begin[:-1] + begin[1:]) // 2
    said = np.packbits(rows[middle] > 127).tobytes()
    is_clear = bool((np.abs(rows[middle] - 127.5) > _CLEAR).all())
    if not is_clear or _check(said[:7]) != said[7:]:
        return None
    return int.from_bytes(said[:3], "big"), int.from_bytes(said[3:7], "big")


def _check(said: bytes) -> bytes:
    return (zlib.crc32(said) & 0xFF).to_bytes(1, "big")
