"""Writers are killed for real, again and again on the same folder, and nothing may be missing."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from streamvlm.memory.disk.codec import pack
from streamvlm.memory.store import Memory

ROUNDS = 15
_HELPER = Path(__file__).with_name("writer_process.py")
_SPEC = importlib.util.spec_from_file_location("writer_process", _HELPER)
assert _SPEC is not None
assert _SPEC.loader is not None
writer_process = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(writer_process)


@pytest.fixture
def helper():
    process = subprocess.Popen(
        [sys.executable, str(_HELPER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        yield process
        process.stdin.close()


def killed_writer(helper, folder, first, sync, chance):
    """Let a writer run, kill it at a random moment; the numbers it acknowledged."""
    helper.stdin.write(f"{folder} {first} {sync}\n")
    helper.stdin.flush()
    acknowledged = []
    patience = chance.randrange(1, 20)
    for line in helper.stdout:
        word, *number = line.split()
        if word == "pid":
            child = int(number[0])
            # Not at an acknowledgement, but anywhere in the work that follows one.
            timer = threading.Timer(chance.random() * 0.05, os.kill, (child, signal.SIGKILL))
        elif word == "ack":
            acknowledged.append(int(number[0]))
            if len(acknowledged) >= patience and not timer.is_alive():
                patience = sys.maxsize
                timer.start()
        else:
            break
    timer.join()
    return acknowledged


@pytest.mark.parametrize("sync", ["power", "process"])
def test_nothing_acknowledged_is_lost_to_a_kill(tmp_path, helper, sync):
    folder, chance = tmp_path / "m", random.Random(sync)
    acknowledged: set[int] = set()
    following = 0
    for _ in range(ROUNDS):
        acknowledged |= set(killed_writer(helper, folder, following, sync, chance))
        with Memory.open(folder, writable=False) as memory:
            ids = memory.ids()
            numbers = {int(uid, 16) for uid in ids}
            assert acknowledged <= numbers, "an acknowledged record is lost"
            assert len(ids) == len(numbers), "a record is there twice"
            # At most the one batch in flight, of up to four, is there beside.
            assert len(numbers - acknowledged) <= 4
            for one in memory.load(ids[-15:]):
                assert pack(one, "raw") == pack(writer_process.record(int(one.id, 16)), "raw")
            newest = writer_process.record(max(numbers))
            assert memory.search(newest.keys[1], limit=1)[0].id == newest.id
        # The next writer starts with the batch that may or may not have been kept.
        acknowledged = numbers
        following = max(0, max(numbers) - chance.randrange(3))
    with Memory.open(folder) as memory:
        assert {int(one.id, 16) for one in memory.load(memory.ids())} == numbers
        for number in sorted(numbers)[::7]:
            wanted = writer_process.record(number)
            assert memory.search(wanted.keys[0], limit=1)[0].id == wanted.id
        memory.append([writer_process.record(number) for number in sorted(numbers)])
        assert len(memory) == len(numbers)
    assert len(list((folder / "shards").iterdir())) > 2
