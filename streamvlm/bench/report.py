"""Tables that say under which conditions they were measured, and gates that are met or missed."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

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

    @property
    def verdict(self) -> str:
        """`met`, `missed` or `not measured`."""
        if self.found is None or math.isnan(self.found):
            return "not measured"
        met = self.found >= self.wanted if self.at_least else self.found <= self.wanted
        return "met" if met else "missed"


def gate_table(gates: Sequence[Gate]) -> Table:
    """The gates as a table, in the order given."""
    rows = tuple(
        (gate.what, gate.found, f"{'≥' if gate.at_least else '≤'} {gate.wanted:g}", gate.verdict)
        for gate in gates
    )
    return Table("Gates", ("gate", "found", "wanted", "verdict"), rows)


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
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BadOption(
            f"{folder}: nothing can be written there ({error.strerror}); give another --out"
        ) from error
    return list(texts)
