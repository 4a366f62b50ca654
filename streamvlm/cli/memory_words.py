"""What the commands of `streamvlm memory` share: sizes, numbers, bars, names of streams."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from streamvlm.cli import show

MemoryPath = Annotated[Path, typer.Argument(help="A memory folder.", show_default=False)]


def size(count: float) -> str:
    """Bytes in words, by powers of 1,000.

    >>> size(0), size(1536), size(2_500_000_000)
    ('0 bytes', '1.5 kB', '2.5 GB')
    """
    units = ["bytes", "kB", "MB", "GB", "TB"]
    power = 0
    while round(count, 1) >= 1000 and power < len(units) - 1:
        count, power = count / 1000, power + 1
    return f"{count:.{min(power, 1)}f} {units[power]}"


def few(number: int, what: str) -> str:
    """`1 record`, `2 records`."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def say(text: str, style: str | None = None) -> None:
    """Print a line of the result."""
    show.out.print(text, style=style, markup=False)


def warn(text: str) -> None:
    """Print one sentence about what is wrong but stops nothing."""
    show.err.print(f"warning: {text}", style="yellow", markup=False)


@contextmanager
def bar(doing: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr: how much of how much is done."""
    with show.steps() as report:
        yield lambda done, total: report(doing, done, total)


def matched(path: Path, names: Sequence[str] | None) -> tuple[str, ...]:
    """The streams that a user means."""
    if not names:
        return ()
    from streamvlm.likeness import match_stream
    from streamvlm.memory.survey import survey

    known = survey(path).streams
    return tuple(dict.fromkeys(match_stream(name, known) for name in names))
