"""The folder of a memory: its fixed names, its format file, its lock, its errors in words.

format.json          version, identity and payload codec; never rewritten
catalog.db           SQLite: which streams, shards and records exist
writer.lock          held by the one writer
shards/<name>.svm    records, append-only
index/<name>.*       derived from the shards; delete at will
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.info import Identity
from streamvlm.memory.quant import check_payload

FORMAT = 1
"""The version of the folder that this code writes, and the newest it reads."""

Sync = Literal["power", "process"]
"""What acknowledged data survives: a power cut, or a killed process only (faster)."""

_OURS = {"catalog.db", "catalog.db-wal", "catalog.db-shm", "writer.lock", "shards", "index"}


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
        raise MemoryStoreError(f"cannot {doing} the memory {path}: {_reason(error)}") from error


def _reason(error: OSError | sqlite3.Error) -> str:
    code = error.errno if isinstance(error, OSError) else None
    text = str(error)
    is_sqlite = isinstance(error, sqlite3.Error)
    if code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) or (is_sqlite and "full" in text):
        return "no space is left (disk, quota or file size limit); free some and do it again"
    if code in (errno.EROFS, errno.EACCES, errno.EPERM) or (is_sqlite and "readonly" in text):
        return "writing there is not permitted; choose another folder or change its permissions"
    if isinstance(error, sqlite3.DatabaseError) and ("malformed" in text or "not a data" in text):
        return f"its catalogue is damaged ({text}); restore catalog.db from a copy"
    return f"{text}; check the disk and do it again"


def sync_folder(path: Path) -> None:
    """Flush the names in a folder to disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all, after any crash."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
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
        MemoryStoreError: there is a memory already, or foreign files.
    """
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


def is_memory(path: Path) -> bool:
    """Whether a folder is a memory, of whatever format."""
    return (path / "format.json").exists()


def write_format(path: Path, identity: Identity, payload: str) -> None:
    """Write `format.json`, which makes a folder a memory."""
    content = {
        "format": FORMAT,
        "encoder": identity.encoder,
        "embedder": identity.embedder,
        "key_width": identity.key_width,
        "payload": payload,
    }
    write_durably(path / "format.json", json.dumps(content, indent=2).encode() + b"\n")


def read_format(path: Path) -> tuple[Identity, str]:
    """Read `format.json` and see that there is a catalogue.

    Returns:
        Whose vectors the memory holds, and the payload codec.

    Raises:
        MemoryStoreError: no folder, not a memory, a newer format, or a missing or damaged file.
    """
    if not path.is_dir():
        raise MemoryStoreError(
            f"there is no memory at {path}; ingest a video there first, or check the path"
        )
    try:
        content = json.loads((path / "format.json").read_bytes())
        if (found := int(content["format"])) > FORMAT:
            raise MemoryStoreError(
                f"the memory {path} has format {found}, this StreamVLM reads up to {FORMAT}; "
                "upgrade streamvlm"
            )
        identity = Identity(content["encoder"], content["embedder"], content["key_width"])
        payload = content["payload"]
    except FileNotFoundError as error:
        raise MemoryStoreError(
            f"{path} is not a memory (it has no format.json); give the folder an ingest wrote"
        ) from error
    except (ValueError, TypeError, KeyError) as error:
        raise MemoryStoreError(
            f"{path}/format.json is damaged ({error}); restore it from a copy"
        ) from error
    check_payload(payload)
    # An empty catalogue made in its place would hide every record.
    if not (path / "catalog.db").exists():
        raise MemoryStoreError(f"{path}/catalog.db is missing; restore it from a copy")
    return identity, payload


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


def lock_writer(path: Path) -> int:
    """Become the one writer of a memory.

    Returns:
        A file descriptor; closing it, or the end of the process, gives the lock back.

    Raises:
        MemoryStoreError: another writer holds it, or the folder cannot be locked.
    """
    with in_words(path, "write to"):
        descriptor = os.open(path / "writer.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise MemoryStoreError(
            f"another process writes to the memory {path}; wait until it is done, or open it "
            "with writable=False"
        ) from error
    except OSError as error:
        os.close(descriptor)
        raise MemoryStoreError(
            f"the memory {path} is on a file system without locks ({error}); move it to a local "
            "disk, or open it with writable=False"
        ) from error
    return descriptor
