"""Copies: of the catalogue into the memory's own `backup/`, or of a whole memory elsewhere."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.catalog.rows import Rows, Shard
from streamvlm.memory.disk.folder import (
    UNFINISHED,
    check_vacant,
    in_words,
    is_memory,
    sync_folder,
    write_durably,
)
from streamvlm.memory.disk.shards import shard_file
from streamvlm.memory.info import Progress, unwatched
from streamvlm.memory.maintain import back_up, maintaining

_BLOCK = 1 << 24


@dataclass(frozen=True, slots=True)
class Copied:
    """What a copy of a whole memory holds."""

    path: str
    records: int
    shards: int
    bytes: int
    """Of the shards."""
    linked: int
    """Shards that lie on the same disk and share their blocks with the memory's."""
    damaged: tuple[str, ...]
    """Shards whose file is missing or cut short, in the memory as in the copy."""


def back_up_catalog(path: Path | str) -> Path:
    """Copy the catalogue of a memory into its `backup/`; today's copy is replaced.

    Args:
        path: the memory's folder.

    Returns:
        The copy. `rebuild` takes from it what the shards do not say.

    Raises:
        MemoryStoreError: another process maintains the memory, or the disk is full.
    """
    with maintaining(Path(path)) as (catalog, _):
        copy = back_up(Path(path).absolute(), catalog)
        # It may be of this morning.
        catalog.backup(copy)
        sync_folder(copy.parent)
        return copy


def copy_memory(path: Path | str, to: Path | str, progress: Progress = unwatched) -> Copied:
    """Make a copy of a memory that is itself a memory, while writers go on.

    It holds what was committed when this was called. Shards that nobody will append to are linked
    where both lie on one disk, else copied. Index files are left out; they are made again. A copy
    that was killed is no memory, and the next one into the same folder begins afresh.

    Args:
        path: the memory's folder.
        to: a folder that is new or empty.
        progress: is told how many bytes of how many are copied.

    Raises:
        MemoryStoreError: `to` holds other files, another process maintains the memory, the memory
            may not be written, or the disk is full.
    """
    path, to = Path(path).resolve(), Path(to).resolve()
    _check_writable(path)
    # No shard is rewritten or removed while this lock is held.
    with maintaining(path) as (catalog, _), in_words(path, f"copy to {to}"):
        if to.is_relative_to(path):
            raise MemoryStoreError(f"{to} lies inside the memory {path}; copy it to another folder")
        _clear(to)
        check_vacant(to)
        (to / "shards").mkdir(parents=True, exist_ok=True)
        write_durably(to / UNFINISHED, b"")
        catalog.backup(to / "catalog.db")
        copied = _shards(path, to, progress)
        for folder in (to / "shards", to, to.parent):
            sync_folder(folder)
        write_durably(to / "format.json", (path / "format.json").read_bytes())
        (to / UNFINISHED).unlink()
        return copied


def _check_writable(path: Path) -> None:
    """Where the lock cannot be taken, say how else to make a copy."""
    if path.is_dir() and not os.access(path, os.W_OK):
        raise MemoryStoreError(
            f"cannot lock the memory {path} to copy it: writing there is not permitted. If nobody "
            f"else writes to it, it may be copied like any folder: cp -r {path} FOLDER"
        )


def _clear(to: Path) -> None:
    """Remove what a killed copy left in a folder."""
    if not (to / UNFINISHED).exists() or is_memory(to):
        return
    shutil.rmtree(to / "shards", ignore_errors=True)
    for pattern in ("catalog.db*", ".catalog.db*", ".format.json.*", f"{UNFINISHED}*"):
        for file in to.glob(pattern):
            file.unlink()


def _shards(path: Path, to: Path, progress: Progress) -> Copied:
    """Bring over the shards that a copied catalogue names."""
    rows = Rows(to / "catalog.db", writable=False)
    try:
        shards = [shard for shard in rows.shards() if shard.state != "dead"]
        live, records = rows.live(), rows.count()
    finally:
        rows.close()
    total, done, linked = sum(shard.bytes for shard in shards), 0, 0
    damaged = []
    for shard in shards:
        source, target = (shard_file(each / "shards", shard.name) for each in (path, to))
        try:
            if shard.state == "sealed" and _link(source, target):
                linked += 1
            else:
                for count in _copy(source, target, shard):
                    progress(done + count, total)
            is_whole = target.stat().st_size >= shard.bytes
        except FileNotFoundError:
            is_whole = False
        if shard.name in live and not is_whole:
            damaged.append(shard.name)
        done += shard.bytes
        progress(done, total)
    return Copied(str(to), records, len(shards), total, linked, tuple(damaged))


def _link(source: Path, target: Path) -> bool:
    """Give a file a second name; False where that cannot be."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    return True


def _copy(source: Path, target: Path, shard: Shard) -> Iterator[int]:
    """Copy a shard up to where its last committed record ends; says now and then how far it is."""
    done = 0
    with source.open("rb") as file, target.open("wb") as copy:
        while block := file.read(min(_BLOCK, shard.bytes - done)):
            copy.write(block)
            done += len(block)
            yield done
        copy.flush()
        os.fsync(copy.fileno())
