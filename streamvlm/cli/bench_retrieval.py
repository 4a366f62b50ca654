"""`streamvlm bench retrieval`: which keys find the moment, and what does their index take?"""

from __future__ import annotations

from typing import Annotated

import typer

from streamvlm.cli import bench_show, show
from streamvlm.cli.bench_needle import MOST
from streamvlm.cli.options import AsJson, ConfigName, OutFolder, Overrides, Seed


def retrieval(
    segments: Annotated[
        int, typer.Option(min=1, help="Made-up segments, of 10 cameras and 32 tokens each.")
    ] = 5000,
    questions: Annotated[int, typer.Option(min=1, help="Questions about them.")] = 60,
    films: Annotated[
        int, typer.Option(min=0, help="Films with needles; 0 for made-up keys alone.")
    ] = 3,
    hours: Annotated[float, typer.Option(min=0.01, help="Length of each film.")] = 1.0,
    needles: Annotated[
        int, typer.Option(min=1, max=MOST, help="How many events to plant in each.")
    ] = MOST,
    seed: Seed = 1,
    config: ConfigName = "default",
    overrides: Overrides = None,
    as_json: AsJson = False,
    out: OutFolder = None,
) -> None:
    """Rank moments by the mean, MaxSim, XTR, MUVERA, k-means and by novel keys, on the same keys.

    On made-up keys of which it is known what is right, and on real ones of films with needles: one
    a frame, and one for each part of a frame. The source, dedupe, clips and embedder of the
    configuration are measured; no language model plays a part. About six minutes for the demo model
    on 2 cores.
    """
    from dataclasses import replace

    from streamvlm.bench.planted import HARD
    from streamvlm.bench.retrieval import Plan, measure_retrieval
    from streamvlm.bench.retrieval_report import tables
    from streamvlm.config import load

    planted = replace(HARD, segments=segments, questions=questions)
    plan = Plan(planted, films, round(3600 * hours), needles, seed)
    bench_show.check_out(out, ("retrieval",))
    with show.steps() as progress:
        found = measure_retrieval(load(config, overrides or ()), plan, progress=progress)
    bench_show.measured(found.conditions, tables(found), as_json=as_json)
    if out is not None:
        bench_show.written("retrieval", found.conditions, tables(found), out)
