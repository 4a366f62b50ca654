"""All shards of a memory as searched: follows the catalogue, ranks by indexed keys."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamvlm.memory.catalog.rows import Rows, Shard
from streamvlm.memory.disk.shards import ShardReader
from streamvlm.memory.index.held import Held
from streamvlm.memory.index.part import Part
from streamvlm.memory.index.scan import Ranking, best

logger = logging.getLogger(__name__)

_PATIENCE = 5
"""How often a look at the catalogue begins anew because shards are rewritten meanwhile."""


class View:
    """What is known of every shard; several threads may search at once.

    Args:
        rows: the catalogue.
        folder: the memory's.
        width: E, the length of a key.
        reader: reads shards.
        device: where keys are compared.
    """

    def __init__(
        self, rows: Rows, folder: Path, width: int, reader: ShardReader, device: str
    ) -> None:
        self._rows = rows
        self._index = folder / "index"
        self._width = width
        self._reader = reader
        self._device = device
        self._lock = threading.Lock()
        self._parts: dict[int, Part] = {}
        self._version: tuple[int, int] | None = None
        self._unreadable: set[int] = set()

    def search(
        self,
        queries: NDArray[np.float32],
        streams: Sequence[int] | None,
        times: tuple[float | None, float | None],
        limit: int,
    ) -> list[Ranking]:
        """The best records by their indexed keys, as numbers, for each query key.

        Args:
            queries: (Q, E) unit vectors.
            streams: numbers of the streams to look at; None for all.
            times: (since, until) in seconds.
            limit: how many records for each query key.
        """
        parts, held = self._follow()
        looks = [each.look(queries, streams, times, limit) for each in held]
        # What is best in one shard settles what may be missing in the others.
        nothing = np.full((1, len(queries)), -np.inf, np.float32)
        floor = np.concatenate([nothing, *(look.tops[None] for _, look in looks)]).max(axis=0)
        found = [
            [(numbers[places], scores) for places, scores in look.settled(floor)]
            for numbers, look in looks
        ]
        for part in parts:
            part.save()
        return [_merged([each[query] for each in found], limit) for query in range(len(queries))]

    def _follow(self) -> tuple[list[Part], list[Held]]:
        """The shards, and what is known of them at one moment."""
        with self._lock:
            for _ in range(_PATIENCE):
                version = self._rows.version()
                if version == self._version:
                    break
                lost = self._look()
                # Read before the look: a commit in between is looked at once more, never missed.
                self._version = version
                # A shard may have been rewritten and removed since: then its records are elsewhere.
                if not lost or self._rows.version() == version:
                    self._tell(lost)
                    break
            parts = list(self._parts.values())
            return parts, [part.now for part in parts]

    def _look(self) -> list[int]:
        """Bring every part up to the catalogue; the records whose keys cannot be read."""
        lost: list[int] = []
        before = {number: part.now for number, part in self._parts.items()}
        with self._rows.snapshot():
            shards = [shard for shard in self._rows.shards() if shard.state != "dead"]
            parts = {shard.number: self._part(shard) for shard in shards}
            changed = [shard for shard in shards if parts[shard.number].shard != shard]
            new = [shard for shard in changed if not len(parts[shard.number].now.records)]
            for shard in changed:
                if len(parts[shard.number].now.records):
                    lost += parts[shard.number].follow(shard, self._rows, (), [])
            # A rewrite moves records: now it is known which shards they left.
            left = [
                held
                for number, held in before.items()
                if number not in parts or not len(parts[number].now.records)
            ]
            others = list(before.values())
            for shard in new:
                lost += parts[shard.number].follow(shard, self._rows, others, left)
            self._parts = parts
        return lost

    def _part(self, shard: Shard) -> Part:
        """What is held of a shard, or what will be."""
        return self._parts.get(shard.number) or Part(
            shard.name, self._width, self._reader, self._index, self._device
        )

    def _tell(self, lost: Sequence[int]) -> None:
        fresh = set(lost) - self._unreadable
        self._unreadable |= fresh
        for row in self._rows.by_sid(sorted(fresh)).values():
            segment = row.segment
            logger.warning(
                "a search cannot find record %s (%s): its keys in shard %s cannot be read; restore "
                "the shard from a copy, or forget its stream and ingest it again",
                segment.uid,
                segment.when,
                row.shard,
            )


def _merged(rankings: Sequence[Ranking], limit: int) -> Ranking:
    """The best of what several shards gave."""
    if not rankings:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    records, scores = zip(*rankings, strict=True)
    return best(np.concatenate(records), np.concatenate(scores), limit)
