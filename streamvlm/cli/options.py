"""The options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def examples(*lines: str) -> str:
    """The foot of a help page."""
    return "\n\n".join(["[bold]Examples[/bold]", *lines])


ConfigName = Annotated[
    str,
    typer.Option(
        "--config", "-c", help="A shipped configuration (default, gpu, openai) or a YAML file."
    ),
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
Likes = Annotated[
    list[str] | None,
    typer.Option(
        "--like",
        metavar="PICTURE|VIDEO@MM:SS",
        help="What it looks like: a picture file, or a moment of the memory, which itself and its "
        "neighbours are left out of what is found; may be repeated.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="What films and questions are made up from.")]
OutFolder = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Also write the report into this folder."),
]
