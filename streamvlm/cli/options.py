"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ConfigName = Annotated[
    str,
    typer.Option("--config", "-c", help="A shipped configuration (default, gpu) or a YAML file."),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="SECTION.OPTION=VALUE", help="Change one option; may be repeated."
    ),
]
MemoryFolder = Annotated[
    Path | None,
    typer.Option("--memory", "-m", help="The folder that keeps what is ingested."),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object per line instead of text.")
]
Streams = Annotated[
    list[str] | None,
    typer.Option("--stream", help="Only this video or camera; may be repeated."),
]
Since = Annotated[float | None, typer.Option(help="Only what was seen after this second.")]
Until = Annotated[float | None, typer.Option(help="Only what was seen before this second.")]
