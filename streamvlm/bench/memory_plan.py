"""How large the memories are that are measured, and how often each thing is done."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from streamvlm.errors import BadOption

PARTS = ("writing", "reading", "searching", "hours")
"""What can be measured by itself."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is measured, and how large.

    Raises:
        BadOption: when made, if something is out of range.
    """

    rounds: int = 5
    """How often ours and the plainest way take turns."""
    parts: tuple[str, ...] = PARTS
    """Of `PARTS`."""
    folder: Path | None = None
    """Where memories are built, on the disk that is measured; None for the system's own place."""
    commits: int = 80
    """Appends in a round, of 1 to 8 records."""
    tokens: int = 64
    """N of a record that is written."""
    width: int = 1024
    """D of a record that is written."""
    late: int = 9_000
    """Commits before those that are called late."""
    writing_seconds: float = 2.0
    """How long writers write in a round."""
    bulk: int = 256
    """Records that are written at once."""
    records: int = 100_000
    """Of the larger memory, with 4 keys of 128 numbers; the smaller one has a tenth."""
    wide_keys: int = 1_000_000
    """Of the memory with keys of 384 numbers."""
    questions: int = 60
    """What recall rests on."""
    reads: int = 200
    """Searches with a load in a round, beside a writer and without."""
    hour: int = 3600
    """Seconds of the hour; bytes are counted up to a whole one."""

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise BadOption("a measurement needs at least 1 round")
        if strange := [part for part in self.parts if part not in PARTS]:
            raise BadOption(f"parts are of {', '.join(PARTS)}, found {', '.join(strange)}")
        if self.folder is not None and not self.folder.is_dir():
            raise BadOption(
                f"there is no folder {self.folder}; give one on the disk to be measured"
            )

    def words(self) -> str:
        """The sizes in words."""
        return (
            f"{self.records:,} records with 4 keys of 128, {self.wide_keys:,} keys of 384, tokens "
            f"of {self.tokens} × {self.width}, {self.rounds} rounds"
        )


def small(plan: Plan) -> Plan:
    """The same with memories hundreds of times smaller: shows that it runs, promises nothing."""
    return Plan(
        rounds=plan.rounds,
        parts=plan.parts,
        folder=plan.folder,
        commits=8,
        late=200,
        writing_seconds=0.2,
        bulk=16,
        records=640,
        wide_keys=5_120,
        questions=10,
        reads=20,
        hour=120,
    )
