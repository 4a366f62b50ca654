"""The core types as JSON-ready builtins: one shape for the command line, files and HTTP."""

from __future__ import annotations

import math
from typing import Any

from streamvlm.types import Coverage, Evidence, MemoryRecord


def plain(value: Any) -> Any:
    """A type of this module as JSON-ready builtins, without pixels, tokens and keys.

    Args:
        value: a dataclass of this module, or builtins and tuples of them.

    Returns:
        Dicts, lists, strings and numbers.
    """
    match value:
        case MemoryRecord():
            return {
                "id": value.id,
                "stream": value.stream,
                "start": value.start,
                "end": value.end,
                "tokens": len(value.tokens),
                "frame_seconds": [float(second) for second in value.frame_seconds],
            }
        case Evidence():
            return {**plain(value.record), "score": round(value.score, 6)}
        case Coverage():
            shares = {kind: value.share(kind) for kind in ("sampled", "still", "skipped", "gap")}
            spans = [plain(span) for span in value.spans]
            return {
                "stream": value.stream,
                "seconds": value.seconds,
                "shares": shares,
                "spans": spans,
            }
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case tuple() | list():
            return [plain(item) for item in value]
        case Exception():
            return str(value)
        case float() if math.isnan(value):
            return None  # not known; JSON has no NaN
        case _ if hasattr(value, "ndim"):
            return f"a picture of {value.shape[1]}×{value.shape[0]}"
        case _ if hasattr(value, "__dataclass_fields__"):
            return {name: plain(getattr(value, name)) for name in value.__dataclass_fields__}
        case _:
            return value
