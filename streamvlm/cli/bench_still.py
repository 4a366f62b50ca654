"""`streamvlm bench still`: what compressors store of an hour in which nothing happens."""

from __future__ import annotations

from typing import Annotated

import typer

from streamvlm.cli import bench_show, show
from streamvlm.cli.options import AsJson, ConfigName, OutFolder, Overrides, Seed


def still(
    hours: Annotated[float, typer.Option(min=0.01, help="Length of each film.")] = 1.0,
    films: Annotated[
        int, typer.Option(min=2, help="How many films; four times as many halve the intervals.")
    ] = 6,
    keep: Annotated[float, typer.Option(help="Share of the tokens to keep.")] = 0.1,
    compressors: Annotated[
        str, typer.Option(metavar="NAMES", help="Only these beside random and uniform: pvc,evs.")
    ] = "",
    frames: Annotated[int, typer.Option(min=1, help="Frames of a clip, one a second.")] = 128,
    seed: Seed = 1,
    config: ConfigName = "default",
    overrides: Overrides = None,
    as_json: AsJson = False,
    out: OutFolder = None,
) -> None:
    """Watch a scene that never changes: tokens stored in an hour, and right answers from them.

    Of the configuration the model and the tokens that it may read are measured; its own compressor,
    its filter of still frames and its memory play no part. About eight minutes for the demo model
    on 2 cores.
    """
    from streamvlm.bench.still import Plan, measure_still
    from streamvlm.config import load

    chosen = bench_show.listed(compressors)
    plan = Plan(round(3600 * hours), films, keep, chosen, frames, seed=seed)
    bench_show.check_out(out, ("still",))
    with show.steps() as progress:
        found = measure_still(load(config, overrides or ()), plan, progress)
    bench_show.measured(found.conditions, found.tables(), as_json=as_json)
    if out is not None:
        bench_show.written("still", found.conditions, found.tables(), out)
