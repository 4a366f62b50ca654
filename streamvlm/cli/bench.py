"""`streamvlm bench`: measure this machine, and say under which conditions."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from streamvlm.cli import show
from streamvlm.cli.options import AsJson


def bench(
    seconds: Annotated[int, typer.Option(min=10, help="Length of the film to measure with.")] = 60,
    as_json: AsJson = False,
) -> None:
    """Measure decoding, stages, memory and compressors on this machine."""
    from streamvlm.bench.speed import conditions, measure

    here = conditions()
    if as_json:
        show.line({"conditions": here})
    else:
        for name, value in here.items():
            show.note(f"{name:<9} {value}")
    for figure in measure(seconds):
        if as_json:
            show.line(asdict(figure))
        else:
            value = "–" if figure.value is None else f"{figure.value:.2f}"
            text = f"{figure.name:<38} {value:>9} {figure.unit:<10} {figure.how}"
            show.out.print(text, markup=False)
