"""Disks that are full or broken, index files that are wrong, shards with flipped bits."""

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from scripts.soak.records import IDENTITY, difference, record
from streamvlm.errors import MemoryStoreError
from streamvlm.memory import bulk, maintain
from streamvlm.memory.disk.codec import Head
from streamvlm.memory.index import part
from streamvlm.memory.store import DamagedRecord, Memory, ShardLimits

ROOT = Path(__file__).parents[2]


@pytest.fixture
def memory(path):
    with Memory.create(path, IDENTITY, payload="raw") as memory:
        memory.append([record(number) for number in range(4)])
        yield memory


def shards(path):
    return {file.name: file.read_bytes() for file in (path / "shards").glob("*.svm")}


class Broken:
    """Lets the n-th call of a function of `os` fail, and all after it."""

    def __init__(self, monkeypatch, name, code, after):
        self.calls = 0
        self._call, self._code, self._after = getattr(os, name), code, after
        monkeypatch.setattr(os, name, self)

    def __call__(self, *values):
        self.calls += 1
        if self.calls > self._after:
            raise OSError(self._code, os.strerror(self._code))
        return self._call(*values)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("name", ["pwritev", "fdatasync"])
def test_a_disk_that_fails_costs_one_append_and_its_shard(path, memory, monkeypatch, name, code):
    torn = shards(path)
    with monkeypatch.context() as patch:
        Broken(patch, name, code, after=0)
        with pytest.raises(MemoryStoreError, match=r"no space is left|Input/output error") as error:
            memory.append([record(4), record(5)])
        assert "\n" not in str(error.value)
        assert len(memory) == 4
    written = shards(path)
    memory.append([record(5), record(6)])
    assert [difference(one) for one in memory.load(memory.ids())] == [None] * 6
    # The shard that met the fault was not written again.
    assert {name: shards(path)[name] for name in torn} == {name: written[name] for name in torn}
    assert len(shards(path)) == 2


def test_a_write_that_is_cut_short_by_a_full_disk_goes_on_or_fails_whole(memory, monkeypatch):
    write = os.pwritev

    def short(descriptor, blobs, at):
        return write(descriptor, [blobs[0][: max(len(blobs[0]) // 3, 1)]], at)

    with monkeypatch.context() as patch:
        patch.setattr(os, "pwritev", short)
        memory.append([record(4), record(5)])
        calls = []

        def full(descriptor, blobs, at):
            calls.append(at)
            if len(calls) > 3:
                raise OSError(errno.ENOSPC, "No space left on device")
            return short(descriptor, blobs, at)

        patch.setattr(os, "pwritev", full)
        with pytest.raises(MemoryStoreError, match="no space is left"):
            memory.append([record(6), record(7)])
    assert [difference(one) for one in memory.load(memory.ids())] == [None] * 6
    memory.append([record(6)])
    assert difference(memory.load([record(6).id])[0]) is None


@pytest.mark.parametrize("at", ["BEGIN IMMEDIATE", "COMMIT", "COMMIT, done nevertheless"])
def test_a_commit_that_fails_costs_one_append_and_its_shard(path, memory, monkeypatch, at):
    catalog = memory._writer.catalog
    real = catalog.sql

    class Failing:
        def execute(self, text, *values):
            if text == at.partition(",")[0]:
                if "nevertheless" in at:
                    real.execute(text, *values)
                raise sqlite3.OperationalError("disk I/O error")
            return real.execute(text, *values)

        def __getattr__(self, name):
            return getattr(real, name)

    catalog.sql = Failing()
    with pytest.raises(MemoryStoreError, match="disk I/O error"):
        memory.append([record(4)])
    catalog.sql = real
    before = shards(path)
    # Whether it was committed or not: it is there once after it was given again.
    memory.append([record(4), record(5)])
    assert sorted(memory.ids()) == sorted(record(number).id for number in range(6))
    assert [difference(one) for one in memory.load(memory.ids())] == [None] * 6
    assert all(shards(path)[name] == content for name, content in before.items())


@pytest.mark.parametrize("name", ["pwritev", "fsync"])
def test_a_rewrite_that_fails_leaves_all_as_it_was(path, memory, monkeypatch, name):
    memory.roll()
    memory.forget("stream-0.0")
    with monkeypatch.context() as patch:
        Broken(patch, name, errno.EIO, after=0)
        with pytest.raises(MemoryStoreError, match="Input/output error"):
            maintain.erase(path)
        assert [difference(one) for one in memory.load(memory.ids())] == [None] * 2
    assert maintain.erase(path).kept_bytes == 0
    assert [difference(one) for one in memory.load(memory.ids())] == [None] * 2


def test_a_rename_that_fails_while_adopting_leaves_the_shard_to_be_adopted(
    path, memory, tmp_path, monkeypatch
):
    manifest = bulk.write_shard(tmp_path / "w", memory.format, [record(9)], sync="process")
    with monkeypatch.context() as patch:
        Broken(patch, "replace", errno.EIO, after=0)
        with pytest.raises(MemoryStoreError, match="Input/output error"):
            memory.adopt([manifest])
    assert len(memory) == 4
    assert memory.adopt([manifest]) == 1


@pytest.mark.parametrize("name", ["fsync", "open"])
def test_a_shard_that_cannot_be_begun_leaves_no_file_behind(path, memory, monkeypatch, name):
    memory.roll()
    with monkeypatch.context() as patch:
        Broken(patch, name, errno.ENOSPC, after=0)
        with pytest.raises(MemoryStoreError, match="no space is left"):
            memory.append([record(4)])
    assert len(shards(path)) == 1
    memory.append([record(4)])
    assert difference(memory.load([record(4).id])[0]) is None


@pytest.fixture
def indexed(path, monkeypatch):
    """A memory with the index files of two shards, and what it answers."""
    monkeypatch.setattr(part, "INDEX_FROM", 4)
    limits = ShardLimits(max_keys=60)
    with Memory.create(path, IDENTITY, payload="raw", sync="process", limits=limits) as memory:
        for first in range(0, 48, 12):
            memory.append([record(number) for number in range(first, first + 12)])
        memory.search(record(0).keys[0])
    assert len(list((path / "index").glob("*.npy"))) == 2
    return answers(path)


def answers(path):
    with Memory.open(path, writable=False) as reader:
        keys = [record(number).keys[1] for number in range(0, 48, 5)]
        return [[(hit.id, round(hit.score, 4)) for hit in reader.search(key)] for key in keys]


def deface(file, how, other):
    content = bytearray(file.read_bytes())
    if how == "zeroed page":
        content[:4096] = bytes(min(4096, len(content)))
    elif how == "flipped bit":
        content[len(content) // 2] ^= 4
    elif how == "cut":
        del content[len(content) // 2 :]
    elif how == "empty":
        content.clear()
    else:
        content = other.read_bytes()
    file.write_bytes(content)


@pytest.mark.parametrize("how", ["zeroed page", "flipped bit", "cut", "empty", "of another shard"])
@pytest.mark.parametrize("ending", ["npy", "rows", "json"])
def test_a_wrong_index_file_changes_no_answer_and_gives_one_warning(
    path, indexed, caplog, how, ending
):
    file, other = sorted((path / "index").glob(f"*.{ending}"))
    deface(file, how, other)
    assert answers(path) == indexed
    assert len(caplog.records) == 1
    assert "made again" in caplog.text


def test_index_files_of_records_that_a_restored_catalogue_lacks_are_noticed(
    path, memory, monkeypatch, tmp_path, caplog
):
    """They are whole, and there are fewer keys in them than the catalogue says in the end."""
    monkeypatch.setattr(part, "INDEX_FROM", 4)
    memory.close()
    copy = shutil.copy(path / "catalog.db", tmp_path / "copy.db")
    with Memory.open(path) as lost:
        lost.append([record(number) for number in range(4, 20)])
        lost.search(record(0).keys[0])
    shutil.copy(copy, path / "catalog.db")
    with Memory.open(path) as memory:
        memory.append([record(number) for number in range(100, 130)])
    with Memory.open(path) as memory:
        for number in (*range(4), *range(100, 130)):
            for key in record(number).keys:
                assert record(number).id in [hit.id for hit in memory.search(key, limit=2)]
    assert caplog.text.count("made again") == 1


def test_missing_index_files_change_no_answer(path, indexed, caplog):
    shutil.rmtree(path / "index")
    assert answers(path) == indexed
    assert answers(path) == indexed
    assert not caplog.records


@pytest.mark.parametrize("where", ["head", "indexed keys", "other keys", "body"])
def test_a_flipped_bit_costs_that_record_alone_and_not_its_stream(path, memory, caplog, where):
    row = memory._rows.place(record(3).id)
    memory.close()
    (file,) = (path / "shards").iterdir()
    content = bytearray(file.read_bytes())
    start = row.segment.offset
    head = Head.parse(bytes(content[start : start + 64]), "")
    assert head.num_indexed < head.num_keys
    places = [20, 70, head.indexed_end + 1, head.keys_end + head.body_bytes // 2]
    content[start + places[["head", "indexed keys", "other keys", "body"].index(where)]] ^= 1
    file.write_bytes(content)
    with Memory.open(path) as memory:
        for number in (0, 1, 2):
            assert difference(memory.load([record(number).id])[0]) is None
            assert memory.search(record(number).keys[0], limit=1)[0].id == record(number).id
        with pytest.raises(DamagedRecord, match=f"record {record(3).id} is damaged"):
            memory.load([record(3).id])
        memory.search(record(3).keys[0])
        # The next record of its stream can be appended nevertheless.
        memory.append([record(6), record(9)])
        for number in (6, 9):
            assert memory.search(record(number).keys[0], limit=1)[0].id == record(number).id
    assert caplog.text.count(record(3).id) == (where in ("head", "indexed keys"))


READS = """
import os, sys
from streamvlm.memory.store import Memory
from scripts.soak.records import record
import numpy, torch, safetensors.torch
os.setgid(65534); os.setuid(65534)
with Memory.open(sys.argv[1], writable=False) as memory:
    print(len(memory), flush=True)
    while (line := sys.stdin.readline()):
        found = [hit.id for hit in memory.search(record(int(line)).keys[1], limit=1)]
        print(len(memory), found[0], memory.load(found)[0].id, flush=True)
"""


@pytest.fixture
def open_to_all():
    """A folder that every user may read."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("is_before", [True, False])
def test_a_user_without_write_permission_reads_beside_a_writer(open_to_all, is_before):
    """Whether the writer was there when the memory was opened, or comes and goes later."""
    path = open_to_all / "memory"
    staying = Memory.create(path, IDENTITY, payload="raw")
    staying.append([record(number) for number in range(4)])
    if not is_before:
        staying.close()
    reader = subprocess.Popen(
        [sys.executable, "-c", READS, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    with reader:
        assert reader.stdout.readline() == "4\n"
        for number in range(4, 9):
            if is_before:
                staying.append([record(number)])
            else:
                with Memory.open(path) as passing:
                    passing.append([record(number)])
            reader.stdin.write(f"{number}\n")
            reader.stdin.flush()
            uid = record(number).id
            assert reader.stdout.readline() == f"{number + 1} {uid} {uid}\n"
        reader.stdin.close()
    staying.close()


def test_sealed_by_another_process_while_appending_loses_nothing(path, memory):
    for number in range(4, 12):
        maintain.erase(path)
        memory.append([record(number)])
        memory.forget("stream-0.0", before=float(number - 2))
    assert [difference(one) for one in memory.load(memory.ids())] == [None] * len(memory)
