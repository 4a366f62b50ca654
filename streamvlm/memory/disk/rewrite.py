"""Writing records anew into a shard of their own: to take deleted ones out, or to thin old ones.

The new bytes are on disk before one transaction points the records at them, so a reader sees the
old or the new version, and a crash leaves one or the other. Shards in which nothing is left are
marked dead by the same means, and only then do their files go.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from streamvlm.memory.catalog.catalog import Catalog
from streamvlm.memory.catalog.rows import Row, Segment
from streamvlm.memory.disk.folder import Sync
from streamvlm.memory.disk.packing import Packed
from streamvlm.memory.disk.shards import ShardReader, ShardWriter, shard_file, shard_size
from streamvlm.memory.index import derived

_BATCH_BYTES = 1 << 20
"""So many bytes are gathered before they are written: the most memory that a rewrite takes."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A record that is copied byte for byte."""

    row: Row


@dataclass(frozen=True, slots=True)
class Replaced:
    """Records in whose place another stands from now on."""

    rows: Sequence[Row]
    by: Packed


class _New(NamedTuple):
    """A record on its way to the new shard: without what it was packed from, which is large."""

    rows: Sequence[Row]
    """As they were, those that it stands for from now on."""
    segment: Segment
    """Its row, but for the place."""
    blob: bytes


@dataclass(slots=True)
class _Placed:
    """What was written of a new shard so far."""

    moved: list[Row]
    replaced: list[tuple[Sequence[Row], Segment]]
    key_base: int = 0

    def add(self, new: _New, offset: int) -> None:
        segment = new.segment._replace(offset=offset, key_base=self.key_base)
        if [row.segment.uid for row in new.rows] == [segment.uid]:
            # The same record, perhaps smaller: it keeps its number.
            self.moved.append(new.rows[0]._replace(segment=segment))
        else:
            self.replaced.append((new.rows, segment))
        self.key_base += segment.num_indexed


def rewrite(
    path: Path, catalog: Catalog, reader: ShardReader, pieces: Iterable[Kept | Replaced], sync: Sync
) -> bool:
    """Write records into a new shard, sealed from the start, and point the catalogue at it.

    Args:
        path: the memory's folder.
        catalog: a connection that may write.
        reader: reads shards.
        pieces: what to write, at least one, in the order of writing.
        sync: what it survives when this returns.

    Returns:
        False if records that were to be replaced were forgotten or moved meanwhile: then all is as
        before.

    Raises:
        OSError: the disk is full or broken; then all is as before.
    """
    writer = ShardWriter.create(path / "shards", "process")
    try:
        catalog.add_shard(writer.name)
        placed = _Placed([], [])
        for batch in _batches(pieces, reader):
            offsets = writer.append([[new.blob] for new in batch])
            for new, offset in zip(batch, offsets, strict=True):
                placed.add(new, offset)
        if sync == "power":
            writer.flush_name()  # and what is in it
        done = catalog.move(writer.name, placed.moved, placed.replaced)
        if not done:
            catalog.seal([writer.name])
        return done
    except BaseException:
        catalog.seal([writer.name])
        raise
    finally:
        writer.close()


def _batches(pieces: Iterable[Kept | Replaced], reader: ShardReader) -> Iterator[list[_New]]:
    batch: list[_New] = []
    size = 0
    for piece in pieces:
        batch.append(_new(piece, reader))
        size += len(batch[-1].blob)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _new(piece: Kept | Replaced, reader: ShardReader) -> _New:
    if isinstance(piece, Replaced):
        return _New(piece.rows, piece.by.at(0, 0), b"".join(piece.by.pieces))
    segment = piece.row.segment
    blob = reader.read(piece.row.shard, segment.offset, segment.length)
    # What a damaged file lacks stays damage, and is reported when the record is read.
    return _New([piece.row], segment, blob.tobytes().ljust(segment.length, b"\0"))


def remove_dead(path: Path, catalog: Catalog, reader: ShardReader) -> int:
    """Delete the files of shards in which no record is left.

    Args:
        path: the memory's folder.
        catalog: a connection that may write.
        reader: of this process, which may have them open.

    Returns:
        How many bytes that gave back.
    """
    catalog.bury()
    freed = 0
    names = [shard.name for shard in catalog.shards("dead")]
    for name in names:
        reader.forget(name)
        freed += shard_size(path / "shards", name)
        shard_file(path / "shards", name).unlink(missing_ok=True)
        derived.remove(path / "index", name)
    if names:
        catalog.drop_shards(names)
    return freed
