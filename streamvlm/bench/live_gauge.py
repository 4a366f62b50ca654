"""What a live memory takes while it is written: main memory, bytes and files on the disk, time."""

from __future__ import annotations

import gc
import os
from dataclasses import dataclass, field
from pathlib import Path

from streamvlm.memory.catalog.rows import Rows
from streamvlm.memory.disk.shards import SUFFIX

_STATM = Path("/proc/self/statm")
_TIERS = 4


@dataclass(frozen=True, slots=True)
class Sample:
    """What there was at a moment of the day."""

    seconds: float
    """Of the day."""
    resident: int | None
    """Bytes of main memory that the whole process takes; None where Linux does not tell."""
    disk: int
    """Bytes of all files of the memory."""
    files: int
    """All of them."""
    shards: int
    """Those of them that hold records."""
    tiers: tuple[int, ...]
    """Records of each tier of age, 0 to 3."""
    search: float
    """Seconds that a search took."""

    @property
    def records(self) -> int:
        """Of all tiers."""
        return sum(self.tiers)


@dataclass(slots=True)
class Gauge:
    """Looks at the folder of a memory as often as it is told to, and keeps the most it saw."""

    path: Path
    """The folder."""
    disk: int = 0
    """The most bytes of all files."""
    shards: int = 0
    """The most shard files."""
    records: int = 0
    """The most records, at samples."""
    samples: list[Sample] = field(default_factory=list)

    def look(self) -> tuple[int, int, int]:
        """Bytes, files and shard files now."""
        disk, files, shards = taken(self.path)
        self.disk, self.shards = max(self.disk, disk), max(self.shards, shards)
        return disk, files, shards

    def sample(self, seconds: float, rows: Rows, search: float) -> None:
        """Note everything at a moment.

        Args:
            seconds: of the day.
            rows: the catalogue.
            search: seconds that a search took just now.
        """
        tiers = [0] * _TIERS
        for _, tier, records, *_ in rows.totals():
            tiers[tier] += records
        self.records = max(self.records, sum(tiers))
        gc.collect()
        self.samples.append(Sample(seconds, resident(), *self.look(), tuple(tiers), search))


def resident() -> int | None:
    """Bytes of main memory that this process takes; None where Linux does not tell."""
    try:
        pages = int(_STATM.read_text().split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def taken(path: Path) -> tuple[int, int, int]:
    """Bytes of all files in a folder and the folders in it, their number, and of shards that.

    Args:
        path: the folder; files may come and go meanwhile.
    """
    size = files = shards = 0
    with os.scandir(path) as entries:
        for entry in entries:
            try:
                found = entry.stat()
            except FileNotFoundError:
                continue
            if entry.is_dir():
                inner = taken(Path(entry.path))
                size, files, shards = size + inner[0], files + inner[1], shards + inner[2]
            else:
                size, files = size + found.st_size, files + 1
                shards += entry.name.endswith(SUFFIX)
    return size, files, shards
