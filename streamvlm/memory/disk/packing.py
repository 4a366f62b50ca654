"""Records as they go into a shard: their bytes, their novel keys marked, their rows.

N tokens, K keys, E key width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamvlm.memory.catalog.rows import Segment
from streamvlm.memory.disk.blob import Pieces, size
from streamvlm.memory.disk.codec import assemble
from streamvlm.memory.disk.folder import Format
from streamvlm.memory.disk.keys import as_stored, pack_keys
from streamvlm.memory.index.novelty import StreamNovelty
from streamvlm.types import MemoryRecord


@dataclass(frozen=True, slots=True)
class Packed:
    """A record on its way to a shard."""

    record: MemoryRecord
    pieces: Pieces
    """As `codec.assemble` gave them."""
    num_indexed: int
    """How many of its keys the index gets."""
    is_anchor: bool
    """Whether what follows is compared with nothing before it."""

    @property
    def length(self) -> int:
        """Bytes."""
        return size(self.pieces)

    def at(self, offset: int, key_base: int) -> Segment:
        """The row of the record once it is written at a place."""
        record = self.record
        return Segment(
            uid=record.id,
            stream=record.stream,
            start=record.start,
            end=record.end,
            offset=offset,
            length=self.length,
            num_keys=len(record.keys),
            num_indexed=self.num_indexed,
            key_base=key_base,
            is_anchor=int(self.is_anchor),
            tier=record.tier,
        )


def lay_out(packed: Sequence[Packed], offsets: Sequence[int], key_base: int) -> list[Segment]:
    """The rows of records that were written one behind the other.

    Args:
        packed: the records.
        offsets: where each is.
        key_base: number of the first indexed key within the shard.
    """
    segments = []
    for each, offset in zip(packed, offsets, strict=True):
        segments.append(each.at(offset, key_base))
        key_base += each.num_indexed
    return segments


def packed(records: Sequence[MemoryRecord], chosen: Format, novelty: StreamNovelty) -> list[Packed]:
    """Records of one stream as bytes, each with its novel keys marked.

    Args:
        records: in the order of time, at least one.
        chosen: the memory's identity and payload.
        novelty: what was kept of the stream before them.

    Raises:
        MemoryStoreError: a record does not fit the memory.
    """
    for record in records:
        chosen.identity.check(record)
    found = []
    for record, stored in zip(records, as_stored(records), strict=True):
        is_anchor = novelty.is_due(record.start)
        # As they are stored, so that it makes no difference whether they were read back.
        keys = pack_keys(stored, novelty(stored.astype(np.float32), record.start))
        pieces = assemble(record, chosen.payload, keys, is_anchor=is_anchor)
        found.append(Packed(record, pieces, keys.num_indexed, is_anchor))
    return found
