"""`streamvlm bench speed`: how fast and how small."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from streamvlm.cli import bench_show, show
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
    """Measure decoding, stages, memory, answers and compressors on this machine.

    The film is always the same, so there is no seed. All parts of the configuration are measured;
    decoding alone, and each installed compressor on made-up features (`bench race` looks at those
    more closely), are measured whatever it names. About a minute for the demo model on 2 cores;
    other programs disturb it.
    """
    from streamvlm.bench.speed import conditions, measure, table
    from streamvlm.config import load

    bench_show.check_out(out, ("speed",))
    chosen = load(config, overrides or ())
    with show.steps() as progress:
        here = conditions(chosen)
        figures = list(measure(chosen, seconds, progress))
    if as_json:
        show.line({"conditions": asdict(here)})
    else:
        for line in here.lines():
            show.note(line)
    for figure in figures:
        _print(figure, as_json=as_json)
    if out is not None:
        bench_show.written("speed", here, [table(figures)], out)


def _print(figure: Figure, *, as_json: bool) -> None:
    if as_json:
        show.line(asdict(figure))
        return
    value = "–" if figure.value is None else f"{figure.value:.2f}"
    text = f"{figure.name:<38} {value:>9} {figure.unit:<10} {figure.how}"
    show.out.print(text, markup=False)
