"""`streamvlm bench needle`: is a short event found again in hours of film, and answered?"""

from __future__ import annotations

from typing import Annotated

import typer

from streamvlm.cli import bench_show, show
from streamvlm.cli.options import AsJson, ConfigName, OutFolder, Overrides, Seed
from streamvlm.errors import BadOption

MOST = 30
"""Needles in one film; the same as in `bench/world/needles.py`, which loads too much for --help."""


def needle(
    hours: Annotated[float, typer.Option(min=0.01, help="Length of each film.")] = 1.0,
    needles: Annotated[
        int,
        typer.Option(min=1, max=MOST, help="How many events to plant in each, each with its name."),
    ] = 12,
    ages: Annotated[
        str,
        typer.Option(
            metavar="MINUTES",
            help="Plant one event so long before the end, for each of these; then --needles is not "
            "looked at. Example: 1,10,59.",
        ),
    ] = "",
    films: Annotated[int, typer.Option(min=1, help="How many films.")] = 4,
    seed: Seed = 1,
    config: ConfigName = "default",
    overrides: Overrides = None,
    as_json: AsJson = False,
    out: OutFolder = None,
) -> None:
    """Plant short events in long films and ask for them, by several ways of choosing what is read.

    The memory of the configuration, against 16 and 64 frames of the whole film, a window that
    forgets, and the right records themselves. All parts of the configuration are measured. About
    ten minutes for the demo model on 2 cores, most of it drawing and watching the films.
    """
    from streamvlm.bench.needle import Plan, measure_needle
    from streamvlm.bench.needle_tables import details, tables
    from streamvlm.config import load

    bench_show.check_out(out, ("needle", "needle-details"))
    chosen = _seconds(ages) if ages else None
    count = needles if chosen is None else len(chosen)
    plan = Plan(round(3600 * hours), needles=count, ages=chosen, films=films, seed=seed)
    with show.steps() as progress:
        hunt = measure_needle(load(config, overrides or ()), plan, progress=progress)
    found = [*tables(hunt), *(details(hunt) if as_json else [])]
    bench_show.measured(hunt.conditions, found, as_json=as_json)
    if out is not None:
        bench_show.written("needle", hunt.conditions, tables(hunt), out)
        bench_show.written("needle-details", hunt.conditions, details(hunt), out)


def _seconds(minutes: str) -> tuple[int, ...]:
    try:
        return tuple(round(60 * float(part)) for part in minutes.split(","))
    except (ValueError, OverflowError):
        raise BadOption(
            f"cannot read --ages {minutes!r}; write minutes with commas between: 1,10,59"
        ) from None
