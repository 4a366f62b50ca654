"""A process is killed just before each thing it asks of the disk or the catalogue."""

import json
from random import Random

import pytest

from scripts.soak import story, trace
from scripts.soak.nursery import Nursery
from scripts.soak.records import record
from scripts.soak.rounds import Ledger, verify
from streamvlm.memory.maintain import erase
from streamvlm.memory.store import Memory

pytestmark = pytest.mark.slow

TELL = "scripts.soak.story:tell"


@pytest.fixture(scope="module")
def nursery():
    with Nursery(story.__name__) as nursery:
        yield nursery


def job(folder, **more):
    return {
        "folder": str(folder / "memory"),
        "log": str(folder / "log"),
        "steps": str(folder / "steps"),
        "sync": "power",
        **more,
    }


@pytest.fixture(scope="module")
def steps(nursery, tmp_path_factory):
    """The steps of a process that is not killed, by name."""
    folder = tmp_path_factory.mktemp("whole")
    assert nursery.wait(nursery.start(TELL, **job(folder, die_at=-1))) == 0
    assert check(folder) > 10
    return (folder / "steps").read_text().splitlines()


def check(folder):
    """Whether everything acknowledged is there, and the memory works; how many records."""
    lines = [json.loads(line) for line in (folder / "log").read_text().splitlines()]
    if ["did"] not in lines:
        Memory.create(folder / "memory", story.IDENTITY, payload="raw").close()
        return 0
    ledger = Ledger()
    ledger.take(lines, None)
    verify(folder / "memory", ledger, Random(1), 2)
    held = set(ledger.present)
    with Memory.open(folder / "memory") as memory:
        memory.append([record(900)])
        assert len(memory) == len(held) + 1
    assert erase(folder / "memory").kept_bytes == 0
    ledger.present.add(900)
    verify(folder / "memory", ledger, Random(1), 2)
    return len(held)


NAMED = [
    "pwritev",
    "fdatasync",
    "fsync",
    "COMMIT",
    "after commit",
    "replace .json",
    "replace .npy",
    "replace .faiss",
    "replace .rows",
    "replace .svm",
    "replace .db",
    "unlink .svm",
    "unlink .npy",
    "PRAGMA",
]


@pytest.mark.parametrize("name", NAMED)
def test_a_kill_at_a_named_step_leaves_what_was_acknowledged(nursery, steps, tmp_path, name):
    verb, _, suffix = name.partition(" ")
    places = [
        number
        for number, step in enumerate(steps, 1)
        if step.startswith(verb) and step.endswith(suffix)
    ]
    assert places, f"no step {name} among {sorted(set(steps))}"
    for place in Random(name).sample(places, min(len(places), 2)):
        folder = tmp_path / str(place)
        folder.mkdir()
        child = nursery.start(TELL, **job(folder, die_at=place))
        assert nursery.wait(child) == -9
        check(folder)


@pytest.mark.skipif(trace.why_not() is not None, reason=str(trace.why_not()))
@pytest.mark.parametrize(
    ("call", "nth"), [("fdatasync", n) for n in (12, 13, 27, 40, 61)] + [("pwrite64", 150)]
)
def test_a_kill_inside_a_commit_leaves_what_was_acknowledged(nursery, tmp_path, call, nth):
    """SQLite's own calls, between which no code of ours runs."""
    child = nursery.start(TELL, **job(tmp_path, stopped=True))
    inject = f"inject={call}:signal=SIGKILL:when={nth}"
    with trace.record_calls(child, tmp_path / "trace", "-e", inject):
        assert nursery.wait(child) == -9
    check(tmp_path)
