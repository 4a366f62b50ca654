"""`streamvlm bench qa`: how many questions are answered right, beside what guessing gives."""

from __future__ import annotations

from typing import Annotated

import typer

from streamvlm.cli import bench_show, show
from streamvlm.cli.options import AsJson, ConfigName, OutFolder, Overrides, Seed

_CLIPS = (
    "How many clips to ask about, over all splits: half are films of new seeds, a quarter has new "
    "backgrounds, a quarter unseen pairs. A quarter as many are asked about again at two other "
    "qualities."
)


def qa(
    clips: Annotated[int, typer.Option(min=4, help=_CLIPS)] = 160,
    seed: Seed = 1,
    config: ConfigName = "default",
    overrides: Overrides = None,
    compressed: Annotated[
        bool, typer.Option("--compressed", help="Let the configuration's compressor drop tokens.")
    ] = False,
    as_json: AsJson = False,
    out: OutFolder = None,
) -> None:
    """Ask about held-out clips: right answers by kind, beside chance, majority and blind.

    Of the configuration the model is measured, and with --compressed its compressor; the memory and
    the search play no part. About three minutes for the demo model on 2 cores.
    """
    from streamvlm.bench.qa import measure_qa
    from streamvlm.bench.qa_tables import details, tables
    from streamvlm.config import load

    bench_show.check_out(out, ("qa", "qa-details"))
    with show.steps() as progress:
        exam = measure_qa(
            load(config, overrides or ()),
            seed=seed,
            clips=clips,
            compressed=compressed,
            progress=progress,
        )
    found = [*tables(exam), *(details(exam) if as_json else [])]
    bench_show.measured(exam.conditions, found, as_json=as_json)
    if out is not None:
        bench_show.written("qa", exam.conditions, tables(exam), out)
        bench_show.written("qa-details", exam.conditions, details(exam), out)
