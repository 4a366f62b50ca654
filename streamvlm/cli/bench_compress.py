"""`streamvlm bench compress`: what each compressor costs in right answers, at each keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamvlm.cli import show
from streamvlm.cli.options import AsJson, ConfigName, OutFolder, Overrides, Seed
from streamvlm.errors import BadOption

if TYPE_CHECKING:
    from streamvlm.bench.compress_report import Compression


def compress(
    clips: Annotated[int, typer.Option(min=2, help="How many clips to ask about.")] = 96,
    frames: Annotated[int, typer.Option(min=1, help="Frames of the longest clip.")] = 8,
    keep: Annotated[
        str, typer.Option(metavar="SHARES", help="Shares of the tokens to keep.")
    ] = "1,.5,.25,.15,.1,.05",
    compressors: Annotated[
        str, typer.Option(metavar="NAMES", help="Only these beside random and uniform: evs,pool.")
    ] = "",
    seed: Seed = 1,
    config: ConfigName = "default",
    overrides: Overrides = None,
    as_json: AsJson = False,
    out: OutFolder = None,
) -> None:
    """Compare all compressors that the model's cues allow, against random and uniform."""
    from streamvlm.bench.compress import Plan, measure_compress
    from streamvlm.bench.plot import check_plotting
    from streamvlm.config import load

    chosen = tuple(name for name in (part.strip() for part in compressors.split(",")) if name)
    plan = Plan(clips=clips, frames=frames, seed=seed, keeps=_shares(keep), compressors=chosen)
    if out is not None:
        check_plotting()
    with show.steps() as progress:
        found = measure_compress(load(config, overrides or ()), plan, progress)
    tables = [*found.tables(), *(found.details() if as_json else [])]
    show.measured(found.conditions, tables, as_json=as_json)
    if out is not None:
        _write(found, out)


def _shares(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise BadOption(
            f"cannot read --keep {text!r}; write shares with commas between: 0.25,0.1"
        ) from None


def _write(found: Compression, folder: Path) -> None:
    """Write the report, its details and the plot, and say where they are."""
    picture = found.picture()
    show.written("compress", found.conditions, found.tables(), folder)
    show.written("compress-details", found.conditions, found.details(), folder)
    for ending, content in (("svg", picture.svg), ("png", picture.png)):
        path = folder / f"compress.{ending}"
        path.write_bytes(content)
        show.note(f"written: {path}")
