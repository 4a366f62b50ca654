"""`streamvlm bench qa`: how many questions are answered right, beside what guessing gives."""

from __future__ import annotations

from typing import Annotated

import typer

from streamvlm.cli import show
from streamvlm.cli.options import AsJson, ConfigName, OutFolder, Overrides, Seed


def qa(
    clips: Annotated[int, typer.Option(min=4, help="How many clips to ask about.")] = 160,
    seed: Seed = 1,
    config: ConfigName = "default",
    overrides: Overrides = None,
    compressed: Annotated[
        bool, typer.Option("--compressed", help="Let the configuration's compressor drop tokens.")
    ] = False,
    as_json: AsJson = False,
    out: OutFolder = None,
) -> None:
    """Ask about held-out clips: right answers by kind, beside chance, majority and blind."""
    from streamvlm.bench.qa import measure_qa
    from streamvlm.bench.qa_tables import details, tables
    from streamvlm.config import load

    with show.steps() as progress:
        exam = measure_qa(
            load(config, overrides or ()),
            seed=seed,
            clips=clips,
            compressed=compressed,
            progress=progress,
        )
    found = [*tables(exam), *(details(exam) if as_json else [])]
    show.measured(exam.conditions, found, as_json=as_json)
    if out is not None:
        show.written("qa", exam.conditions, tables(exam), out)
        show.written("qa-details", exam.conditions, details(exam), out)
