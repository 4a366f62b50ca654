"""What a memory has of a source while it is ingested: all, half, of other settings, forgotten."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from streamvlm.errors import MemoryStoreError, SourceError
from streamvlm.memory.store import Memory, StreamInfo
from streamvlm.types import Coverage, MemoryRecord

_SECTIONS = {"compressors": "compressor"}
"""The section of a configuration that a part of a recipe comes from, where its name is another."""
_ABSENT = "nothing"
"""What a setting is that one of two recipes does not have."""


class Sitting:
    """One ingest of one source. It ends if another process forgets the stream meanwhile.

    What was forgotten must not come back record by record, nor be claimed as watched.

    Args:
        memory: where records go; must be writable.
        info: of the source, with no coverage yet.
    """

    def __init__(self, memory: Memory, info: StreamInfo) -> None:
        known = memory.stream(info.stream)
        if known is not None and info != replace(
            known, coverage=info.coverage, seconds=info.seconds
        ):
            memory.forget(info.stream)  # what an interrupted ingest left is of other settings
        self._memory, self._info = memory, info
        self._number = memory.put_stream(info)

    def append(self, record: MemoryRecord) -> None:
        """Store a record of the source.

        Raises:
            MemoryStoreError: the stream was forgotten, or the memory cannot be written.
        """
        self._memory.append([record])
        if not self._memory.has_stream(self._info.stream, self._number):
            self._stop()

    def pause(self, coverage: Coverage) -> None:
        """Write what was watched until it was interrupted, unless the stream was forgotten."""
        info = replace(self._info, seconds=coverage.seconds, coverage=coverage)
        self._memory.update_stream(info, self._number)

    def finish(self, coverage: Coverage) -> Coverage:
        """Write what was watched of the whole source.

        Returns:
            The same, but for what was forgotten meanwhile.

        Raises:
            MemoryStoreError: the stream was forgotten, or the memory cannot be written.
        """
        info = replace(self._info, seconds=coverage.seconds, coverage=coverage, complete=True)
        if not self._memory.update_stream(info, self._number):
            self._stop()
        written = self._memory.stream(info.stream)
        return coverage if written is None else written.coverage

    def _stop(self) -> None:
        # No more than one record: all before it were there when the stream still was.
        self._memory.forget_strays(self._info.stream)
        raise MemoryStoreError(
            f"{self._info.stream} was forgotten while it was ingested; run the same command to "
            "ingest it again"
        )


def check_known(memory: Memory, known: StreamInfo, info: StreamInfo) -> None:
    """Refuse to take one source for another, or for the same seen with other settings.

    Args:
        memory: holds the stream.
        known: what it knows of it.
        info: of the source as it is now, to be ingested under the same name.

    Raises:
        SourceError: the source has changed.
        MemoryStoreError: the settings are others.
    """
    if (known.size, known.digest) != (info.size, info.digest):
        where = f"{shlex.quote(str(memory.path))} --stream {shlex.quote(known.stream)}"
        raise SourceError(
            f"{known.stream} has changed since it was ingested; forget what it was with "
            f"`streamvlm memory forget {where}`, or ingest it into another memory folder, or under "
            "another name"
        )
    if known.recipe != info.recipe:
        old, new = _settings(known.recipe), _settings(info.recipe)
        names = [name for name in sorted(old | new) if old.get(name) != new.get(name)]
        pairs = [f"{n} {old.get(n, _ABSENT)} against {new.get(n, _ABSENT)}" for n in names]
        ways = " ".join(
            f"--set {shlex.quote(f'{name}={old[name]}')}" for name in names if name in old
        )
        raise MemoryStoreError(
            f"{known.stream} was ingested with other settings: {', '.join(pairs)}; "
            f"{f'give {ways}' if ways else 'use those'}, or another memory folder"
        )


def _settings(recipe: str) -> dict[str, str]:
    """The options in a recipe by name, as they are written after `--set`."""
    try:
        return dict(_flat("", json.loads(recipe)))
    except (ValueError, AttributeError):
        return {}  # written by another program


def _flat(section: str, options: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in options.items():
        if isinstance(value, Mapping):
            yield from _flat(f"{section}{_SECTIONS.get(name, name)}.", value)
        else:
            yield f"{section}{name}", value if isinstance(value, str) else json.dumps(value)
