"""The commands that watch and answer: ask, ingest, search."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamvlm.cli import show
from streamvlm.cli.options import (
    AsJson,
    ConfigName,
    MemoryFolder,
    Overrides,
    Since,
    Streams,
    Until,
)
from streamvlm.errors import SourceError
from streamvlm.moments import moments
from streamvlm.types import Evidence, Query
from streamvlm.wire import plain

if TYPE_CHECKING:
    from streamvlm.engine import StreamVLM

Words = Annotated[
    list[str],
    typer.Argument(
        metavar="[VIDEO]... QUESTION...",
        help="Videos (files, folders, URLs), then questions; with --memory, questions alone.",
        show_default=False,
    ),
]


def _looks_like_video(word: str) -> bool:
    """Whether a word is a place to look rather than a question."""
    return (
        re.match(r"[a-zA-Z][\w+.-]*://", word) is not None
        or os.path.exists(word)
        or ("?" not in word and re.search(r"^\S+\.\w{2,4}$|^\S+/$", word) is not None)
    )


def _split(words: Sequence[str], memory: Path | None) -> tuple[list[str], list[str]]:
    """Leading videos, and the questions after them."""
    videos: list[str] = []
    for word in words:
        if not _looks_like_video(word):
            break
        videos.append(word)
    if not videos and memory is None and len(words) > 1:
        videos = [words[0]]  # named as a video by its place: its absence is reported as such
    questions = list(words[len(videos) :])
    if not questions or not all(question.strip() for question in questions):
        raise typer.BadParameter("no question; write it in quotes after the video")
    if not videos and memory is None:
        raise typer.BadParameter("no video; name one before the question, or give --memory")
    return videos, questions


def _open(config: str, overrides: Sequence[str] | None, memory: Path | None) -> StreamVLM:
    # Imported here: torch takes seconds to load, and a mistyped command should not wait for it.
    from streamvlm.config import load

    return load(config, overrides or ()).build(memory)


def _watch(vlm: StreamVLM, videos: Sequence[str], *, as_json: bool) -> tuple[list[str], bool]:
    """Ingest every source of every video, and say at once what became of each.

    Returns:
        The streams that are now in the memory, and whether none failed.
    """
    streams: list[str] = []
    fine = True
    with show.progress() as progress:
        for result in vlm.ingest_each(videos, progress):
            show.ingested(result, as_json=as_json)
            if result.error is None:
                streams.append(result.stream)
            else:
                fine = False
    return streams, fine


@contextmanager
def _queries(
    words: Sequence[str],
    vlm: StreamVLM,
    videos: Sequence[str],
    *,
    limits: Mapping[str, Any],
    as_json: bool,
) -> Iterator[list[Query]]:
    """The questions as queries, once the videos before them are watched.

    Without `--stream` a question about named videos is about those only.

    Raises:
        typer.Exit: with code 1 if a video failed: at once if there is none left to ask about,
            else at the end.
    """
    streams, fine = _watch(vlm, videos, as_json=as_json)
    if videos and not streams:
        raise typer.Exit(1)
    if vlm.stages.uses_demo_model:
        show.note(show.DEMO_NOTE)
    chosen = {**limits, "streams": limits["streams"] or streams}
    yield [vlm.query(question, **chosen) for question in words]
    if not fine:
        raise typer.Exit(1)


def _limits(
    stream: Sequence[str] | None, since: float | None, until: float | None
) -> dict[str, Any]:
    """What narrows every question, checked before anything is loaded."""
    Query("any", since=since, until=until)
    return {"streams": stream or (), "since": since, "until": until}


def ask(
    words: Words,
    config: ConfigName = "default",
    memory: MemoryFolder = None,
    overrides: Overrides = None,
    stream: Streams = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Answer questions about videos, with evidence, coverage and cost."""
    videos, questions = _split(words, memory)
    limits = _limits(stream, since, until)
    with (
        _open(config, overrides, memory) as vlm,
        _queries(questions, vlm, videos, limits=limits, as_json=as_json) as queries,
    ):
        for query in queries:
            _answer(vlm, query, as_json=as_json)


def _answer(vlm: StreamVLM, query: Query, *, as_json: bool) -> None:
    if as_json:
        show.line(plain(vlm.ask(query)))
        return
    show.out.print(query.text, style="bold", markup=False)
    answer = vlm.ask(query, on_word=lambda word: show.out.print(word.text, end="", markup=False))
    show.out.print()
    show.footnotes(answer)


def ingest(
    videos: Annotated[
        list[str], typer.Argument(help="Files, folders and URLs.", show_default=False)
    ],
    memory: Annotated[
        Path, typer.Option("--memory", "-m", help="The folder to keep it in; made if needed.")
    ],
    config: ConfigName = "default",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Watch videos once and remember them; one that fails never stops the others."""
    with _open(config, overrides, memory) as vlm:
        _, fine = _watch(vlm, videos, as_json=as_json)
    if not fine:
        raise typer.Exit(1)


def search(
    words: Words,
    config: ConfigName = "default",
    memory: MemoryFolder = None,
    overrides: Overrides = None,
    stream: Streams = None,
    since: Since = None,
    until: Until = None,
    thumbnails: Annotated[
        Path, typer.Option(help="The folder that a picture of each moment is written to.")
    ] = Path("thumbnails"),
    most: Annotated[int, typer.Option(min=1, help="How many moments at the most.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Find the moments that bear on a question, the best first: times, scores and pictures."""
    videos, questions = _split(words, memory)
    limits = {**_limits(stream, since, until), "max_records": most}
    with (
        _open(config, overrides, memory) as vlm,
        _queries(questions, vlm, videos, limits=limits, as_json=as_json) as queries,
    ):
        for query in queries:
            _moments(vlm, query, thumbnails, as_json=as_json)


def _moments(vlm: StreamVLM, query: Query, thumbnails: Path, *, as_json: bool) -> None:
    named = moments(query.text) if query.since is None and query.until is None else ()

    def rank(found: Evidence) -> tuple[bool, float]:
        # What shows a time that the question names is better than what is only alike.
        record = found.record
        shows = any(m.start < record.end and record.start < m.end for m in named)
        return not shows, -found.score

    evidence = sorted(vlm.search(query), key=rank)
    if not as_json:
        show.out.print(query.text, style="bold", markup=False)
    if not evidence:
        show.note("nothing in the memory lies within those limits")
    for found in evidence:
        picture = thumbnails / f"{found.record.id}.jpg"
        try:
            thumbnails.mkdir(parents=True, exist_ok=True)
            picture.write_bytes(found.record.thumbnail)
        except OSError as error:
            reason = f"{thumbnails}: no pictures can be written there ({error.strerror})"
            raise SourceError(f"{reason}; give another folder with --thumbnails") from error
        if as_json:
            show.line({"query": query.text, **plain(found), "thumbnail": str(picture)})
        else:
            show.out.print(f"  {show.evidence_line(found)}  {picture}", markup=False)
