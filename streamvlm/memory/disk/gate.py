"""The gate: one short lock between all processes, round each commit and checkpoint.

SQLite before 3.51.3 may corrupt its file when one connection commits while another checkpoints.
With automatic checkpoints off and everything that writes inside the gate, the two never overlap,
on any version. It also lets writers queue instead of trying again and again: with four writers the
slowest commits are many times faster.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from streamvlm.errors import MemoryStoreError


def lock_file(path: Path) -> int:
    """Open a file to be locked; made if it is not there.

    Returns:
        A descriptor; closing it, or the end of the process, gives the lock back.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def try_lock(descriptor: int) -> bool:
    """Take a lock if nobody has it.

    Raises:
        OSError: the file system has no locks.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def shared_lock(path: Path) -> Iterator[None]:
    """Hold a lock on a file that others may share, but that nobody can take for himself."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def maintenance_lock(memory: Path) -> Iterator[bool]:
    """Be the one process, and thread, that rewrites shards of a memory; False if another is."""
    descriptor = lock_file(memory / "maintain.lock")
    try:
        yield try_lock(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def sole_maintainer(memory: Path) -> Iterator[None]:
    """The same for those who cannot do without.

    Raises:
        MemoryStoreError: another one is at it.
    """
    with maintenance_lock(memory) as is_mine:
        if not is_mine:
            raise MemoryStoreError(
                f"another process maintains the memory {memory}; wait until it is done"
            )
        yield


class Gate:
    """`with gate:` waits until no other process, and no other `Gate` of this one, is inside."""

    def __init__(self, path: Path) -> None:
        self._descriptor = lock_file(path)

    def check(self, memory: Path) -> None:
        """Find out whether the file system has locks at all.

        Raises:
            MemoryStoreError: it has none.
        """
        try:
            with self:
                pass
        except OSError as error:
            raise MemoryStoreError(
                f"the memory {memory} is on a file system without locks ({error}); move it to a "
                "local disk, or open it with writable=False"
            ) from error

    def __enter__(self) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Give the file back."""
        os.close(self._descriptor)
