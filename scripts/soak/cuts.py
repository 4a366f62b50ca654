"""Power cuts at every moment of a recorded story, and what must be there after each."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random

from scripts.soak.disk import Disk, Luck
from scripts.soak.nursery import Nursery
from scripts.soak.records import record
from scripts.soak.rounds import Broken, Ledger, verify
from scripts.soak.trace import Call, calls, record_calls
from streamvlm.memory.store import Memory

MODULE = "scripts.soak.story"
"""What the nursery has to import."""


@dataclass(frozen=True)
class Recording:
    """What one process did to a disk, from the beginning to its end."""

    root: Path
    """The folder that was there before."""
    memory: Path
    """Where the memory is below it."""
    calls: tuple[Call, ...]

    @property
    def flushes(self) -> list[int]:
        """Places of the calls that flush something."""
        return [i for i, call in enumerate(self.calls) if call.name in ("fsync", "fdatasync")]

    def log(self, written: list[bytes]) -> list[list[str]]:
        """What the process had said so far: deeds it was about to do, and acknowledgements."""
        return [json.loads(line) for line in b"".join(written).splitlines()]


def tell(nursery: Nursery, folder: Path, sync: str = "power") -> Recording:
    """Let a process tell its story and record it.

    Raises:
        OSError: it cannot be traced, or it failed.
    """
    root = folder / "disk"
    root.mkdir()
    # Folders that `create` has to make are as easily lost as files.
    memory = root / "new" / "folders" / "memory"
    job = {"folder": str(memory), "log": str(folder / "log"), "sync": sync, "stopped": True}
    child = nursery.start(f"{MODULE}:tell", **job)
    with record_calls(child, folder / "trace"):
        code = nursery.wait(child)
    if code:
        raise OSError(f"the story ended with {code}")
    return Recording(root, memory, tuple(calls(folder / "trace")))


def cut(recording: Recording, moments: dict[int, list[Luck]], target: Path, random: Random) -> int:
    """Replay a recording, cut the power after some of its calls, look at what is left.

    Args:
        recording: of `tell`.
        moments: {place of the call: what may happen to unflushed data}.
        target: an empty folder to work in.
        random: for what is a matter of luck.

    Returns:
        How many cuts there were.

    Raises:
        Broken: something acknowledged is not there, or the memory does not open.
    """
    disk = Disk(recording.root)
    count = 0
    for place, call in enumerate(recording.calls):
        disk.play(call)
        for luck in moments.get(place, []):
            left = target / "left"
            disk.cut(left, luck, random)
            try:
                _look(left / recording.memory.relative_to(recording.root), disk.written, random)
            except Exception as error:
                raise Broken(
                    f"power cut after call {place} ({call.name}), {luck} of the unflushed kept: "
                    f"{type(error).__name__}: {error}"
                ) from error
            shutil.rmtree(left)
            count += 1
    return count


def _look(memory: Path, written: list[bytes], random: Random) -> None:
    lines = [json.loads(line) for line in b"".join(written).splitlines()]
    if ["did"] not in lines:
        # Not even `create` had returned: there may be nothing.
        return
    ledger = Ledger()
    ledger.take(lines, None)
    verify(memory, ledger, random, 1)
    # It can be written to as before.
    number = max(ledger.following.values(), default=0) + 100
    with Memory.open(memory, sync="process") as opened:
        opened.append([record(number)])
        if opened.load([record(number).id])[0].id != record(number).id:
            raise Broken("nothing can be appended")
