"""How a record is named after what it is of."""

from __future__ import annotations

import hashlib
import math


def record_id(stream: str, start: float, end: float) -> str:
    """The id of a stretch of a stream, whether it is one clip or many that were merged.

    Args:
        stream: the stream's id.
        start: first second, inclusive.
        end: end in seconds, exclusive.

    Returns:
        16 hexadecimal digits, the same for the same stretch of the same stream.
    """
    if not math.isfinite(end):
        raise ValueError(f"a clip needs a finite end, found {end}")
    place = f"{stream}\n{start:.6f}\n{end:.6f}"
    return hashlib.blake2b(place.encode(), digest_size=8).hexdigest()
