"""What a memory holds and how much it takes, from the catalogue and the sizes of its files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from streamvlm.memory.catalog.rows import Rows
from streamvlm.memory.disk.folder import check_catalog, in_words, read_format
from streamvlm.memory.disk.shards import shard_file
from streamvlm.memory.info import Holding, MemoryInfo


def survey(path: Path | str) -> MemoryInfo:
    """Look at a memory without reading a record; others may write to it meanwhile.

    Args:
        path: its folder.

    Raises:
        MemoryStoreError: it is no memory, or cannot be read.
    """
    path = Path(path).absolute()
    with in_words(path, "read"):
        chosen = read_format(path)
        check_catalog(path)
        rows = Rows(path / "catalog.db", writable=False)
        try:
            with rows.snapshot():
                holdings = tuple(Holding(*total) for total in rows.totals())
                streams = tuple(sorted(rows.stream_numbers()))
                unfinished = tuple(i.stream for i in rows.streams() if not i.complete)
                shards = [shard.name for shard in rows.shards() if shard.state != "dead"]
                live = rows.live()
        finally:
            rows.close()
        sizes = dict(_sizes(path))
    held = {name: sizes.get(shard_file(path / "shards", name)) for name in shards}
    return MemoryInfo(
        path=str(path),
        identity=chosen.identity,
        payload=chosen.payload,
        novelty=chosen.novelty,
        streams=streams,
        unfinished=unfinished,
        holdings=holdings,
        records=sum(holding.records for holding in holdings),
        shards=len(shards),
        missing_shards=sum(size is None and name in live for name, size in held.items()),
        dead_bytes=sum(max((size or 0) - live.get(name, 0), 0) for name, size in held.items()),
        index_bytes=_within(sizes, path / "index"),
        backup_bytes=_within(sizes, path / "backup"),
        disk_bytes=sum(sizes.values()),
        files=len(sizes),
    )


def _sizes(path: Path) -> Iterator[tuple[Path, int]]:
    """Every file of the memory with its size; those that go meanwhile are left out."""
    for file in path.rglob("*"):
        try:
            if file.is_file():
                yield file, file.stat().st_size
        except FileNotFoundError:
            continue


def _within(sizes: dict[Path, int], folder: Path) -> int:
    return sum(size for file, size in sizes.items() if file.parent == folder)
