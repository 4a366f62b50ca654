"""How results look to a person, and to a script."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from streamvlm.types import Answer, Coverage, Evidence, Usage
from streamvlm.wire import plain

if TYPE_CHECKING:
    from streamvlm.bench.report import Progress as Steps
    from streamvlm.ingest import Ingested
    from streamvlm.ingest import Progress as Report
    from streamvlm.recall import Sighting
    from streamvlm.video.sources import VideoFile

out = Console(highlight=False, soft_wrap=True)
"""Results."""
err = Console(highlight=False, soft_wrap=True, stderr=True)
"""Everything that is not a result: progress, notes, errors."""

DEMO_NOTE = (
    "note: the built-in demo model only knows a world of coloured shapes; for real footage name a "
    "checkpoint: --config gpu, or --set model.weights=NAME --set embedder.weights=NAME"
)


def line(document: Mapping[str, Any]) -> None:
    """Print one JSON object on a line of its own, at once."""
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


def failure(message: str) -> None:
    """Print one sentence about what went wrong."""
    err.print(f"error: {message}", style="red", markup=False)


def note(message: str) -> None:
    """Print one sentence that is good to know."""
    err.print(message, style="dim", markup=False)


def clock(seconds: float) -> str:
    """Seconds as `MM:SS`, from one hour on as `H:MM:SS`.

    >>> clock(72.9), clock(3725)
    ('01:12', '1:02:05')
    """
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes:02d}:{rest:02d}"


def _short(stream: str) -> str:
    return PurePosixPath(stream).name or stream


def evidence_line(found: Evidence) -> str:
    """`video.mp4  00:08–00:16  score 0.412`, and if its tokens were given up with age, that."""
    record = found.record
    span = f"{clock(record.start)}–{clock(record.end)}"
    left = "" if len(record.tokens) else "  only its picture is left"
    return f"{_short(record.stream)}  {span}  score {found.score:.3f}{left}"


def sighting_line(found: Sighting) -> str:
    """`video.mp4  00:08–00:32  score 0.412`."""
    span = f"{clock(found.start)}–{clock(found.end)}"
    return f"{_short(found.stream)}  {span}  score {found.score:.3f}"


def coverage_line(coverage: Coverage) -> str:
    """`video.mp4  60.0 s: 20.0 % sampled, 80.0 % still`, with the reason of each gap."""
    if not coverage.spans:
        return f"{_short(coverage.stream)}  its ingest was interrupted; run the same ingest again"
    kinds = [
        f"{coverage.share(kind):.1%} {kind}".replace("%", " %")
        for kind in ("sampled", "still", "skipped", "gap")
        if coverage.share(kind) > 0
    ]
    reasons = sorted({span.reason for span in coverage.spans if span.reason})
    why = f" ({', '.join(reasons)})" if reasons else ""
    return f"{_short(coverage.stream)}  {coverage.seconds:.1f} s: {', '.join(kinds)}{why}"


def usage_line(usage: Usage) -> str:
    """`frames 60 decoded, 12 kept · tokens 216 stored, 0 read · ms: decode 81, …`."""
    stages = ", ".join(f"{stage} {spent:.0f}" for stage, spent in usage.milliseconds.items())
    looked = ", ".join(f"{count} {what}" for what, count in usage.looked_at.items())
    return (
        f"frames {usage.frames_decoded} decoded, {usage.frames_kept} kept · "
        f"tokens {usage.tokens_stored} stored, {usage.tokens_read} read · "
        + (f"looked at {looked} · " if looked else "")
        + f"ms: {stages}"
    )


def ingested(result: Ingested, *, as_json: bool) -> None:
    """Print what became of one source; failures go to stderr as well."""
    if result.error is not None:
        failure(str(result.error))
    if as_json:
        line({"ingested": plain(result)})
    elif result.coverage is not None:
        seen_before = not result.usage.frames_decoded
        out.print(f"{'in memory already' if seen_before else 'ingested'}: ", end="", markup=False)
        out.print(coverage_line(result.coverage), markup=False)
        if not seen_before:
            out.print(f"  cost      {usage_line(result.usage)}", style="dim", markup=False)


def footnotes(answer: Answer) -> None:
    """Print below an answer on what it rests."""
    is_told = not math.isnan(answer.confidence)
    rows = [("sure", f"{answer.confidence:.2f}" if is_told else "the server does not say")]
    rows += [("evidence", evidence_line(found)) for found in answer.evidence]
    rows += [("watched", coverage_line(coverage)) for coverage in answer.coverage]
    rows += [("cost", usage_line(answer.usage))]
    for label, text in rows:
        out.print(f"  {label:<9} {text}", style="dim", markup=False)


@contextmanager
def progress() -> Iterator[Report]:
    """A bar on stderr for the source that is read: its part done, video-seconds per second."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    began: dict[str, float] = {}
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:

        def report(source: VideoFile, seconds: float) -> None:
            if source.stream not in began:
                began[source.stream] = time.monotonic()
                for done in bars.task_ids:
                    bars.remove_task(done)
                bars.add_task(_short(source.stream), total=source.duration, rate="")
            rate = seconds / (time.monotonic() - began[source.stream])
            bars.update(bars.task_ids[0], completed=seconds, rate=f"{rate:.0f} video-s/s")

        yield report


@contextmanager
def steps() -> Iterator[Steps]:
    """A bar on stderr for each part of a measurement: what is done, of how much."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=err, transient=True, disable=not err.is_terminal) as bars:

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        yield report
