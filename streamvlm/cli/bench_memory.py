"""`streamvlm bench memory`: what the memory costs beside the plainest way, and bytes an hour."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from streamvlm.cli import bench_show, show
from streamvlm.cli.options import AsJson, OutFolder


def memory(
    rounds: Annotated[
        int, typer.Option(min=1, help="How often ours and the plainest way take turns.")
    ] = 5,
    parts: Annotated[
        str, typer.Option(metavar="NAMES", help="Only these: writing,reading,searching,hours.")
    ] = "",
    folder: Annotated[
        Path | None,
        typer.Option(help="Where memories are built: on the disk that is to be measured."),
    ] = None,
    is_small: Annotated[
        bool, typer.Option("--small", help="Tiny memories: shows that it runs, in a minute.")
    ] = False,
    as_json: AsJson = False,
    out: OutFolder = None,
) -> None:
    """Measure the memory beside plain writes, plain reads and numpy; and bytes an hour.

    Everything is made up; no model and no configuration play a part. About eight minutes on 2
    cores, with 6 GiB of main memory and 5 GiB of disk.
    """
    from streamvlm.bench.memory import measure_memory
    from streamvlm.bench.memory_plan import PARTS, Plan, small

    plan = Plan(rounds, bench_show.listed(parts) or PARTS, folder)
    bench_show.check_out(out, ("memory",))
    with show.steps() as progress:
        found = measure_memory(small(plan) if is_small else plan, progress)
    bench_show.measured(found.conditions, found.tables(), as_json=as_json)
    if out is not None:
        bench_show.written("memory", found.conditions, found.tables(), out)
