"""How a memory is kept, as a configuration says it: the section `memory`."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from streamvlm.errors import BadOption
from streamvlm.memory.disk.folder import is_memory
from streamvlm.memory.store import Caps, Identity, Memory, Novelty

logger = logging.getLogger(__name__)

_GIB = 1 << 30
LEAST_GIB = 0.01
"""Less than this a stream cannot be kept in: the catalogue's log alone takes megabytes."""


@dataclass(frozen=True, slots=True)
class Storage:
    """How a memory folder is written and searched."""

    payload: Literal["int8", "raw"] = "int8"
    """`int8` halves the size; `raw` keeps tokens bit for bit. Of a new memory."""
    novelty: float = 0.90
    """Keys with a cosine below this to what was seen lately are indexed; above 1: all. Of a new
    memory."""
    anchor_seconds: float = 300.0
    """After so many seconds all keys of a record are indexed. Of a new memory."""
    sync: Literal["power", "process"] = "power"
    """What a stored record survives: a power cut, or only the end of the process."""
    max_gib: float | None = None
    """GiB of disk for each stream; beyond, old records are thinned. None for no limit."""
    max_records: int | None = None
    """Records of each stream; beyond, old ones are merged. None for no limit."""
    max_files: int | None = None
    """Shard files for each stream. None for no limit."""
    device: str = "cpu"
    """Where search keys are compared: cpu, cuda, cuda:1, …"""

    def __post_init__(self) -> None:
        if self.max_gib is not None and not self.max_gib >= LEAST_GIB:
            raise BadOption(f"memory: max_gib must be at least {LEAST_GIB}, found {self.max_gib:g}")
        try:
            # These say what is wrong with the others.
            _ = self.caps, self.rule
        except BadOption as error:
            raise BadOption(f"memory: {str(error).removeprefix('novelty: ')}") from None

    @property
    def caps(self) -> Caps | None:
        """The limits of each stream; None if there are none."""
        if self.max_gib is None and self.max_records is None and self.max_files is None:
            return None
        size = None if self.max_gib is None else int(self.max_gib * _GIB)
        return Caps(size, self.max_records, self.max_files)

    @property
    def rule(self) -> Novelty:
        """Which keys a new memory indexes."""
        return Novelty(self.novelty, self.anchor_seconds)

    def writer(self, folder: Path, identity: Identity) -> Memory:
        """Open a memory for writing; made if it is not there.

        Args:
            folder: where it is kept.
            identity: whose vectors it holds.

        Raises:
            MemoryStoreError: it cannot be written, or holds vectors of other weights.
        """
        if is_memory(folder):
            memory = Memory.open(folder, identity, sync=self.sync, caps=self.caps)
            self._warn_of_others(memory)
            return memory
        return Memory.create(
            folder,
            identity,
            payload=self.payload,
            novelty=self.rule,
            sync=self.sync,
            caps=self.caps,
        )

    def reader(self, folder: Path) -> Memory:
        """Open a memory for reading.

        Args:
            folder: where it is kept.

        Raises:
            MemoryStoreError: there is none, or it cannot be read.
        """
        return Memory.open(folder, writable=False, device=self.device)

    def _warn_of_others(self, memory: Memory) -> None:
        """Say what of this is for new memories only, and otherwise in the one that is there."""
        there = memory.format
        others = [
            f"memory.{name} is {kept}, not {wanted}"
            for name, kept, wanted in (
                ("payload", there.payload, self.payload),
                ("novelty", there.novelty.cosine, self.novelty),
                ("anchor_seconds", there.novelty.anchor_seconds, self.anchor_seconds),
            )
            if kept != wanted
        ]
        if others:
            logger.warning(
                "the memory %s stays as it was made: %s; ingest into a new memory for another",
                memory.path,
                ", ".join(others),
            )
