"""`streamvlm bench`: measure a configuration on this machine, and say under which conditions.

What measures loads torch, so each command imports it only when it is run.
"""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from streamvlm.cli import bench_compress, bench_needle, bench_qa, bench_speed, show
from streamvlm.cli.options import examples


class _Measurements(TyperGroup):
    """Says on Ctrl-C that nothing of a measurement is left."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            show.failure("stopped; a measurement counts only when it is complete")
            raise typer.Exit(130) from None


app = typer.Typer(
    cls=_Measurements,
    no_args_is_help=True,
    help="Measure speed, right answers, compressors, and how well a needle is found.",
)
app.command(epilog=examples("streamvlm bench speed", "streamvlm bench speed --seconds 300 --json"))(
    bench_speed.speed
)
app.command(
    epilog=examples(
        "streamvlm bench qa",
        "streamvlm bench qa --clips 1000 --out report/",
        "streamvlm bench qa --clips 40 --json --set model.positions=compact",
    )
)(bench_qa.qa)
app.command(
    epilog=examples(
        "streamvlm bench compress", "streamvlm bench compress --clips 200 --out report/"
    )
)(bench_compress.compress)
app.command(
    epilog=examples("streamvlm bench needle", "streamvlm bench needle --hours 24 --out report/")
)(bench_needle.needle)
