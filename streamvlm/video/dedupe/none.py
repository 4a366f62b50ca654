"""No filtering."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from streamvlm.types import Frame


@dataclass(frozen=True)
class KeepAll:
    """Keeps every frame."""

    def __call__(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Hand on all frames."""
        yield from frames
