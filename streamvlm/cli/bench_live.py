"""`streamvlm bench live`: a camera's day under a cap."""

from __future__ import annotations

from typing import Annotated

import typer

from streamvlm.cli import bench_show, show
from streamvlm.cli.options import AsJson, ConfigName, OutFolder, Overrides, Seed


def live(
    hours: Annotated[float, typer.Option(min=0.02, help="Length of the day.")] = 24.0,
    cap_mb: Annotated[
        float, typer.Option("--cap-mb", min=9, help="What the memory may take on disk.")
    ] = 200.0,
    needles: Annotated[
        int, typer.Option(min=1, max=30, help="Short events, a third of them in the first hour.")
    ] = 30,
    seed: Seed = 1,
    config: ConfigName = "default",
    overrides: Overrides = None,
    as_json: AsJson = False,
    out: OutFolder = None,
) -> None:
    """Run a camera for a day into a capped memory: is it bounded, is the first hour remembered?

    The configuration's clips, model, compressor and embedder see every frame, one a second; its
    filter of still frames plays no part. About twenty minutes for the demo model
    on 2 cores.
    """
    from dataclasses import replace

    from streamvlm.bench.live import CAPS, Plan, measure_live
    from streamvlm.config import load

    caps = replace(CAPS, max_bytes=round(1e6 * cap_mb))
    plan = Plan(round(3600 * hours), caps, needles, seed=seed)
    bench_show.check_out(out, ("live",))
    with show.steps() as progress:
        found = measure_live(load(config, overrides or ()), plan, progress)
    bench_show.measured(found.conditions, found.tables(), as_json=as_json)
    if out is not None:
        bench_show.written("live", found.conditions, found.tables(), out)
