"""A helper of test_forget.py and test_backup.py: uses a memory in a process of its own.

Words in: the folder and what to do. `read A-B` looks at those records again and again until its
input ends, and says `wrong …` if one is not as it was given. `write N` appends record N for each
line it reads. It says `ready` once it has begun.
"""

import select
import sys

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.disk.codec import pack
from streamvlm.memory.store import Memory
from tests.memory.writer_process import record


def say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


def read(folder: str, numbers: range) -> None:
    wanted = {record(number).id: record(number) for number in numbers}
    rounds = 0
    with Memory.open(folder, writable=False) as memory:
        while rounds < 2 or not select.select([sys.stdin], [], [], 0)[0]:
            for one in memory.load(list(wanted)):
                if pack(one, "raw") != pack(wanted[one.id], "raw"):
                    say("wrong bytes", one.id)
            for hit in memory.search(wanted[record(numbers[0]).id].keys[0], limit=50):
                try:
                    (one,) = memory.load([hit.id])
                except MemoryStoreError as error:
                    if "no record" not in str(error):
                        say("wrong", error)
                    continue
                if one.id in wanted and pack(one, "raw") != pack(wanted[one.id], "raw"):
                    say("wrong bytes", one.id)
            missing = set(wanted) - set(memory.ids())
            if missing:
                say("wrong: missing", missing)
            rounds += 1
            if rounds == 1:
                say("ready")
    say("rounds", rounds)


def write(folder: str, number: int) -> None:
    with Memory.open(folder, sync="process") as memory:
        memory.append([record(number)])
        say("ready")
        for _ in sys.stdin:
            number += 1
            memory.append([record(number)])
            say("ready")


if __name__ == "__main__":
    folder, what, numbers = sys.argv[1:]
    first, *last = map(int, numbers.split("-"))
    if what == "read":
        read(folder, range(first, *last))
    else:
        write(folder, first)
