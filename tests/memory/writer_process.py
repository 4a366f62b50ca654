"""A helper of test_durability.py: forks a writer for each line it reads, until it is killed.

Line in: the folder and the number of the first record. Lines out: `pid N`, then `ack N` for each
record as soon as `append` returned, then `dead` once the child is gone.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch

from streamvlm.memory.store import Identity, Memory, ShardLimits
from streamvlm.types import MemoryRecord, VisualTokens

IDENTITY = Identity("e", "k", 16)
LIMITS = ShardLimits(max_keys=40)


def record(number: int) -> MemoryRecord:
    random = np.random.default_rng(number)
    keys = random.normal(size=(2, 16))
    count = 5 + number % 40
    tokens = VisualTokens(
        model="e",
        features=torch.from_numpy(random.normal(size=(count, 64)).astype(np.float32)),
        position=torch.zeros(count, 3, dtype=torch.int64),
        seconds=torch.full((count,), float(number), dtype=torch.float64),
        grid=(1, 1, count),
        weight=torch.ones(count),
    )
    return MemoryRecord(
        id=f"{number:08x}",
        stream=f"s{number % 3}",
        start=float(number),
        end=number + 1.0,
        keys=(keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32),
        tokens=tokens,
        frame_seconds=np.array([float(number)]),
        frame_hash=np.array([number], np.uint64),
        thumbnail=b"jpeg",
    )


def write(folder: str, number: int, sync: str) -> None:
    with Memory.open(folder, IDENTITY, sync=sync, limits=LIMITS) as memory:
        while True:
            batch = [record(number + offset) for offset in range(1 + number % 4)]
            memory.append(batch)
            number += len(batch)
            os.write(1, b"".join(b"ack %d\n" % int(one.id, 16) for one in batch))
            if number % 7 == 0:
                memory.search(batch[0].keys[0])


def main() -> None:
    for line in sys.stdin:
        folder, number, sync = line.split()
        if not Path(folder).exists():
            Memory.create(folder, IDENTITY, payload="raw").close()
        child = os.fork()
        if child == 0:
            write(folder, int(number), sync)
        os.write(1, b"pid %d\n" % child)
        os.waitpid(child, 0)
        os.write(1, b"dead\n")


if __name__ == "__main__":
    main()
