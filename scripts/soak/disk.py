"""A disk that keeps what was flushed, and of the rest what it likes.

The calls of a recorded process are replayed on it. At any moment its power can be cut: then data
that was not flushed is there or not, page by page, and so are names whose folder was not flushed.
A flush of a file does not keep its name, which real file systems mostly do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Literal

from scripts.soak.trace import Call

Luck = Literal["nothing", "everything", "some"]
"""What of that which was not flushed is there after the cut."""

_PAGE = 4096


@dataclass
class _State:
    """A file between two truncations, which happen as a whole."""

    flushed: bytes = b""
    now: bytearray = field(default_factory=bytearray)
    dirty: set[int] = field(default_factory=set)

    def some(self, random: Random) -> bytes:
        low, high = len(self.flushed), len(self.now)
        # The last page may be torn.
        size = random.choice([low, high, random.randint(low, high)])
        content = bytearray(self.flushed.ljust(size, b"\0"))
        for page in self.dirty:
            span = slice(page * _PAGE, min((page + 1) * _PAGE, size))
            if random.random() < 0.5 and span.start < size:
                content[span] = self.now[span]
        return bytes(content)


@dataclass
class _File:
    states: list[_State] = field(default_factory=lambda: [_State()])
    """Since the last flush."""

    @property
    def now(self) -> bytearray:
        return self.states[-1].now

    def write(self, data: bytes, at: int) -> None:
        now = self.now
        if at > len(now):
            now.extend(bytes(at - len(now)))
        now[at : at + len(data)] = data
        last = (at + max(len(data), 1) - 1) // _PAGE
        self.states[-1].dirty.update(range(at // _PAGE, last + 1))

    def truncate(self, size: int) -> None:
        if size >= len(self.now):
            self.now.extend(bytes(size - len(self.now)))
            return
        state = self.states[-1]
        cut = _State(state.flushed[:size], state.now[:size], set(state.dirty))
        self.states.append(cut)

    def flush(self) -> None:
        self.states = [_State(bytes(self.now), self.now)]

    def after(self, luck: Luck, random: Random) -> bytes:
        if luck == "nothing":
            return self.states[0].flushed
        if luck == "everything":
            return bytes(self.now)
        return random.choice(self.states).some(random)


_Names = dict[str, "_File | None"]
"""What is in a folder: files, and None for folders."""


@dataclass
class _Folder:
    now: _Names = field(default_factory=dict)
    flushed: _Names = field(default_factory=dict)
    pending: list[_Names] = field(default_factory=list)
    gone: list[set[str]] = field(default_factory=list)

    def change(self, new: _Names, gone: set[str]) -> None:
        _apply(self.now, new, gone)
        self.pending.append(new)
        self.gone.append(gone)

    def flush(self) -> None:
        self.flushed = dict(self.now)
        self.pending.clear()
        self.gone.clear()

    def after(self, luck: Luck, random: Random) -> _Names:
        if luck == "everything":
            return self.now
        names = dict(self.flushed)
        # A journal keeps the order of changes.
        kept = random.randint(0, len(self.pending)) if luck == "some" else 0
        for new, gone in list(zip(self.pending, self.gone, strict=True))[:kept]:
            _apply(names, new, gone)
        return names


def _apply(names: _Names, new: _Names, gone: set[str]) -> None:
    for name in gone:
        names.pop(name, None)
    names.update(new)


@dataclass
class _Opened:
    path: Path
    file: _File | None
    at: int = 0
    appends: bool = False


class Disk:
    """Everything below one folder, which is there from the beginning.

    Args:
        root: the folder.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._folders: dict[Path, _Folder] = {root: _Folder()}
        self._opened: dict[int, _Opened] = {}
        self.written: list[bytes] = []
        """What was written to files outside of the folder, in order."""

    def play(self, call: Call) -> None:
        """Do what a process did."""
        deeds: dict[str, Callable[[Call], None]] = {
            "open": self._open,
            "openat": self._open,
            "creat": self._open,
            "close": lambda call: self._close(call.numbers[0]),
            "write": self._write,
            "writev": self._write,
            "pwrite64": self._pwrite,
            "pwritev": self._pwrite,
            "pwritev2": self._pwrite,
            "sendfile": self._send,
            "lseek": self._seek,
            "ftruncate": self._truncate,
            "fsync": self._flush,
            "fdatasync": self._flush,
        }
        if call.name in deeds:
            deeds[call.name](call)
        else:
            self._rename(call)

    def cut(self, target: Path, luck: Luck, random: Random) -> None:
        """Write what is there after a power cut into a new folder."""
        for folder, names in self._reachable(self._root, luck, random):
            place = target / folder.relative_to(self._root)
            place.mkdir(parents=True)
            for name, file in names.items():
                if file is not None:
                    (place / name).write_bytes(file.after(luck, random))

    def _reachable(self, folder: Path, luck: Luck, random: Random) -> Iterator[tuple[Path, _Names]]:
        names = self._folders[folder].after(luck, random)
        yield folder, names
        for name, file in names.items():
            if file is None:
                yield from self._reachable(folder / name, luck, random)

    def _inside(self, path: Path) -> bool:
        return path != self._root and path.is_relative_to(self._root)

    def _open(self, call: Call) -> None:
        path = Path(os.fsdecode(call.texts[0]))
        if path in self._folders:
            self._opened[call.result] = _Opened(path, None)
            return
        if not self._inside(path):
            self._opened[call.result] = _Opened(path, None, appends=True)
            return
        folder = self._folders[path.parent]
        file = folder.now.get(path.name)
        if file is None:
            file = _File()
            folder.change({path.name: file}, set())
        if "O_TRUNC" in call.flags:
            file.truncate(0)
        self._opened[call.result] = _Opened(path, file, appends="O_APPEND" in call.flags)

    def _close(self, descriptor: int) -> None:
        self._opened.pop(descriptor, None)

    def _write(self, call: Call) -> None:
        opened = self._opened.get(call.numbers[0])
        data = b"".join(call.texts)[: call.result]
        if opened is None or opened.file is None:
            self.written.append(data)
            return
        opened.file.write(data, len(opened.file.now) if opened.appends else opened.at)
        opened.at += len(data)

    def _pwrite(self, call: Call) -> None:
        file = self._opened[call.numbers[0]].file
        assert file is not None
        # The last value of pwritev2 is its flags.
        position = call.numbers[-2 if call.name == "pwritev2" else -1]
        file.write(b"".join(call.texts)[: call.result], position)

    def _send(self, call: Call) -> None:
        target, source = (self._opened[number] for number in call.numbers[:2])
        assert target.file is not None
        assert source.file is not None
        data = bytes(source.file.now[target.at : target.at + call.result])
        target.file.write(data, target.at)
        target.at += call.result

    def _seek(self, call: Call) -> None:
        if call.numbers[0] in self._opened:
            self._opened[call.numbers[0]].at = call.result

    def _truncate(self, call: Call) -> None:
        file = self._opened[call.numbers[0]].file
        assert file is not None
        file.truncate(call.numbers[1])

    def _flush(self, call: Call) -> None:
        opened = self._opened[call.numbers[0]]
        if opened.file is not None:
            opened.file.flush()
        elif opened.path in self._folders:
            self._folders[opened.path].flush()

    def _rename(self, call: Call) -> None:
        paths = [Path(os.fsdecode(text)) for text in call.texts]
        if not self._inside(paths[0]):
            return
        folder = self._folders[paths[0].parent]
        name = paths[0].name
        if call.name.startswith("mkdir"):
            self._folders[paths[0]] = _Folder()
            folder.change({name: None}, set())
        elif call.name.startswith("unlink"):
            folder.change({}, {name})
        elif call.name.startswith("rename"):
            assert paths[1].parent == paths[0].parent
            folder.change({paths[1].name: folder.now[name]}, {name})
        else:
            raise ValueError(f"{call.name} is not replayed")
