"""Forgetting for good: records leave the answers at once, and then their bytes leave the disk."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.catalog.rows import Rows
from streamvlm.memory.disk.folder import Sync, check_catalog, in_words, read_format
from streamvlm.memory.disk.gate import try_lock
from streamvlm.memory.disk.shards import shard_file
from streamvlm.memory.maintain import Report, erase, maintaining


@dataclass(frozen=True, slots=True)
class Held:
    """Deleted bytes that are still on the disk."""

    shards: int = 0
    """Shards that have no name any more, but that a live writer has open."""
    bytes: int = 0
    """Of those; they leave when it writes again or ends."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What became of the forgotten records."""

    streams: tuple[str, ...]
    """Whose they were."""
    records: int
    bytes: int
    """Of those records in the shards."""
    held: Held
    """What a live writer keeps a while longer."""


def forget(
    path: Path | str,
    streams: Sequence[str] = (),
    *,
    before: float | None = None,
    sync: Sync = "power",
) -> Forgotten:
    """Delete records, and take their keys, tokens, thumbnails and rows off the disk.

    Others may read and write meanwhile. What the disk itself keeps of erased blocks, and copies
    made elsewhere, are out of reach.

    Args:
        path: the memory's folder.
        streams: ids of the streams; empty for all, with `before`.
        before: delete only records that end by this second of their stream, and keep the streams.
        sync: what the result survives.

    Raises:
        MemoryStoreError: a stream is not there, or another process maintains the memory; then
            nothing was done. Or the disk is full: then the message says how to go on.
    """
    path = Path(path).absolute()
    if not streams and before is None:
        raise MemoryStoreError(
            "nothing says what to forget; name a stream, or a second before which all is forgotten"
        )
    with maintaining(path, sync) as (catalog, _):
        there = sorted(catalog.stream_numbers())
        chosen = tuple(streams) or tuple(there)
        if unknown := sorted(set(chosen) - set(there)):
            raise MemoryStoreError(
                f"the memory {path} has no stream {unknown[0]}; name one of: "
                f"{', '.join(there[:5]) or 'none, it is empty'}"
            )
        size = sum(total[3] for total in catalog.totals(before) if total[0] in chosen)
        records = sum(catalog.forget(stream, before) for stream in chosen)
    try:
        _, held = erase_all(path, sync=sync)
    except MemoryStoreError as error:
        raise MemoryStoreError(
            f"{records} records are forgotten, but their bytes are still on the disk: {error}; "
            f"then take them off with: streamvlm memory compact {path} --erase"
        ) from error
    return Forgotten(chosen, records, size, held)


def erase_all(path: Path | str, *, sync: Sync = "power") -> tuple[Report, Held]:
    """Take everything that was ever deleted off the disk; see `maintain.erase`.

    Returns:
        What was done, and what a live writer keeps a while longer.

    Raises:
        MemoryStoreError: another process maintains the memory, or the disk is full or broken.
    """
    path = Path(path).absolute()
    with in_words(path, "erase"), _open_shards(path) as files:
        report = erase(path, sync=sync)
        unnamed = [os.fstat(file) for file in files if not try_lock(file)]
        sizes = [file.st_size for file in unnamed if not file.st_nlink]
    return report, Held(len(sizes), sum(sizes))


@contextmanager
def _rows(path: Path) -> Iterator[Rows]:
    rows = Rows(path / "catalog.db", writable=False)
    try:
        yield rows
    finally:
        rows.close()


@contextmanager
def _open_shards(path: Path) -> Iterator[list[int]]:
    """The files of all shards that a writer may have open, as descriptors."""
    read_format(path)
    check_catalog(path)
    files: list[int] = []
    try:
        with _rows(path) as rows:
            names = [shard.name for shard in rows.shards("open")]
        for name in names:
            with suppress(FileNotFoundError):
                files.append(os.open(shard_file(path / "shards", name), os.O_RDONLY))
        yield files
    finally:
        for file in files:
            os.close(file)
