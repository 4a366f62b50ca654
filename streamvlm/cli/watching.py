"""The commands that watch and answer: ask, ingest, search, around."""

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
    Likes,
    MemoryFolder,
    Overrides,
    Since,
    Streams,
    Until,
)
from streamvlm.errors import SourceError
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


SoughtWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[VIDEO]... [QUESTION]...",
        help="As for ask; with --like, a question is not needed.",
        show_default=False,
    ),
]
Thumbnails = Annotated[
    Path, typer.Option(help="The folder that a picture of each moment is written to.")
]
_THUMBNAILS = Path("thumbnails")


def _looks_like_video(word: str) -> bool:
    """Whether a word is a place to look rather than a question."""
    return (
        re.match(r"[a-zA-Z][\w+.-]*://", word) is not None
        or os.path.exists(word)
        or ("?" not in word and re.search(r"^\S+\.\w{2,4}$|^\S+/$", word) is not None)
    )


def _split(
    words: Sequence[str], memory: Path | None, like: Sequence[str] | None = None
) -> tuple[list[str], list[str]]:
    """Leading videos, and the questions after them; one without words if a likeness will do."""
    videos: list[str] = []
    for word in words:
        if not _looks_like_video(word):
            break
        videos.append(word)
    if not videos and memory is None and len(words) > (0 if like else 1):
        videos = [words[0]]  # named as a video by its place: its absence is reported as such
    questions = list(words[len(videos) :])
    if like and not questions:
        questions = [""]
    elif not questions or not all(question.strip() for question in questions):
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
    stream: Sequence[str] | None,
    since: float | None,
    until: float | None,
    like: Sequence[str] | None = None,
) -> dict[str, Any]:
    """What narrows every question, checked before anything is loaded."""
    Query("any", since=since, until=until)
    return {"streams": stream or (), "since": since, "until": until, "like": like or ()}


def ask(
    words: Words,
    config: ConfigName = "default",
    memory: MemoryFolder = None,
    overrides: Overrides = None,
    stream: Streams = None,
    since: Since = None,
    until: Until = None,
    like: Likes = None,
    as_json: AsJson = False,
) -> None:
    """Answer questions about videos, with evidence, coverage and cost."""
    videos, questions = _split(words, memory)
    limits = _limits(stream, since, until, like)
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
    words: SoughtWords = None,
    config: ConfigName = "default",
    memory: MemoryFolder = None,
    overrides: Overrides = None,
    stream: Streams = None,
    since: Since = None,
    until: Until = None,
    like: Likes = None,
    thumbnails: Thumbnails = _THUMBNAILS,
    most: Annotated[int, typer.Option(min=1, help="How many moments at the most.")] = 8,
    as_json: AsJson = False,
) -> None:
    """Find the moments that bear on a question, the best first: times, scores and pictures."""
    videos, questions = _split(words or (), memory, like)
    limits = {**_limits(stream, since, until, like), "max_records": most}
    with (
        _open(config, overrides, memory) as vlm,
        _queries(questions, vlm, videos, limits=limits, as_json=as_json) as queries,
    ):
        for query in queries:
            _moments(vlm, query, thumbnails, as_json=as_json)


def _moments(vlm: StreamVLM, query: Query, thumbnails: Path, *, as_json: bool) -> None:
    from streamvlm.likeness import nothing_found

    found = vlm.sightings(query)
    if not as_json:
        show.out.print(" ".join(_named(query)), style="bold", markup=False)
    if not found:
        show.note(nothing_found(query))
    for each in found:
        picture = _thumbnail(each.best, thumbnails)
        if as_json:
            show.line({"query": query.text, **plain(each), "thumbnail": str(picture)})
        else:
            show.out.print(f"  {show.sighting_line(each)}  {picture}", markup=False)


def _named(query: Query) -> Iterator[str]:
    """A query as it was typed."""
    if query.text:
        yield query.text
    yield from (f"like {each}" for each in query.like)


def around(
    moment: Annotated[
        str, typer.Argument(metavar="VIDEO@MM:SS", help="The moment.", show_default=False)
    ],
    memory: Annotated[
        Path, typer.Option("--memory", "-m", help="The folder that keeps what is ingested.")
    ],
    seconds: Annotated[
        float, typer.Option(help="So many seconds before and after it, at most 3600.")
    ] = 60.0,
    thumbnails: Thumbnails = _THUMBNAILS,
    as_json: AsJson = False,
) -> None:
    """Show what was seen around a moment, in time order; no model is loaded."""
    from streamvlm.likeness import parse_moment

    place = parse_moment(moment)
    if place is None:
        raise typer.BadParameter(f"{moment} is no moment; write it as video.mp4@00:40")
    with _open("default", None, memory) as vlm:
        for found in vlm.around(*place, seconds):
            picture = _thumbnail(found, thumbnails)
            if as_json:
                show.line({"moment": moment, **plain(found), "thumbnail": str(picture)})
            else:
                show.out.print(f"{show.evidence_line(found)}  {picture}", markup=False)


def _thumbnail(found: Evidence, folder: Path) -> Path:
    """Write the picture of a record into a folder, which is made if needed."""
    picture = folder / f"{found.record.id}.jpg"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        picture.write_bytes(found.record.thumbnail)
    except OSError as error:
        reason = f"{folder}: no pictures can be written there ({error.strerror})"
        raise SourceError(f"{reason}; give another folder with --thumbnails") from error
    return picture
