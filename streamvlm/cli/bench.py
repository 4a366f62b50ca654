"""`streamvlm bench`: measure a configuration on this machine, and say under which conditions.

What measures loads torch, so each command imports it only when it is run.
"""

from __future__ import annotations

import time
from typing import Any

import typer
from typer.core import TyperGroup

from streamvlm.cli import (
    bench_compress,
    bench_live,
    bench_memory,
    bench_needle,
    bench_qa,
    bench_race,
    bench_retrieval,
    bench_speed,
    bench_still,
    show,
)
from streamvlm.cli.options import examples


class _Measurements(TyperGroup):
    """Says how long a measurement took, or on Ctrl-C that nothing of it is left."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        began = time.monotonic()
        try:
            done = super().invoke(ctx)
        except KeyboardInterrupt:
            show.failure("stopped; a measurement counts only when it is complete")
            raise typer.Exit(130) from None
        show.note(f"measured in {show.clock(time.monotonic() - began)}")
        return done


app = typer.Typer(
    cls=_Measurements,
    no_args_is_help=True,
    help="Measure speed, right answers, compressors, the memory, and how well a needle is found.",
)
app.command(
    epilog=examples(
        "streamvlm bench speed",
        "streamvlm bench speed --seconds 300 --json",
        "streamvlm bench speed --config gpu --out report/",
    )
)(bench_speed.speed)
app.command(
    epilog=examples(
        "streamvlm bench qa",
        "streamvlm bench qa --clips 1000 --out report/",
        "streamvlm bench qa --clips 40 --json --set model.positions=compact",
        "streamvlm bench qa --compressed --set compressor.name=evs --set compressor.keep=0.2",
    )
)(bench_qa.qa)
app.command(
    epilog=examples(
        "streamvlm bench compress",
        "streamvlm bench compress --keep 0.1 --clips 400 --out report/",
        "streamvlm bench compress --compressors evs,pool --split backgrounds",
    )
)(bench_compress.compress)
app.command(
    epilog=examples(
        "streamvlm bench race",
        "streamvlm bench race --compressors fastvid,holitom --rounds 5 --out report/",
        "streamvlm bench race --full --json",
    )
)(bench_race.race)
app.command(
    epilog=examples(
        "streamvlm bench still",
        "streamvlm bench still --films 12 --out report/",
        "streamvlm bench still --compressors pvc,nested --hours 0.2 --json",
    )
)(bench_still.still)
app.command(
    epilog=examples(
        "streamvlm bench retrieval",
        "streamvlm bench retrieval --films 0 --segments 20000 --seed 2",
        "streamvlm bench retrieval --films 6 --out report/",
    )
)(bench_retrieval.retrieval)
app.command(
    epilog=examples(
        "streamvlm bench needle",
        "streamvlm bench needle --hours 24 --films 1 --needles 30 --out report/",
        "streamvlm bench needle --ages 1,10,59 --set answer.max_records=2",
    )
)(bench_needle.needle)
app.command(
    epilog=examples(
        "streamvlm bench memory",
        "streamvlm bench memory --parts writing --folder /data --rounds 9",
        "streamvlm bench memory --small --json",
    )
)(bench_memory.memory)
app.command(
    epilog=examples(
        "streamvlm bench live",
        "streamvlm bench live --hours 2 --cap-mb 16",
        "streamvlm bench live --hours 72 --cap-mb 400 --out report/",
    )
)(bench_live.live)
