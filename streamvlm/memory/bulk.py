"""Finished shards: written by workers without the catalogue, adopted by the owner in one commit.

A worker holds no lock of the memory and never waits; what it returns says all that the catalogue
will know. A shard that nobody adopts is an orphan, which maintenance removes after an hour.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.catalog.rows import Segment
from streamvlm.memory.disk import folder
from streamvlm.memory.disk.folder import Format, Sync, in_words
from streamvlm.memory.disk.gate import shared_lock
from streamvlm.memory.disk.packing import Packed, lay_out, packed
from streamvlm.memory.disk.shards import ShardWriter, shard_file
from streamvlm.memory.index.novelty import StreamNovelty
from streamvlm.types import MemoryRecord

_BATCH = 64
"""Records that are written at once."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """A finished shard, and what is in it; small enough to send between machines."""

    path: str
    """The file."""
    bytes: int
    """Its length."""
    chosen: Format
    """Whose vectors it holds, and how."""
    segments: tuple[Segment, ...]
    """Its records, in the order in which they were written."""


def write_shard(
    target: Path | str,
    chosen: Format,
    records: Iterable[MemoryRecord],
    *,
    sync: Sync = "power",
) -> Manifest:
    """Write records into a shard of their own; nothing knows of it until it is adopted.

    Args:
        target: a folder, best the memory's own `shards`, or one on the worker's disk.
        chosen: `Memory.format` of the memory that will adopt it.
        records: of any streams, those of one stream one after the other, in the order of time.
        sync: with `power`, everything is on disk when this returns.

    Raises:
        MemoryStoreError: a record does not fit, or the disk is full.
    """
    target = Path(target)
    with in_words(target, "write a shard into"):
        target.mkdir(parents=True, exist_ok=True)
        writer = ShardWriter.create(target, "process")
        path = shard_file(target, writer.name)
        segments: list[Segment] = []
        try:
            for batch in _batches(records, chosen):
                base = segments[-1].key_end if segments else 0
                segments += lay_out(batch, writer.append([each.pieces for each in batch]), base)
            if sync == "power":
                writer.flush()
                folder.sync_folder(target)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            writer.close()
    return Manifest(str(path.absolute()), writer.end, chosen, tuple(segments))


def _batches(records: Iterable[MemoryRecord], chosen: Format) -> Iterator[list[Packed]]:
    for _, own in groupby(records, key=lambda record: record.stream):
        novelty = StreamNovelty(chosen.novelty)
        while batch := list(islice(own, _BATCH)):
            yield packed(batch, chosen, novelty)


@contextmanager
def received(
    memory: Path, manifest: Manifest, chosen: Format, sync: Sync
) -> Iterator[tuple[str, tuple[Segment, ...]]]:
    """Bring a finished shard into a memory's folder; inside, nobody takes it for an orphan.

    Args:
        memory: the folder.
        manifest: of the shard.
        chosen: the memory's own format.
        sync: with `power`, the file is on disk inside, whatever its worker flushed.

    Yields:
        The shard's name and its records.

    Raises:
        MemoryStoreError: it is not what the manifest says, or does not fit the memory.
    """
    folder.check_identity(memory, chosen.identity, manifest.chosen.identity)
    path = Path(manifest.path)
    home = memory / "shards" / path.name
    if not home.exists():
        if not path.exists():
            raise MemoryStoreError(
                f"the shard {path} is gone; write it again from its sources, or leave it out"
            )
        draft = home.with_name(f".{home.name}.{secrets.token_hex(4)}")
        shutil.copyfile(path, draft)
        # Before its name, or a crash between the two leaves a file that only looks finished.
        folder.sync_file(draft)
        draft.replace(home)
    with shared_lock(home):
        if sync == "power":
            folder.sync_file(home)
            folder.sync_folder(home.parent)
        if home.stat().st_size != manifest.bytes:
            raise MemoryStoreError(
                f"the shard {home} has {home.stat().st_size} bytes, its manifest says "
                f"{manifest.bytes}; write it again from its sources"
            )
        yield home.stem, manifest.segments
