"""What the published forms of per-frame methods share: the same budget for every frame."""

from __future__ import annotations

from collections.abc import Mapping

from streamvlm.errors import BadOption
from streamvlm.types import VisualTokens


def check_compat(value: str) -> None:
    """Refuse the value of an option `compat` that is neither `fixed` nor `official`.

    Args:
        value: what was given for it.

    Raises:
        ValueError: it is something else.
    """
    if value not in ("fixed", "official"):
        raise ValueError(f"compat must be 'fixed' or 'official', found {value!r}")


def per_frame(keep: float, tokens: VisualTokens) -> int:
    """How many tokens of each frame may remain, rounded down so that a clip keeps to its budget.

    Args:
        keep: share of the tokens that may remain, 0–1.
        tokens: dense tokens.
    """
    _, rows, columns = tokens.grid
    return int(keep * rows * columns)


def require(method: str, needs: Mapping[str, bool], keep: float, tokens: VisualTokens) -> None:
    """Refuse tokens that a published code cannot take.

    Args:
        method: its name.
        needs: what it needs, in words, and whether that is so.
        keep: share of the tokens to keep.
        tokens: what it was given.

    Raises:
        BadOption: something that it needs is not so.
    """
    if unmet := [need for need, is_met in needs.items() if not is_met]:
        raise BadOption(
            f"the official {method} needs {' and '.join(unmet)}, found {len(tokens)} tokens of "
            f"grid {tokens.grid} at keep {keep}; use compat 'fixed'"
        )
