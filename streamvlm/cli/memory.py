"""`streamvlm memory`: look after a memory's folder; nothing here decodes or needs weights.

What reads memories loads torch, so each command imports it only when it is run.
"""

from __future__ import annotations

import typer

from streamvlm.cli import memory_keep, memory_look
from streamvlm.cli.options import examples

app = typer.Typer(
    no_args_is_help=True,
    help="Look after a memory: what it holds, whether it is intact, forgetting, copies.",
)
app.command(epilog=examples("streamvlm memory info lobby/", "streamvlm memory info lobby/ --json"))(
    memory_look.info
)
app.command(
    epilog=examples(
        "streamvlm memory verify lobby/        # the memory's own bytes",
        "streamvlm verify lobby/               # its frames against the videos",
    )
)(memory_look.verify)
app.command(
    epilog=examples("streamvlm memory compact lobby/", "streamvlm memory compact lobby/ --erase")
)(memory_keep.compact)
app.command(
    epilog=examples(
        "streamvlm memory forget lobby/ --stream another.mkv",
        "streamvlm memory forget lobby/ --before 86400",
        "streamvlm memory forget lobby/ --stream door.mp4 --stream gate.mp4 --before 3600",
    )
)(memory_keep.forget)
app.command(
    epilog=examples(
        "streamvlm memory export lobby/ --out files/",
        "streamvlm memory export lobby/ --out files/ --stream video.mp4 --since 60 --until 120",
    )
)(memory_look.export)
app.command(
    epilog=examples(
        "streamvlm memory backup lobby/", "streamvlm memory backup lobby/ --to copies/lobby/"
    )
)(memory_keep.backup)
app.command(epilog=examples("streamvlm memory rebuild lobby/"))(memory_keep.rebuild)
