"""`streamvlm bench race`: CPU time and memory of each compressor, beside published code."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from streamvlm.cli import bench_show, show
from streamvlm.cli.options import AsJson, OutFolder


def race(
    frames: Annotated[int, typer.Option(min=2, help="Frames of the clip.")] = 128,
    keep: Annotated[float, typer.Option(help="Share of the tokens to keep.")] = 0.1,
    compressors: Annotated[
        str, typer.Option(metavar="NAMES", help="Only these: fastvid,evs.")
    ] = "",
    rounds: Annotated[
        int, typer.Option(min=1, help="How often each is timed, after a first time.")
    ] = 3,
    full: Annotated[
        bool,
        typer.Option("--full", help="Compare DivPrune at all frames too: 8 minutes, 2.5 GB a run."),
    ] = False,
    as_json: AsJson = False,
    out: OutFolder = None,
) -> None:
    """Time every installed compressor on made-up video-like features, and published code beside it.

    CPU time and peak memory on 196 tokens a frame of 1024 features each; no model and no
    configuration play a part. About three minutes on 2 cores.
    """
    # PyTorch's profiler tells stderr of every start and stop; it reads this when it is loaded.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    from streamvlm.bench.race import Plan, measure_race

    plan = Plan(frames, keep, bench_show.listed(compressors), rounds, full)
    bench_show.check_out(out, ("race",))
    with show.steps() as progress:
        found = measure_race(plan, progress)
    bench_show.measured(found.conditions, found.tables(), as_json=as_json)
    if out is not None:
        bench_show.written("race", found.conditions, found.tables(), out)
