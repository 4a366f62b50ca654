"""The commands that watch and answer: ask, ingest, search."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from streamvlm.errors import StreamVLMError
from streamvlm.types import Query
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
        or Path(word).exists()
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
    if not questions:
        raise typer.BadParameter("no question; write it in quotes after the video")
    if not videos and memory is None:
        raise typer.BadParameter("no video; name one before the question, or give --memory")
    return videos, questions


def _open(config: str, overrides: Sequence[str] | None, memory: Path | None) -> StreamVLM:
    # Imported here: torch takes seconds to load, and a mistyped command should not wait for it.
    from streamvlm.config import load

    return load(config, overrides or ()).build(memory)


def _watch(vlm: StreamVLM, videos: Sequence[str], *, as_json: bool) -> bool:
    """Ingest each video and say what became of it; False if any failed."""
    from streamvlm.ingest import Ingested

    fine = True
    for video in videos:
        try:
            with show.progress() as progress:
                results = vlm.ingest(video, progress)
        except StreamVLMError as error:
            results = [Ingested(video, error=str(error))]
        for result in results:
            show.ingested(result, as_json=as_json)
            fine &= result.error is None
    return fine


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
    with _open(config, overrides, memory) as vlm:
        fine = _watch(vlm, videos, as_json=as_json)
        if not fine and not vlm.streams():
            raise typer.Exit(1)
        if vlm.stages.uses_demo_model:
            show.note(show.DEMO_NOTE)
        for question in questions:
            query = vlm.query(question, streams=stream or (), since=since, until=until)
            _answer(vlm, query, as_json=as_json)
    if not fine:
        raise typer.Exit(1)


def _answer(vlm: StreamVLM, query: Query, *, as_json: bool) -> None:
    if as_json:
        show.line(plain(vlm.ask(query)))
        return
    show.out.print(query.text, style="bold", markup=False)
    answer = vlm.ask(query, on_word=lambda word: show.out.print(word, end="", markup=False))
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
        fine = _watch(vlm, videos, as_json=as_json)
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
        Path, typer.Option(help="The folder to write a picture of each moment to.")
    ] = Path("thumbnails"),
    as_json: AsJson = False,
) -> None:
    """Find the moments that bear on a question: times, scores and pictures, no answer."""
    videos, questions = _split(words, memory)
    with _open(config, overrides, memory) as vlm:
        fine = _watch(vlm, videos, as_json=as_json)
        if vlm.stages.uses_demo_model:
            show.note(show.DEMO_NOTE)
        for question in questions:
            query = vlm.query(question, streams=stream or (), since=since, until=until)
            evidence = vlm.search(query)
            thumbnails.mkdir(parents=True, exist_ok=True)
            if not as_json:
                show.out.print(question, style="bold", markup=False)
            if not evidence:
                show.note("nothing in the memory lies within those limits")
            for found in evidence:
                picture = thumbnails / f"{found.record.id}.jpg"
                picture.write_bytes(found.record.thumbnail)
                if as_json:
                    show.line({"query": question, **plain(found), "thumbnail": str(picture)})
                else:
                    show.out.print(f"  {show.evidence_line(found)}  {picture}", markup=False)
    if not fine:
        raise typer.Exit(1)
