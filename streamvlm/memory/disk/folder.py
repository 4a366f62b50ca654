"""The folder of a memory: its fixed names, its format file, its errors in words.

format.json          version, identity, payload codec, novelty; never rewritten
catalog.db           SQLite: which streams, shards and records exist
catalog.lock         held round each commit and checkpoint
maintain.lock        held by the one process that tidies up
shards/<name>.svm    records, append-only
index/<name>.*       derived from the shards; delete at will
backup/              copies of the catalogue
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.disk.quant import check_payload
from streamvlm.memory.index.novelty import Novelty
from streamvlm.memory.info import Identity

FORMAT = 2
"""The version of the folder that this code writes and reads."""

Sync = Literal["power", "process"]
"""What acknowledged data survives: a power cut, or a killed process only (faster)."""

UNFINISHED = ".backup-in-progress"
"""Lies in a copy of a memory until it is whole; what a killed copy left is known by it."""

_OURS = {"shards", "index", "backup", "maintain.lock", "catalog.lock"}
_OURS |= {"catalog.db", "catalog.db-wal", "catalog.db-shm"}


@dataclass(frozen=True, slots=True)
class Format:
    """What every record of a memory has in common: the content of `format.json`."""

    identity: Identity
    """Whose vectors it holds."""
    payload: str
    """How features are written."""
    novelty: Novelty
    """Which keys are indexed."""


@contextmanager
def in_words(path: Path, doing: str) -> Iterator[None]:
    """Turn errors of the system and of SQLite into one sentence.

    Args:
        path: the memory's folder.
        doing: what was being done, as in "cannot write to".

    Raises:
        MemoryStoreError: instead of OSError and sqlite3.Error.
    """
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        raise MemoryStoreError(
            f"cannot {doing} the memory {path}: {_reason(error, path)}"
        ) from error


def _reason(error: OSError | sqlite3.Error, path: Path) -> str:
    code = error.errno if isinstance(error, OSError) else None
    text = str(error)
    is_sqlite = isinstance(error, sqlite3.Error)
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or (is_sqlite and "full" in text):
        return "no space is left (disk, quota or file size limit); free some and do it again"
    if code in (errno.EROFS, errno.EACCES, errno.EPERM) or (is_sqlite and "readonly" in text):
        return "writing there is not permitted; choose another folder or change its permissions"
    if isinstance(error, sqlite3.DatabaseError) and ("malformed" in text or "not a data" in text):
        return (
            f"its catalogue is damaged ({text}); make it again from the shards: "
            f"streamvlm memory rebuild {path}"
        )
    return f"{text}; check the disk and do it again"


def sync_file(path: Path) -> None:
    """Flush a file to disk, whoever wrote it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(path: Path) -> None:
    """Flush the names in a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_durably(path: Path) -> None:
    """Make a folder, and those above it; their names are on disk when this returns."""
    new = [each for each in (path, *path.parents) if not each.exists()]
    path.mkdir(parents=True, exist_ok=True)
    for each in new:
        sync_folder(each.parent)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, after any crash."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with draft.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
    sync_folder(path.parent)


def check_vacant(path: Path) -> None:
    """Refuse a folder in which a new memory would stand on something else.

    What a `create` that was killed left behind does not count.

    Raises:
        MemoryStoreError: there is a memory already, one without its `format.json`, or foreign
            files.
    """
    _check_format(path)
    if is_memory(path):
        raise MemoryStoreError(f"{path} is already a memory; open it, or choose another folder")
    if not path.exists():
        return
    if not path.is_dir():
        raise MemoryStoreError(f"{path} is a file; give a folder for the memory")
    foreign = [f.name for f in path.iterdir() if f.name.lstrip(".").split(".")[0] != "format"]
    foreign = sorted(set(foreign) - _OURS)
    if foreign or any(path.glob("shards/*")):
        raise MemoryStoreError(
            f"{path} holds other files ({', '.join(foreign[:3]) or 'shards'}); give a new or empty "
            "folder for the memory"
        )


def _check_format(path: Path) -> None:
    """Tell a memory that lost its `format.json` from what is none.

    Raises:
        MemoryStoreError: there are records and a catalogue, but not this file.
    """
    is_known = is_memory(path) or (path / UNFINISHED).exists()
    if not is_known and (path / "catalog.db").exists() and any(path.glob("shards/*.svm")):
        raise MemoryStoreError(
            f"{path}/format.json is lost; copy it from a backup of this memory, or from any memory "
            "that was written with the same configuration"
        )


def is_memory(path: Path) -> bool:
    """Whether a folder is a memory, of whatever format."""
    return (path / "format.json").exists()


def write_format(path: Path, chosen: Format) -> None:
    """Write `format.json`, which makes a folder a memory."""
    content = {
        "format": FORMAT,
        "encoder": chosen.identity.encoder,
        "embedder": chosen.identity.embedder,
        "key_width": chosen.identity.key_width,
        "payload": chosen.payload,
        "novelty": asdict(chosen.novelty),
    }
    write_durably(path / "format.json", json.dumps(content, indent=2).encode() + b"\n")


def read_format(path: Path) -> Format:
    """Read `format.json`.

    Raises:
        MemoryStoreError: no folder, not a memory, another format, or a damaged file.
    """
    if not path.is_dir():
        raise MemoryStoreError(
            f"there is no memory at {path}; ingest a video there first, or check the path"
        )
    _check_format(path)
    try:
        content = json.loads((path / "format.json").read_bytes())
        if (found := int(content["format"])) != FORMAT:
            newer = found > FORMAT
            raise MemoryStoreError(
                f"the memory {path} has format {found}, this StreamVLM reads {FORMAT}; "
                f"{'upgrade streamvlm' if newer else 'ingest its videos into a new memory'}"
            )
        identity = Identity(content["encoder"], content["embedder"], content["key_width"])
        payload, novelty = content["payload"], Novelty(**content["novelty"])
    except FileNotFoundError as error:
        raise MemoryStoreError(
            f"{path} is not a memory (it has no format.json); give the folder an ingest wrote"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise MemoryStoreError(
            f"{path}/format.json is damaged ({error}); restore it from a copy"
        ) from error
    check_payload(payload)
    return Format(identity, payload, novelty)


def check_catalog(path: Path) -> None:
    """Refuse a memory without its catalogue: an empty one in its place would hide every record.

    Raises:
        MemoryStoreError: it is not there.
    """
    if not (path / "catalog.db").exists():
        raise MemoryStoreError(
            f"{path}/catalog.db is missing; restore it from a copy, or make it again from the "
            f"shards: streamvlm memory rebuild {path}"
        )


def check_identity(path: Path, found: Identity, wanted: Identity) -> None:
    """Refuse vectors of other weights.

    Raises:
        MemoryStoreError: a field differs; the message names the first and what to do.
    """
    for name in ("encoder", "embedder", "key_width"):
        has, asks = getattr(found, name), getattr(wanted, name)
        if has != asks:
            raise MemoryStoreError(
                f"the memory {path} was written with {name} {has!r}, but the configuration has "
                f"{asks!r}; open it with the configuration that wrote it, or ingest the videos "
                "into a new memory"
            )
