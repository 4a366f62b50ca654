"""The commands that read a memory: info, verify, export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from streamvlm.cli import memory_words as words
from streamvlm.cli import show
from streamvlm.cli.memory_words import MemoryPath
from streamvlm.cli.options import AsJson, Since, Streams, Until

if TYPE_CHECKING:
    from streamvlm.memory.info import MemoryInfo

_TIERS = ("as stored", "with fewer tokens", "merged", "keys and thumbnail only")


def info(path: MemoryPath, as_json: AsJson = False) -> None:
    """Say what a memory holds and how much it takes, without reading a record."""
    from streamvlm.memory.survey import survey

    found = survey(path)
    if as_json:
        show.line(asdict(found))
        return
    identity, novelty = found.identity, found.novelty
    words.say(found.path, "bold")
    rows = [
        ("encoder", identity.encoder),
        ("embedder", f"{identity.embedder}, keys of {identity.key_width} numbers"),
        ("payload", found.payload),
        (
            "indexed",
            f"keys whose cosine to those before is below {novelty.cosine:g}; all of them every "
            f"{novelty.anchor_seconds:g} s",
        ),
        ("records", f"{found.records} in {words.few(found.shards, 'shard')}"),
        (
            "on disk",
            f"{words.size(found.disk_bytes)} in {words.few(found.files, 'file')}; index: "
            f"{words.size(found.index_bytes)}, copies of the catalogue: "
            f"{words.size(found.backup_bytes)}",
        ),
        ("deleted", f"{words.size(found.dead_bytes)} still there"),
    ]
    for label, text in rows:
        words.say(f"  {label:<9} {text}")
    for stream in found.streams:
        _stream(found, stream)
    if found.missing_shards:
        words.warn(
            f"{words.few(found.missing_shards, 'shard')} missing; see what is lost: "
            f"streamvlm memory verify {path}"
        )


def _stream(found: MemoryInfo, stream: str) -> None:
    held = found.of(stream)
    words.say(stream, "bold")
    ending = ""
    if stream in found.unfinished:
        ending = "; its ingest goes on or was interrupted: if so, run the same ingest again"
    if not held:
        words.say(f"  no records{ending}")
        return
    records = sum(each.records for each in held)
    span = f"{min(each.start for each in held):.1f}–{max(each.end for each in held):.1f} s"
    keys, indexed = (sum(getattr(each, name) for each in held) for name in ("keys", "indexed_keys"))
    room = words.size(sum(each.bytes for each in held))
    words.say(
        f"  {words.few(records, 'record')}, {span}, {room}, "
        f"{words.few(keys, 'key')}, {indexed} of them indexed{ending}"
    )
    if any(each.tier for each in held):
        words.say("  " + ", ".join(f"{each.records} {_TIERS[each.tier]}" for each in held))


def verify(path: MemoryPath, as_json: AsJson = False) -> None:
    """Read every byte of a memory and compare it with its checksum.

    Damage is named by record, video and time, and costs exit code 1; of index files alone it costs
    nothing, as they are made again. This is about the memory's own files; whether its frames are
    still those of the videos is what `streamvlm verify` checks.
    """
    from streamvlm.memory.audit import audit

    read = lost = findings = harmless = 0
    with words.bar("verifying") as bar:

        def progress(done: int, total: int) -> None:
            nonlocal read
            read = done
            bar(done, total)

        for finding in audit(path, progress):
            findings += 1
            lost += finding.records
            harmless += finding.kind == "index"
            if as_json:
                show.line({"finding": asdict(finding)})
            else:
                tell = words.warn if finding.kind == "index" else show.failure
                tell(finding.problem)
    if as_json:
        show.line({"records": read, "damaged_records": lost, "findings": findings})
    elif findings > harmless:
        few = words.few(lost, "record")
        words.say(f"FAILED: {few} damaged or lost; {words.few(findings, 'finding')} in all", "red")
    else:
        intact = f"ok: {words.few(read, 'record')}, every byte as it was written"
        but = f", but index files of {words.few(harmless, 'shard')} are made again"
        words.say(intact + (but if harmless else ""))
    if findings > harmless:
        raise typer.Exit(1)


def export(
    path: MemoryPath,
    out: Annotated[
        Path,
        typer.Option("--out", "-o", help="A new or empty folder.", show_default=False),
    ],
    stream: Streams = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Write a memory's records as files that any program reads.

    records.jsonl and streams.jsonl have one JSON object a line, tensors/ has a safetensors file for
    each record (features as a model reads them, places, times, keys), thumbnails/ a JPEG. Damaged
    records are named and left out, at exit code 1.
    """
    from streamvlm.memory.export import Selection
    from streamvlm.memory.export import export as export_records
    from streamvlm.types import Query

    Query("any", since=since, until=until)
    selection = Selection(words.matched(path, stream), since, until)
    with words.bar("exporting") as progress:
        done = export_records(path, out, selection, progress=progress, tell=show.failure)
    if as_json:
        show.line(asdict(done))
    else:
        streams = words.few(done.streams, "stream")
        words.say(f"exported: {words.few(done.records, 'record')} of {streams} to {out}")
        if not done.records and not done.damaged:
            is_limited = bool(stream) or since is not None or until is not None
            show.note("nothing lies within those limits" if is_limited else "the memory is empty")
    if done.damaged:
        raise typer.Exit(1)
