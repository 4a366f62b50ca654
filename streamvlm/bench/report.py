"""Tables that say under which conditions they were measured, and gates that are met or missed."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from streamvlm.bench.intervals import Interval
from streamvlm.errors import BadOption

Cell = str | float | int | None
"""What stands in one place of a table; None where nothing was or could be measured."""
Progress = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and of how much."""

_CPUINFO = Path("/proc/cpuinfo")


def silent(what: str, done: int, total: int) -> None:
    """A `Progress` that tells nobody."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What measured figures depend on."""

    commit: str
    """Of StreamVLM, with `-dirty` where files were changed since; `unknown` outside a clone."""
    seed: int
    """Of everything that was made up for the measurement."""
    model: str
    """Fingerprint of the weights that answered."""
    hardware: str
    """Processor, cores, threads and load, and the GPU if there is one."""
    versions: str
    """Of the libraries that matter."""

    def lines(self) -> list[str]:
        """`commit 3f41693 · seed 1 · model …`, and a line for machine and libraries."""
        return [
            f"commit {self.commit} · seed {self.seed} · model {self.model}",
            f"{self.hardware} · {self.versions}",
        ]


def here(seed: int, model: str) -> Conditions:
    """The conditions of this moment on this machine.

    Args:
        seed: what the measurement was made up from.
        model: fingerprint of the weights.
    """
    git = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        commit = subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:  # there is no git here
        commit = ""
    packages = ("torch", "transformers", "av", "numpy")
    return Conditions(
        commit=commit or "unknown",
        seed=seed,
        model=model,
        hardware=_hardware(),
        versions=", ".join(f"{name} {version(name)}" for name in packages),
    )


def _hardware() -> str:
    processor = platform.machine()
    if _CPUINFO.exists():
        named = [
            line for line in _CPUINFO.read_text().splitlines() if line.startswith("model name")
        ]
        processor = named[0].partition(":")[2].strip() if named else processor
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    load = f"load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "load unknown"
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {load}"
    return f"{processor}, {cores}, GPU: {', '.join(gpus) or 'none'}"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of figures under a title."""

    title: str
    """What the table shows, in a few words."""
    columns: tuple[str, ...]
    """The head of each column; the first names the rows."""
    rows: tuple[tuple[Cell, ...], ...]
    """As many cells each as there are columns."""
    note: str = ""
    """How to read it."""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"a row of {self.title!r} has {len(row)} cells for {len(self.columns)} columns"
                )

    def texts(self) -> list[list[str]]:
        """The rows as they are printed: figures rounded, `–` where there is none."""
        return [[_text(cell) for cell in row] for row in self.rows]

    def is_numeric(self, column: int) -> bool:
        """Whether a column holds figures, which are aligned right."""
        cells = [row[column] for row in self.rows if row[column] is not None]
        return bool(cells) and not any(isinstance(cell, str) for cell in cells)

    def markdown(self) -> str:
        """The table in Markdown, with its title above and its note below."""
        rule = ["---:" if self.is_numeric(index) else "---" for index in range(len(self.columns))]
        rows = [list(self.columns), rule, *self.texts()]
        body = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        return "\n\n".join([f"### {self.title}", body, *([self.note] if self.note else [])])

    def as_dict(self) -> dict[str, Any]:
        """The table for JSON: each row by column, and null for what is no number."""
        rows = [dict(zip(self.columns, map(_finite, row), strict=True)) for row in self.rows]
        return {"title": self.title, "rows": rows, "note": self.note}


def _finite(cell: Cell) -> Cell:
    return None if isinstance(cell, float) and not math.isfinite(cell) else cell


def _text(cell: Cell) -> str:
    cell = _finite(cell)
    if cell is None:
        return "–"
    if isinstance(cell, float):
        return f"{cell:.3f}" if abs(cell) < 10 else f"{cell:,.1f}"
    return str(cell)


FEWEST = 10
"""A gate says nothing of fewer clips."""
WIDEST, WIDEST_POINTS = 0.3, 10.0
"""A gate says nothing of a share, or a difference in points, whose interval holds the bound and is
wider."""


@dataclass(frozen=True, slots=True)
class Gate:
    """A figure that was promised, and what was found."""

    what: str
    """The figure, in words."""
    found: float | None
    """What was measured; None if it was not."""
    wanted: float
    """The bound."""
    at_least: bool = True
    """Whether the bound is the least that passes, or else the most."""
    interval: Interval | None = None
    """How far the figure can be trusted; None where that is not known."""
    number: int | None = None
    """How many clips it rests on; None where their number plays no part."""
    of: str = "clips"
    """What was counted instead of clips, e.g. needles."""
    widest: float = WIDEST
    """The interval that is too wide to say, in the unit of the figure."""

    @property
    def verdict(self) -> str:
        """`met`, `missed`, `not measured` or `too few clips to say`; see `FEWEST` and `WIDEST`."""
        if self.found is None or math.isnan(self.found):
            return "not measured"
        if self._has_too_few:
            return f"too few {self.of} to say"
        met = self.found >= self.wanted if self.at_least else self.found <= self.wanted
        return "met" if met else "missed"

    @property
    def _has_too_few(self) -> bool:
        if self.number is not None and self.number < FEWEST:
            return True
        span = self.interval
        return (
            span is not None
            and span.low <= self.wanted <= span.high
            and span.high - span.low > self.widest
        )


def gate_table(gates: Sequence[Gate]) -> Table:
    """The gates as a table, in the order given."""
    rows = tuple(
        (
            gate.what,
            gate.found,
            *((None, None) if gate.interval is None else (gate.interval.low, gate.interval.high)),
            f"{'≥' if gate.at_least else '≤'} {gate.wanted:g}",
            gate.verdict,
        )
        for gate in gates
    )
    note = (
        "Met or missed goes by the figure alone, without a margin for noise; low, high: its 95 % "
        f"interval. Too few to say: fewer than {FEWEST} clips (or needles), or an interval that "
        f"holds what is wanted and is wider than {WIDEST:g} (of points: {WIDEST_POINTS:g})."
    )
    return Table("Gates", ("gate", "found", "low", "high", "wanted", "verdict"), rows, note)


def document(conditions: Conditions, tables: Sequence[Table]) -> dict[str, Any]:
    """One JSON object of everything."""
    found = [table.as_dict() for table in tables]
    return {"conditions": asdict(conditions), "tables": found}


def write(folder: Path, name: str, conditions: Conditions, tables: Sequence[Table]) -> list[Path]:
    """Write `name.md` and `name.json` into a folder.

    Args:
        folder: made if it is not there.
        name: what was measured, e.g. `qa`.
        conditions: under which; every table carries them.
        tables: the figures.

    Returns:
        The two files.

    Raises:
        BadOption: the folder cannot be written.
    """
    under = "\n".join(f"<sub>{line}</sub>  " for line in conditions.lines())
    pages = [f"# streamvlm bench {name}", *(f"{table.markdown()}\n\n{under}" for table in tables)]
    texts = {
        folder / f"{name}.md": "\n\n".join(pages) + "\n",
        folder / f"{name}.json": json.dumps(document(conditions, tables), indent=1) + "\n",
    }
    save({path: text.encode() for path, text in texts.items()})
    return list(texts)


def save(files: Mapping[Path, bytes]) -> None:
    """Write files, and make their folders where they are not there.

    Args:
        files: each path with its content.

    Raises:
        BadOption: one cannot be written.
    """
    for path, content in files.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        except OSError as error:
            raise _cannot(path.parent, error.strerror) from error


def check_folder(folder: Path, names: Sequence[str]) -> None:
    """Find out whether files can be written into a folder, before anything is measured for them.

    Nothing is left behind, not even the folder if it is not there yet.

    Args:
        folder: where they will be.
        names: of the files.

    Raises:
        BadOption: they cannot be written.
    """
    for name in names:
        path = folder / name
        if path.is_dir() or (path.exists() and not os.access(path, os.W_OK)):
            raise _cannot(folder, f"{name} there is not a file that may be replaced")
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise _cannot(folder, error.strerror) from error


def _cannot(folder: Path, reason: str | None) -> BadOption:
    return BadOption(f"{folder}: nothing can be written there ({reason}); give another --out")
