"""The command line: ask, ingest, search, around, verify, memory, plugins, doctor, bench.

Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 an input failed, 2 usage,
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import logging
import os
import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from streamvlm import __version__
from streamvlm.cli import bench, checking, doctor, memory, show, watching
from streamvlm.cli.options import examples
from streamvlm.errors import ConfigError, StreamVLMError


class _Commands(TyperGroup):
    """Turns what a user can mend into one sentence and an exit code."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        try:
            return super().invoke(ctx)
        except StreamVLMError as error:
            show.failure(str(error))
            raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error
        except KeyboardInterrupt:
            kept = "what was stored in a --memory folder is kept; run the same command to go on"
            show.failure(f"stopped; {kept}")
            raise typer.Exit(130) from None


class _Said(logging.Formatter):
    """Begins with `warning:` as other lines do with `error:`."""

    def format(self, record: logging.LogRecord) -> str:
        return f"{record.levelname.lower()}: {super().format(record)}"


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        show.out.print(f"streamvlm {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show what the libraries below say.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Put hours of video behind a question: answers with timestamps that can be checked."""
    if verbose:
        logging.basicConfig(level=logging.INFO)
        # It logs every URL as it is asked for, with user and password.
        logging.getLogger("httpx").setLevel(logging.WARNING)
        return
    said = logging.StreamHandler()
    said.setFormatter(_Said())
    logging.basicConfig(level=logging.ERROR, handlers=[said])
    logging.getLogger("streamvlm").setLevel(logging.WARNING)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.simplefilter("ignore")


app.command(
    epilog=examples(
        'streamvlm ask video.mp4 "What colour is the star?" "When does the red square appear?"',
        'streamvlm ask --memory lobby/ "Where is the dog?" --since 3600 --json',
        'streamvlm ask video.mp4 "What happens?" --config gpu --set compressor.keep=0.2',
    )
)(watching.ask)
app.command(
    epilog=examples(
        "streamvlm ingest video.mp4 another.mkv --memory lobby/",
        "streamvlm ingest recordings/ --memory archive/ --set source.fps=0.5",
    )
)(watching.ingest)
app.command(
    epilog=examples(
        'streamvlm search --memory lobby/ "a red lift" --thumbnails found/',
        'streamvlm search --memory lobby/ "a red lift" --json',
        "streamvlm search --memory lobby/ --like person.jpg --like video.mp4@00:40",
    )
)(watching.search)
app.command(epilog=examples("streamvlm around video.mp4@00:40 --memory lobby/ --seconds 60"))(
    watching.around
)
app.command(epilog=examples("streamvlm verify lobby/"))(checking.verify)
app.add_typer(memory.app, name="memory")
app.command(epilog=examples("streamvlm plugins", "streamvlm plugins --json"))(checking.plugins)
app.command(epilog=examples("streamvlm doctor"))(doctor.doctor)
app.add_typer(bench.app, name="bench")


def main() -> None:
    """Run the command line."""
    app()
