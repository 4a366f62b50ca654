"""Notice that a file behind a stored answer was replaced."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from streamvlm.video.opening import local_file
from streamvlm.video.remote import RemoteFile, is_url, without_credentials

_EDGE_BYTES = 2**20
_BLOCK_BYTES = 2**16
_NUM_BLOCKS = 16


@dataclass(frozen=True, slots=True)
class SourceIdentity:
    """Which bytes a stream stood for when it was read."""

    stream: str
    """Absolute path, or URL without user and password."""
    size: int
    """Length in bytes; -1 if the server does not tell."""
    digest: str
    """Hexadecimal; equal for equal content."""


def identify(uri: str, *, allow_local: bool = False) -> SourceIdentity:
    """Fingerprint a file cheaply: a 10 GB one costs as much as a 3 MB one.

    Reads the size, the first and last MiB and 16 blocks of 64 KiB evenly spaced between (BLAKE2b,
    RFC 7693). An edit that touches none of these is not noticed. For a URL, what the server says
    counts: length, ETag, Last-Modified.

    Args:
        uri: path of a file or http(s) URL.
        allow_local: see `Sampling`.

    Raises:
        SourceError: it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    if is_url(uri):
        with RemoteFile(uri, allow_local=allow_local) as remote:
            facts = remote.facts
        size = -1 if facts.size is None else facts.size
        digest.update(f"{size} {facts.version}".encode())
        return SourceIdentity(without_credentials(uri), size, digest.hexdigest())
    path = local_file(uri)
    size = path.stat().st_size
    digest.update(str(size).encode())
    spacing = max(0, size - 2 * _EDGE_BYTES) // _NUM_BLOCKS
    with path.open("rb") as file:
        digest.update(file.read(_EDGE_BYTES))
        for block in range(_NUM_BLOCKS if spacing else 0):
            file.seek(_EDGE_BYTES + block * spacing)
            digest.update(file.read(_BLOCK_BYTES))
        file.seek(max(0, size - _EDGE_BYTES))
        digest.update(file.read(_EDGE_BYTES))
    return SourceIdentity(os.path.abspath(uri), size, digest.hexdigest())
