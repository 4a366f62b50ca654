"""`streamvlm bench needle`: is a short event found again in hours of film, and answered?"""

from __future__ import annotations

from typing import Annotated

import typer

from streamvlm.cli import show
from streamvlm.cli.options import AsJson, ConfigName, OutFolder, Overrides, Seed


def needle(
    hours: Annotated[float, typer.Option(min=0.01, help="Length of each film.")] = 1.0,
    needles: Annotated[int, typer.Option(min=1, help="How many events to plant in each.")] = 12,
    films: Annotated[int, typer.Option(min=1, help="How many films.")] = 4,
    seed: Seed = 1,
    config: ConfigName = "default",
    overrides: Overrides = None,
    as_json: AsJson = False,
    out: OutFolder = None,
) -> None:
    """Plant short events in long films and ask for them, by several ways of choosing what is read.

    The memory of the configuration, against 16 and 64 frames of the whole film, a window that
    forgets, and the right records themselves.
    """
    from streamvlm.bench.needle import Plan, measure_needle
    from streamvlm.bench.needle_tables import details, tables
    from streamvlm.config import load

    plan = Plan(seconds=round(3600 * hours), needles=needles, films=films, seed=seed)
    with show.steps() as progress:
        hunt = measure_needle(load(config, overrides or ()), plan, progress=progress)
    found = [*tables(hunt), *(details(hunt) if as_json else [])]
    show.measured(hunt.conditions, found, as_json=as_json)
    if out is not None:
        show.written("needle", hunt.conditions, tables(hunt), out)
        show.written("needle-details", hunt.conditions, details(hunt), out)
