"""A memory as files that any program reads: JSON lines, safetensors, JPEG.

memory.json                  whose vectors these are
streams.jsonl                one stream a line: what is known of it, and what was watched
records.jsonl                one record a line; written last, so that it is there only if all is
tensors/<id>.safetensors     features, position, seconds, weight, keys (and rank, deepstack)
thumbnails/<id>.jpg
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import torch
from safetensors.torch import save

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.catalog.rows import Rows
from streamvlm.memory.disk.folder import in_words
from streamvlm.memory.info import Progress, StreamInfo, unwatched
from streamvlm.memory.store import Memory
from streamvlm.types import MemoryRecord

Tell = Callable[[str], None]
"""Is told in a sentence of a record that is left out."""

_ROUNDS = 2
"""How often what is there is looked up: what was merged meanwhile has another id."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written."""

    records: int
    streams: int
    damaged: tuple[str, ...]
    """Ids of the records that could not be read and are left out."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which records are written."""

    streams: tuple[str, ...] = ()
    """Only these; empty for all."""
    since: float | None = None
    """Only what ends after this second of its stream."""
    until: float | None = None
    """Only what starts before this second of its stream."""


def export(
    path: Path | str,
    out: Path | str,
    selection: Selection | None = None,
    *,
    progress: Progress = unwatched,
    tell: Tell = lambda problem: None,
) -> Exported:
    """Write a memory's records as files; others may write to the memory meanwhile.

    Features are written as a model would read them, of the type they had; one record is held at a
    time. If it fails, nothing of it stays.

    Args:
        path: the memory's folder.
        out: a folder that is new or empty.
        selection: which records; None for all.
        progress: is told how many records of how many are written.
        tell: is told of each record that is damaged and left out.

    Raises:
        MemoryStoreError: `path` is no memory, `out` lies inside it or holds other files, or the
            disk is full.
    """
    path, out = Path(path).resolve(), Path(out).resolve()
    selection = selection or Selection()
    with Memory.open(path, writable=False) as memory, in_words(path, f"export to {out}"):
        if out.is_relative_to(path):
            raise MemoryStoreError(
                f"{out} lies inside the memory {path}, where what is forgotten later would stay; "
                "export to another folder"
            )
        _check_vacant(out)
        out.mkdir(parents=True, exist_ok=True)
        try:
            return _Export(memory, out, selection, progress, tell).run()
        except BaseException:
            # It was empty before.
            for file in out.iterdir():
                shutil.rmtree(file) if file.is_dir() else file.unlink()
            raise


def _check_vacant(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise MemoryStoreError(f"{out} is a file; give a folder to export to")
    found = sorted(file.name for file in out.iterdir()) if out.exists() else []
    if found:
        raise MemoryStoreError(
            f"{out} holds other files ({', '.join(found[:3])}); export to a new or empty folder"
        )


@dataclass(slots=True)
class _Export:
    """One run."""

    memory: Memory
    out: Path
    selection: Selection
    progress: Progress
    tell: Tell

    def run(self) -> Exported:
        """Write everything."""
        known = {info.stream: info for info in self.memory.streams()}
        rows = Rows(self.memory.path / "catalog.db", writable=False)
        with ExitStack() as stack:
            stack.callback(rows.close)
            there = sorted(rows.stream_numbers())
            streams = list(self.selection.streams) or there
            if unknown := sorted(set(streams) - set(there)):
                raise MemoryStoreError(
                    f"the memory {self.memory.path} has no stream {unknown[0]}; name one of: "
                    f"{', '.join(there[:5]) or 'none, it is empty'}"
                )
            self._about(streams, known)
            for name in ("tensors", "thumbnails"):
                (self.out / name).mkdir()
            draft = self.out / ".records.jsonl"
            lines = stack.enter_context(draft.open("w", encoding="ascii"))
            written, damaged = self._records(rows, streams, lines)
        draft.replace(self.out / "records.jsonl")
        return Exported(written, len(streams), tuple(damaged))

    def _about(self, streams: Sequence[str], known: dict[str, StreamInfo]) -> None:
        chosen = self.memory.format
        about = {**asdict(chosen.identity), "payload": chosen.payload}
        (self.out / "memory.json").write_text(json.dumps(about, indent=2) + "\n")
        with (self.out / "streams.jsonl").open("w", encoding="ascii") as file:
            for name in streams:
                _line(file, _stream(name, known.get(name)))

    def _records(self, rows: Rows, streams: Sequence[str], lines: IO[str]) -> tuple[int, list[str]]:
        written, damaged = 0, list[str]()
        total = sum(len(self._within(rows, stream)) for stream in streams)
        for uid in self._ids(rows, streams):
            try:
                (record,) = self.memory.load([uid])
            except MemoryStoreError as error:
                # One that was forgotten, or merged with others, meanwhile is no loss.
                if rows.known([uid]):
                    damaged.append(uid)
                    self.tell(str(error))
                continue
            _line(lines, self._write(record))
            written += 1
            self.progress(written, max(total, written))
        return written, damaged

    def _ids(self, rows: Rows, streams: Sequence[str]) -> Iterator[str]:
        for stream in streams:
            seen: set[str] = set()
            for _ in range(_ROUNDS):
                fresh = [uid for uid in self._within(rows, stream) if uid not in seen]
                seen.update(fresh)
                yield from fresh

    def _within(self, rows: Rows, stream: str) -> list[str]:
        return rows.uids(stream, self.selection.since, self.selection.until)

    def _write(self, record: MemoryRecord) -> dict[str, Any]:
        """Write the files of a record; its line."""
        tokens, name = record.tokens, quote(record.id, safe="")
        tensors = {
            "features": tokens.features,
            "position": tokens.position,
            "seconds": tokens.seconds,
            "weight": tokens.weight,
            "keys": torch.from_numpy(record.keys),
            "rank": tokens.rank,
            "deepstack": tokens.deepstack,
        }
        tensor_file, picture = f"tensors/{name}.safetensors", f"thumbnails/{name}.jpg"
        present = {part: value.contiguous() for part, value in tensors.items() if value is not None}
        # Written from here, because the library hides a full disk behind an error of its own.
        (self.out / tensor_file).write_bytes(save(present, {"id": record.id}))
        if record.thumbnail:
            (self.out / picture).write_bytes(record.thumbnail)
        return {
            "id": record.id,
            "stream": record.stream,
            "start": record.start,
            "end": record.end,
            "tier": record.tier,
            "grid": list(tokens.grid),
            "tokens": len(tokens),
            "keys": len(record.keys),
            "frame_seconds": record.frame_seconds.tolist(),
            "frame_hash": [f"{number:016x}" for number in record.frame_hash.tolist()],
            "tensors": tensor_file,
            "thumbnail": picture if record.thumbnail else None,
        }


def _stream(name: str, info: StreamInfo | None) -> dict[str, Any]:
    """The line of a stream; only its name if nothing else is known."""
    if info is None:
        return {"stream": name}
    return {**asdict(info), "coverage": [asdict(span) for span in info.coverage.spans]}


def _line(file: IO[str], document: dict[str, Any]) -> None:
    file.write(json.dumps(document) + "\n")
