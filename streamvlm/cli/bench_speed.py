"""`streamvlm bench speed`: how fast and how small."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from streamvlm.cli import show
from streamvlm.cli.options import AsJson, ConfigName, OutFolder, Overrides

if TYPE_CHECKING:
    from streamvlm.bench.speed import Figure


def speed(
    seconds: Annotated[int, typer.Option(min=10, help="Length of the film to measure with.")] = 60,
    config: ConfigName = "default",
    overrides: Overrides = None,
    as_json: AsJson = False,
    out: OutFolder = None,
) -> None:
    """Measure decoding, stages, memory, answers and compressors on this machine."""
    from streamvlm.bench.speed import conditions, measure, table
    from streamvlm.config import load

    chosen = load(config, overrides or ())
    here = conditions(chosen)
    if as_json:
        show.line({"conditions": asdict(here)})
    else:
        for line in here.lines():
            show.note(line)
    figures = []
    for figure in measure(chosen, seconds):
        figures.append(figure)
        _print(figure, as_json=as_json)
    if out is not None:
        show.written("speed", here, [table(figures)], out)


def _print(figure: Figure, *, as_json: bool) -> None:
    if as_json:
        show.line(asdict(figure))
        return
    value = "–" if figure.value is None else f"{figure.value:.2f}"
    text = f"{figure.name:<38} {value:>9} {figure.unit:<10} {figure.how}"
    show.out.print(text, markup=False)
