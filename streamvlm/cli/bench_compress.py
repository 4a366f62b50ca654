"""`streamvlm bench compress`: what each compressor costs in right answers, at each keep."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from streamvlm.cli import bench_show, show
from streamvlm.cli.options import AsJson, ConfigName, OutFolder, Overrides, Seed
from streamvlm.errors import BadOption

if TYPE_CHECKING:
    from streamvlm.bench.compress_report import Compression


_PLOTS = ("compress.svg", "compress.png")
HeldOut = Literal["seeds", "backgrounds", "pairs"]
"""The splits that may be asked about; `bench/world` has that of training too."""


def compress(
    clips: Annotated[
        int, typer.Option(min=2, help="How many clips; four times as many halve the intervals.")
    ] = 96,
    frames: Annotated[
        int, typer.Option(min=1, help="Frames of the longest clip; lengths are cycled.")
    ] = 8,
    keep: Annotated[
        str, typer.Option(metavar="SHARES", help="Shares of the tokens to keep.")
    ] = "1,.5,.25,.15,.1,.05",
    compressors: Annotated[
        str, typer.Option(metavar="NAMES", help="Only these beside random and uniform: evs,pool.")
    ] = "",
    split: Annotated[
        HeldOut, typer.Option(help="What is new in the clips to the demo model.")
    ] = "seeds",
    seed: Seed = 1,
    config: ConfigName = "default",
    overrides: Overrides = None,
    as_json: AsJson = False,
    out: OutFolder = None,
) -> None:
    """Compare all compressors that the model's cues allow, against random and uniform.

    Of the configuration the model is measured; its own compressor and its memory play no part. Each
    clip is encoded once, and asked about once for each compressor at each keep, and once more with
    all tokens and with none; those that read the question compress it anew for each. About 25
    minutes for the demo model on 2 cores with all compressors, and 20 for 400 clips at one keep.
    """
    from streamvlm.bench.compress import Plan, measure_compress
    from streamvlm.config import load

    chosen = bench_show.listed(compressors)
    plan = Plan(clips, frames, seed, split=split, keeps=_shares(keep), compressors=chosen)
    bench_show.check_out(out, ("compress", "compress-details"), _PLOTS)
    with show.steps() as progress:
        found = measure_compress(load(config, overrides or ()), plan, progress)
    tables = [*found.tables(), *(found.details() if as_json else [])]
    bench_show.measured(found.conditions, tables, as_json=as_json)
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
    from streamvlm.bench.report import save

    picture = found.picture()
    bench_show.written("compress", found.conditions, found.tables(), folder)
    bench_show.written("compress-details", found.conditions, found.details(), folder)
    for name, content in zip(_PLOTS, (picture.svg, picture.png), strict=True):
        save({folder / name: content})
        show.note(f"written: {folder / name}")
