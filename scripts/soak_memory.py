"""Kill processes that use a memory, and cut its power, until something is lost or all is done.

    python -m scripts.soak_memory --rounds 200 --seed 7

Each round, two writers append, roll, forget, adopt and tidy up, a third process thins and rewrites,
a fourth searches and checks every byte; all are killed at a random moment. Then everything that
was acknowledged must be there, once, as it was given, and be found by its own keys. Rounds flush to
disk or not in turn. With --power-cuts, a recorded process is replayed on a disk that loses what
was not flushed (needs strace).
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from scripts.soak import cuts, rounds, trace
from scripts.soak.disk import Luck
from scripts.soak.nursery import Nursery

_LUCK: tuple[Luck, ...] = ("nothing", "everything", "some", "some")
_CUTS_OF_ONE = 100


def kill(count: int, random: Random, folder: Path) -> str:
    """Kill so many times; what happened, in words.

    Raises:
        Broken: something is not as it was acknowledged.
    """
    began = time.monotonic()
    with Nursery(rounds.MODULE) as nursery:
        memories = {
            sync: rounds.Soak(folder / sync / "memory", nursery, random)
            for sync in ("power", "process")
        }
        for number in range(count):
            sync = ("power", "process")[number % 2]
            memories[sync].round(sync)
            _progress(f"round {number + 1} of {count}", memories[sync].ledger)
        for soak in memories.values():
            soak.finish()
    parts = [
        f"{sync}: {soak.ledger.done} deeds acknowledged, {len(soak.ledger.present)} records left"
        for sync, soak in memories.items()
    ]
    return f"{count} kills in {time.monotonic() - began:.0f} s, nothing lost ({'; '.join(parts)})"


def cut(count: int, random: Random, folder: Path) -> str:
    """Cut the power so many times; what happened, in words.

    Raises:
        Broken: something is not as it was acknowledged.
    """
    began, done = time.monotonic(), 0
    with Nursery(cuts.MODULE) as nursery:
        while done < count:
            place = folder / f"recording-{done}"
            place.mkdir()
            recording = cuts.tell(nursery, place)
            wanted = min(count - done, _CUTS_OF_ONE)
            moments: dict[int, list[Luck]] = {}
            for _ in range(wanted):
                moment = random.randrange(len(recording.calls))
                moments.setdefault(moment, []).append(random.choice(_LUCK))
            done += cuts.cut(recording, moments, place, random)
            _progress(f"{done} of {count} power cuts")
    return f"{count} power cuts in {time.monotonic() - began:.0f} s, nothing lost"


def _progress(text: str, ledger: rounds.Ledger | None = None) -> None:
    known = f": {ledger.done} deeds, {len(ledger.present)} records" if ledger is not None else ""
    print(f"\r{text}{known}    ", end="", file=sys.stderr, flush=True)


def main() -> None:
    """Run what was asked for; exit code 1 if a promise was not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=200, help="kills")
    parser.add_argument("--power-cuts", type=int, default=0, help="power cuts")
    parser.add_argument("--seed", type=int, default=None, help="repeats the same choices")
    options = parser.parse_args()
    if options.power_cuts and (reason := trace.why_not()) is not None:
        parser.error(reason)
    # That index files are thrown away is what a power cut is expected to lead to.
    logging.getLogger("streamvlm.memory.index.derived").setLevel(logging.ERROR)
    seed = options.seed if options.seed is not None else time.time_ns() % 1_000_000
    print(f"seed {seed}")
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    for sync in ("power", "process"):
        (folder / sync).mkdir()
    try:
        for count, what in ((options.rounds, kill), (options.power_cuts, cut)):
            if count:
                done = what(count, Random(seed), folder)
                print(f"\r{done}", flush=True)
    except rounds.Broken as error:
        print(f"\nBROKEN: {error}\nthe memory is left in {folder}")
        sys.exit(1)


if __name__ == "__main__":
    main()
