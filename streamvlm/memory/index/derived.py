"""Index files: what can be thrown away at any time and is made again from shards and catalogue.

FAISS does not check its files (a zeroed page of one answered wrongly in silence), so the size and
checksum of each are written to a file of their own, last, and compared before FAISS sees it.
"""

from __future__ import annotations

import io
import json
import logging
import mmap
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from xxhash import xxh3_64

from streamvlm.memory.index.held import RECORD

logger = logging.getLogger(__name__)

_VERSION = 3


@dataclass(frozen=True, slots=True)
class Saved:
    """What index files hold of a shard."""

    keys: NDArray[np.float16]
    """(n, E) indexed keys, mapped."""
    index: bytes | None
    """The serialised FAISS index of them."""
    records: NDArray[np.void]
    """(m,) of `RECORD`: whose they are; keys of others may be among them."""
    rev: int
    """Of the shard when these were its records."""


def _paths(folder: Path, shard: str) -> tuple[Path, Path, Path, Path]:
    keys, index, rows, seal = (
        folder / f"{shard}.{end}" for end in ("npy", "faiss", "rows", "json")
    )
    return keys, index, rows, seal


def save(
    folder: Path,
    shard: str,
    keys: Sequence[NDArray[np.float16]],
    index: bytes | None,
    records: NDArray[np.void],
    rev: int,
) -> None:
    """Write the index files of a shard.

    Args:
        folder: the memory's `index`; made if it is missing.
        shard: the shard's name.
        keys: pieces (·, E) float16 that follow one another.
        index: the serialised FAISS index of all of them, or None.
        records: (m,) of `RECORD`, whose keys they are.
        rev: of the shard when these were its records.

    Raises:
        OSError: they cannot be written; nothing is lost by that.
    """
    folder.mkdir(exist_ok=True)
    key_path, index_path, row_path, seal_path = _paths(folder, shard)
    rows, width = sum(map(len, keys)), keys[0].shape[1]
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f2", "fortran_order": False, "shape": (rows, width)}
    )
    pieces = [np.ascontiguousarray(piece).data.cast("B") for piece in keys if len(piece)]
    blobs: list[bytes | memoryview] = [head.getvalue(), *pieces]
    seal = {
        "version": _VERSION,
        "shard": shard,
        "keys": rows,
        "rev": rev,
        "npy": _replace(key_path, blobs),
        "faiss": _replace(index_path, [index or b""]),
        "rows": _replace(row_path, [records.tobytes()]),
    }
    _replace(seal_path, [json.dumps(seal).encode()])


def _replace(path: Path, blobs: Sequence[bytes | memoryview]) -> list[int]:
    """Write a file beside and rename it; returns its size and checksum."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    digest, size = xxh3_64(), 0
    with draft.open("wb") as file:
        for blob in blobs:
            file.write(blob)
            digest.update(blob)
            size += len(blob)
    draft.replace(path)
    return [size, digest.intdigest()]


def load(folder: Path, shard: str, width: int, committed: int) -> Saved | None:
    """Read the index files of a shard, if they are there and intact.

    Args:
        folder: the memory's `index`.
        shard: the shard's name.
        width: E, the length of a key.
        committed: how many keys the catalogue says the shard has.

    Returns:
        What they hold, with n ≤ committed; or None, with a warning if the files are there but not
        intact.
    """
    try:
        return _load(folder, shard, width, committed)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("index of %s in %s is thrown away and made again: %s", shard, folder, error)
        return None


def flaw(folder: Path, shard: str, width: int, committed: int) -> str | None:
    """What is wrong with the index files of a shard; None if nothing is, or there are none."""
    try:
        _load(folder, shard, width, committed)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return str(error)
    return None


def _load(folder: Path, shard: str, width: int, committed: int) -> Saved:
    key_path, index_path, row_path, seal_path = _paths(folder, shard)
    seal = json.loads(seal_path.read_bytes())
    if seal["version"] != _VERSION or seal["shard"] != shard or seal["keys"] > committed:
        raise ValueError("they belong to another shard or version")
    index, rows = index_path.read_bytes(), row_path.read_bytes()
    sums = ([len(blob), xxh3_64(blob).intdigest()] for blob in (index, rows))
    if [*sums, _sum(key_path)] != [seal["faiss"], seal["rows"], seal["npy"]]:
        raise ValueError("size or checksum differ")
    # Copy-on-write, because torch refuses to look at what it may not write.
    keys: NDArray[np.float16] = np.load(key_path, mmap_mode="c", allow_pickle=False)
    if keys.shape != (seal["keys"], width):
        raise ValueError(f"{keys.shape} keys instead of {(seal['keys'], width)}")
    records = np.frombuffer(rows, RECORD)
    if (records["base"] + records["count"]).max(initial=0) > len(keys):
        raise ValueError("they lack keys of their records")
    return Saved(keys, index or None, records, seal["rev"])


def remove(folder: Path, shard: str) -> None:
    """Delete the index files of a shard, if there are any."""
    for path in _paths(folder, shard):
        path.unlink(missing_ok=True)


def _sum(path: Path) -> list[int]:
    """Size and checksum of a file, read through a map: a copy takes longer than the sum."""
    size = path.stat().st_size
    if not size:
        return [0, xxh3_64(b"").intdigest()]
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as content:
        return [size, xxh3_64(content).intdigest()]
