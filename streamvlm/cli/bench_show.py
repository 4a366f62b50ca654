"""How measurements look to a person, to a script, and in a folder."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table as Grid

from streamvlm.cli import show

if TYPE_CHECKING:
    from streamvlm.bench.report import Conditions, Table

WIDEST = 100
"""Characters of a table where the terminal does not say how many it has."""
_NARROWEST = 24
"""Characters that a column of words keeps at least."""
_ALL = 10_000
"""More characters than any table has, so that none is cut."""


def listed(names: str) -> tuple[str, ...]:
    """`evs, pool` as names; nothing is none."""
    return tuple(name for name in (part.strip() for part in names.split(",")) if name)


def check_out(folder: Path | None, names: Sequence[str], plots: Sequence[str] = ()) -> None:
    """Find out whether a report can be written, before anything is measured for it.

    Args:
        folder: where to; None if nothing is to be written.
        names: of the reports, without ending.
        plots: files that are drawn as well.

    Raises:
        BadOption: nothing can be written there.
        MissingDependency: plots cannot be drawn here.
    """
    from streamvlm.bench.plot import check_plotting
    from streamvlm.bench.report import check_folder

    if folder is None:
        return
    if plots:
        check_plotting()
    reports = [f"{name}.{ending}" for name in names for ending in ("md", "json")]
    check_folder(folder, [*reports, *plots])


def measured(conditions: Conditions, tables: Sequence[Table], *, as_json: bool) -> None:
    """Print tables, each with the conditions, or all of it as one JSON object."""
    from streamvlm.bench.report import document

    if as_json:
        show.line(document(conditions, tables))
        return
    for table in tables:
        _print(table)
        for text in conditions.lines():
            show.out.print(text, style="dim", markup=False)
        show.out.print()


def written(name: str, conditions: Conditions, tables: Sequence[Table], folder: Path) -> None:
    """Write `name.md` and `name.json` into a folder, and say where they are."""
    from streamvlm.bench.report import write

    for path in write(folder, name, conditions, tables):
        show.note(f"written: {path}")


def _print(table: Table) -> None:
    room = show.out.width if show.out.is_terminal else WIDEST
    # Cells that are cut to fit a narrow terminal say nothing: let it break the lines instead.
    wide = Console(file=show.out.file, highlight=False, width=_ALL)
    grid = _grid(table, None)
    if wide.measure(grid).maximum > room:
        grid = _grid(table, room)
    wide.width = wide.measure(grid).maximum
    wide.print(grid)
    if table.note:
        show.out.print(table.note, markup=False)


def _grid(table: Table, room: int | None) -> Grid:
    """A table as it is drawn; with little room, long words of head and cells go on below."""
    heads, rows = list(table.columns), table.texts()
    if room is not None:
        cells = [[row[column] for row in rows] for column in range(len(heads))]
        heads = [_wrapped(head, _width(some)) for head, some in zip(heads, cells, strict=True)]
        widths = [_width([head, *some]) for head, some in zip(heads, cells, strict=True)]
        longest = max(range(len(heads)), key=widths.__getitem__)
        # Beside each column there are two spaces and a border.
        left = room - 1 - sum(width + 3 for width in widths) + widths[longest]
        for row in rows:
            row[longest] = _wrapped(row[longest], max(left, _NARROWEST))
    grid = Grid(title=table.title, box=box.SIMPLE_HEAD, title_justify="left")
    for index, head in enumerate(heads):
        grid.add_column(head, justify="right" if table.is_numeric(index) else "left")
    for row in rows:
        grid.add_row(*row)
    return grid


def _width(texts: Sequence[str]) -> int:
    return max((len(line) for text in texts for line in text.splitlines()), default=0)


def _wrapped(text: str, width: int) -> str:
    """A text in lines of so many characters, or as many as its longest word has."""
    most = max([width, *map(len, text.split())], default=1)
    return textwrap.fill(text, most, break_long_words=False, break_on_hyphens=False)
