"""One short lock between all processes: no checkpoint beside a commit, no long waits."""

import json
import os
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path

import pytest

from scripts.soak.records import IDENTITY, difference, record
from streamvlm.memory.store import Memory, ShardLimits

ROOT = Path(__file__).parents[2]

WATCHED = """
import json, sys, time
from streamvlm.memory.catalog import database
from streamvlm.memory.catalog.database import Database
from streamvlm.memory.maintain import erase, maintain
from streamvlm.memory.store import Memory, ShardLimits
from scripts.soak.records import record

path, first, out = sys.argv[1], int(sys.argv[2]), []
database._CHECKPOINT_EVERY = 3
connect = Database._connect

def watched(path, *, uri):
    connection = connect(path, uri=uri)
    began = {}

    class Watched:
        def execute(self, text, *values):
            word = "checkpoint" if "wal_checkpoint" in text else text.split()[0]
            if word in ("checkpoint", "VACUUM", "COMMIT") and not uri:
                start = time.monotonic_ns()
                try:
                    return connection.execute(text, *values)
                finally:
                    out.append((start, time.monotonic_ns(), word))
            return connection.execute(text, *values)

        def close(self):
            start = time.monotonic_ns()
            connection.close()
            if not uri:
                out.append((start, time.monotonic_ns(), "checkpoint"))

        def __getattr__(self, name):
            return getattr(connection, name)

    return Watched()

Database._connect = staticmethod(watched)
record(0)
print("ready", flush=True)
sys.stdin.readline()
for turn in range(4):
    with Memory.open(path, limits=ShardLimits(max_keys=9)) as memory:
        for number in range(first + 8 * turn, first + 8 * turn + 8):
            memory.append([record(number)])
    if first == 0:
        erase(path)
print(json.dumps(out))
"""


def test_no_checkpoint_runs_beside_a_commit_of_another_process(path):
    """SQLite before 3.51.3 may corrupt its file when they do."""
    Memory.create(path, IDENTITY).close()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WATCHED, str(path), str(1_000_000 * n)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for n in range(2)
    ]
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    spans = []
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        out, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        spans += [(*span, process.pid) for span in json.loads(out)]
    spans.sort()
    assert sum(kind == "checkpoint" for _, _, kind, _ in spans) > 20
    assert sum(kind == "COMMIT" for _, _, kind, _ in spans) > 60
    # They were at work at the same time, and one after the other nevertheless.
    assert len({process for _, _, _, process in spans}) == 2
    turns = sum(one[3] != other[3] for one, other in pairwise(spans))
    assert turns > 4
    for one, other in pairwise(spans):
        assert one[1] <= other[0], (one, other)


def test_a_writer_that_closes_does_not_hold_up_others_beside_a_long_search(path):
    Memory.create(path, IDENTITY, sync="process").close()
    with (
        Memory.open(path, sync="process") as writer,
        Memory.open(path, writable=False) as reader,
    ):
        other = Memory.open(path, sync="process")
        other.append([record(1)])
        with reader._rows.snapshot():
            assert reader._rows.count() == 1
            writer.append([record(2)])
            closing = threading.Thread(target=other.close)
            began = time.monotonic()
            closing.start()
            closing.join(20)
            writer.append([record(3)])
            assert time.monotonic() - began < 10
    with Memory.open(path, writable=False) as memory:
        assert len(memory) == 3


def test_a_clock_that_is_set_back_an_hour_does_no_harm(path, monkeypatch):
    limits, now = ShardLimits(max_keys=6), time.time_ns
    with Memory.create(path, IDENTITY, payload="raw", sync="process", limits=limits) as memory:
        memory.append([record(number) for number in range(5)])
        with monkeypatch.context() as patch:
            patch.setattr(time, "time_ns", lambda: now() - 3600 * 10**9)
            patch.setattr(time, "time", lambda: now() / 1e9 - 3600)
            for number in range(5, 12):
                memory.append([record(number)])
        memory.append([record(12)])
        names = [shard.name for shard in memory._rows.shards()]
        assert names != sorted(names)
    with Memory.open(path, sync="process") as memory:
        memory.append([record(13)])
        assert [difference(one) for one in memory.load(memory.ids())] == [None] * 14
        for number in range(14):
            assert memory.search(record(number).keys[1], limit=1)[0].id == record(number).id


@pytest.mark.parametrize("writable", [True, False])
def test_two_memories_of_one_folder_in_one_process_see_each_other(path, writable):
    with (
        Memory.create(path, IDENTITY, payload="raw", sync="process") as one,
        Memory.open(path, writable=writable, sync="process") as other,
    ):
        for number in range(6):
            (one if number % 2 or not writable else other).append([record(number)])
            for each in (one, other):
                assert len(each) == number + 1
                assert each.search(record(number).keys[2], limit=1)[0].id == record(number).id
        one.forget("stream-0.1")
        assert [hit.id for hit in other.search(record(1).keys[2], limit=9)] == [
            hit.id for hit in one.search(record(1).keys[2], limit=9)
        ]
        assert len(other) == 4
