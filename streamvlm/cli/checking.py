"""The commands that look at what is there: verify, plugins."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from streamvlm import plugins as registry
from streamvlm.cli import show
from streamvlm.cli.options import AsJson
from streamvlm.cli.pairing import facts, sentence


def verify(
    memory: Annotated[Path, typer.Argument(help="A memory folder.", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Open the videos again and compare every frame that a memory cites.

    Whether the memory's own files are intact is what `streamvlm memory verify` checks.
    """
    from streamvlm.memory.store import Memory
    from streamvlm.verify import verify as verify_memory

    fine = True
    with Memory.open(memory, writable=False) as opened:
        if not opened.streams():
            show.note(f"the memory {memory} is empty; there is nothing to verify")
        for verdict in verify_memory(opened):
            fine &= verdict.ok
            if as_json:
                show.line({**asdict(verdict), "ok": verdict.ok})
                continue
            word = "ok" if verdict.ok else "FAILED"
            show.out.print(
                f"{word}: {verdict.stream}  {verdict.matched} of {verdict.frames} frames match",
                style=None if verdict.ok else "red",
                markup=False,
            )
            for problem in verdict.problems:
                show.failure(problem)
    if not fine:
        raise typer.Exit(1)


_LONG = 24
"""A default value that takes more characters than this is not listed."""


def plugins(as_json: AsJson = False) -> None:
    """List what can be chosen: each plug-in with its paper, and what goes with what."""
    for kind in registry.KINDS:
        if not as_json:
            show.out.print(kind, style="bold")
        for name in registry.names(kind):
            about, known = registry.summary(kind, name), facts(kind, name)
            options = registry.default_options(registry.find(kind, name))
            if as_json:
                named = {"kind": kind, "name": name, "summary": about}
                show.line({**named, **known, "options": options})
                continue
            show.out.print(f"  {name:<16} {about}", markup=False)
            listed = ", ".join(
                option if value is None or len(repr(value)) > _LONG else f"{option} {value!r}"
                for option, value in options.items()
            )
            for text in (sentence(known), f"options: {listed or 'none'}"):
                if text:
                    show.out.print(f"  {'':<16} {text}", style="dim", markup=False)
