"""The commands that look after a memory: compact, forget, backup, rebuild."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamvlm.cli import memory_words as words
from streamvlm.cli import show
from streamvlm.cli.memory_words import MemoryPath
from streamvlm.cli.options import AsJson, Streams

if TYPE_CHECKING:
    from streamvlm.memory.forget import Held


def compact(
    path: MemoryPath,
    erase: Annotated[
        bool,
        typer.Option(
            "--erase", help="Write anew whatever holds deleted bytes, until none is left."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Give back the room of what was deleted; others may use the memory meanwhile.

    Files of which little is left are written anew, what killed writers left is removed, and once a
    day the catalogue is copied into backup/.
    """
    from streamvlm.memory.forget import Held, erase_all
    from streamvlm.memory.maintain import maintain
    from streamvlm.memory.survey import survey

    before = survey(path).dead_bytes
    if erase:
        report, held = erase_all(path)
        rewritten, orphans = report.rewritten, report.orphans
    else:
        held, rewritten, orphans = Held(), 0, 0
        while True:
            report = maintain(path)
            rewritten, orphans = rewritten + report.rewritten, orphans + report.orphans
            # One shard a pass, so that a pass is short.
            if not report.rewritten:
                break
    given_back = max(before - report.kept_bytes, 0)
    if as_json:
        done = {"given_back": given_back, "rewritten": rewritten, "orphans": orphans}
        show.line({**done, "deleted_bytes": report.kept_bytes, "held": asdict(held)})
        return
    words.say(
        f"given back: {words.size(given_back)}; {words.few(rewritten, 'shard')} written anew, "
        f"{words.few(orphans, 'stray file')} removed"
    )
    if report.kept_bytes:
        show.note(
            f"{words.size(report.kept_bytes)} of deleted records are still on the disk, beside "
            f"others; to take them off: streamvlm memory compact {path} --erase"
        )
    _still_held(held)


def _still_held(held: Held) -> None:
    if held.shards:
        show.note(
            f"a process that writes to this memory still has {words.size(held.bytes)} of it open; "
            "that leaves the disk when the process writes again or ends"
        )


def forget(
    path: MemoryPath,
    stream: Streams = None,
    before: Annotated[
        float | None,
        typer.Option(
            min=0, help="Only what ends by this second of its video; without --stream, of all."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Take a video, or what is older than a time, out of a memory and off its disk.

    Nobody finds it from then on; its keys, tokens, thumbnails and names leave every file of the
    memory, the copies of its catalogue too. A video may be named by the end of its path.
    """
    from streamvlm.memory.forget import forget as forget_records

    if not stream and before is None:
        raise typer.BadParameter("say what to forget: --stream NAME, --before SECONDS, or both")
    done = forget_records(path, words.matched(path, stream), before=before)
    if as_json:
        show.line(asdict(done))
        return
    streams = done.streams
    whose = streams[0] if len(streams) == 1 else words.few(len(streams), "stream")
    words.say(
        f"forgotten: {words.few(done.records, 'record')} ({words.size(done.bytes)}) of {whose}"
    )
    _still_held(done.held)


def backup(
    path: MemoryPath,
    to: Annotated[
        Path | None,
        typer.Option(help="A new or empty folder for a copy of the whole memory."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy the catalogue into backup/, or the whole memory elsewhere, while writers go on.

    The copy is a memory itself and holds what was stored when it began. Its records are copied as
    they are, unread: `streamvlm memory verify` of the copy checks every byte of them. On the same
    disk, finished files are linked, which takes no room but shares their blocks: against a broken
    disk, copy to another one.
    """
    from streamvlm.memory.backup import back_up_catalog, copy_memory

    if to is None:
        copy = back_up_catalog(path)
        if as_json:
            show.line({"catalogue": str(copy)})
        else:
            words.say(f"copied: the catalogue to {copy}")
        return
    with words.bar("copying") as progress:
        done = copy_memory(path, to, progress)
    if as_json:
        show.line(asdict(done))
    else:
        shards = words.few(done.shards, "shard")
        words.say(
            f"copied: {words.few(done.records, 'record')} in {shards} ({words.size(done.bytes)}) "
            f"to {done.path}; {done.linked} linked"
        )
    if done.damaged:
        show.failure(
            f"{words.few(len(done.damaged), 'shard')} missing or cut short, here as in the copy; "
            f"see what is lost: streamvlm memory verify {path}"
        )
        raise typer.Exit(1)


def rebuild(path: MemoryPath, as_json: AsJson = False) -> None:
    """Make a lost or damaged catalogue again from the records themselves.

    Stop what writes to the memory first. What was watched of each video comes from the newest copy
    of the catalogue that can be read. Records that were forgotten but not yet erased come back.
    """
    from streamvlm.memory.rebuild import rebuild as rebuild_catalog

    with words.bar("reading") as progress:
        done = rebuild_catalog(path, progress)
    if as_json:
        show.line(asdict(done))
    else:
        words.say(
            f"rebuilt: {words.few(done.records, 'record')} in {words.few(done.shards, 'shard')}; "
            f"what was watched is known of {words.few(done.streams, 'stream')}"
        )
    if done.unknown:
        show.note(
            f"what was watched is not known of {words.few(done.unknown, 'stream')}; run the same "
            "ingest again: it adds no record twice and makes that good, but what was forgotten of "
            "them comes back"
        )
    if done.damaged:
        show.failure(
            f"{words.few(done.damaged, 'record')} not whole and left out; ingest their videos again"
        )
        raise typer.Exit(1)
