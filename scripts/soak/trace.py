"""What a process asked of the file system, recorded by strace, call by call and byte by byte."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CALLS = (
    "open,openat,creat,close,write,pwrite64,writev,pwritev,pwritev2,lseek,sendfile,fsync,fdatasync,"
    "rename,renameat,renameat2,unlink,unlinkat,ftruncate,mkdir,mkdirat,link,linkat"
)

_LINE = re.compile(r"(?P<pid>\d+) +(?P<name>\w+)\((?P<values>.*)\) += (?P<result>-?\d+)")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_LONGEST = 1 << 27
_PATIENCE = 20.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the system that succeeded."""

    name: str
    """Of the call."""
    texts: tuple[bytes, ...]
    """Its paths or its data."""
    numbers: tuple[int, ...]
    """Its other values that are numbers, in order; the first is a descriptor."""
    flags: str
    """Its values as strace writes them, without texts."""
    result: int
    """What it returned."""


def why_not() -> str | None:
    """Why nothing can be recorded here; None if it can."""
    if shutil.which("strace") is None:
        return "strace is not installed: apt-get install strace"
    if subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode:
        return "tracing processes is not permitted here"
    return None


def record_calls(child: int, target: Path, *more: str) -> subprocess.Popen[str]:
    """Begin to record what a stopped process does, and let it go on.

    Args:
        child: its number.
        target: the file to write.
        more: further options of strace.
    """
    command = ["strace", "-f", "-xx", "-s", str(_LONGEST), "-e", f"trace={CALLS}", "-o"]
    _wait_until_stopped(child)
    strace = subprocess.Popen(
        [*command, str(target), *more, "-p", str(child)], stderr=subprocess.PIPE, text=True
    )
    assert strace.stderr is not None
    if "attached" not in (line := strace.stderr.readline()):
        os.kill(child, signal.SIGKILL)
        raise OSError(f"strace cannot attach: {line}")
    os.kill(child, signal.SIGCONT)
    return strace


def _wait_until_stopped(child: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    status = Path(f"/proc/{child}/stat")
    while status.read_text().rsplit(")", 1)[1].split()[0] != "T":
        if time.monotonic() > deadline:
            raise OSError(f"process {child} does not stop")
        time.sleep(0.002)


def calls(path: Path) -> Iterator[Call]:
    """What was recorded, in order; calls that failed are left out.

    Raises:
        ValueError: calls overlap, so that their order is not known.
    """
    with path.open() as file:
        for line in file:
            if "unfinished" in line or "resumed" in line:
                raise ValueError(f"several threads were at work: {line[:80]}")
            match = _LINE.match(line)
            if match is None or int(match["result"]) < 0:
                continue
            values = match["values"]
            found = _TEXT.findall(values)
            if any(cut for _, cut in found):
                raise ValueError(f"strace cut the data short: {line[:80]}")
            rest = _TEXT.sub("", values)
            yield Call(
                name=match["name"],
                texts=tuple(bytes.fromhex(text.replace("\\x", "")) for text, _ in found),
                numbers=tuple(int(n) for n in re.findall(r"(?<![\w=])-?\d+(?!\w)", rest)),
                flags=rest,
                result=int(match["result"]),
            )
