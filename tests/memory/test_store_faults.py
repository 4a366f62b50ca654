"""What can be wrong with a folder, a disk, a record or a query, each in one sentence."""

import errno
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.store import DamagedRecord, Identity, Memory, ShardLimits


def shard_bytes(path: Path) -> list[bytes]:
    return [shard.read_bytes() for shard in sorted((path / "shards").iterdir())]


def test_a_second_writer_has_a_shard_of_its_own(path, memory, record, same):
    memory.append([record(1)])
    with Memory.open(path) as second:
        second.append([record(2)])
        memory.append([record(3)])
        assert len(shard_bytes(path)) == 2
        for each in (memory, second):
            assert all(map(same, map(record, (1, 2, 3)), each.load(each.ids())))


def test_a_file_system_without_locks_is_one_sentence(path, memory, monkeypatch):
    memory.close()

    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with pytest.raises(MemoryStoreError, match=r"file system without locks.*local disk"):
        Memory.open(path)
    Memory.open(path, writable=False).close()


def test_a_reader_cannot_write(path, memory, record):
    with (
        Memory.open(path, writable=False) as reader,
        pytest.raises(MemoryStoreError, match="writable=True"),
    ):
        reader.append([record(1)])


def test_a_closed_memory_says_so(memory, record):
    memory.close()
    memory.close()
    with pytest.raises(MemoryStoreError, match="is closed"):
        len(memory)


def test_a_forked_process_is_told_to_open_it_again(memory, record):
    child = os.fork()
    if child == 0:
        try:
            memory.append([record(1)])
        except MemoryStoreError as error:
            os._exit(42 if "forked" in str(error) else 1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 42
    memory.append([record(1)])


@pytest.mark.parametrize("field", ["encoder", "embedder", "key_width"])
def test_vectors_of_other_weights_are_refused(path, memory, identity, field):
    memory.close()
    other = replace(identity, **{field: 99 if field == "key_width" else "other@2"})
    with pytest.raises(MemoryStoreError, match=f"was written with {field} .*ingest"):
        Memory.open(path, other)
    Memory.open(path, identity).close()
    assert Memory.open(path, writable=False).identity == identity


def test_a_record_of_other_weights_is_refused_and_its_batch_with_it(memory, record, units):
    one = record(1)
    with pytest.raises(MemoryStoreError, match=r"takes keys \(K, 32\), found \(1, 8\)"):
        memory.append([record(2), record(1, keys=units(1, width=8))])
    with pytest.raises(MemoryStoreError, match="takes tokens of 'tiny-encoder@1'"):
        memory.append([record(2), replace(one, tokens=replace(one.tokens, model="other"))])
    assert len(memory) == 0


@pytest.mark.parametrize("key", [np.zeros(32), np.ones(8), np.full(32, np.nan), np.ones((0, 32))])
def test_a_query_that_does_not_fit_is_refused(memory, key):
    with pytest.raises(MemoryStoreError, match="searched with finite keys of 32 numbers"):
        memory.search(key.astype(np.float32))


@pytest.mark.parametrize("part", ["keys", "body"])
def test_a_flipped_bit_costs_one_record(path, memory, record, same, part, caplog):
    records, place = [record(number) for number in range(5)], "/videos/a.mp4, 2–3 s"
    memory.append(records)
    memory.close()
    (shard,) = (path / "shards").iterdir()
    content = bytearray(shard.read_bytes())
    length = len(content) // 5
    content[2 * length + (70 if part == "keys" else length // 2)] ^= 1
    shard.write_bytes(content)
    with Memory.open(path) as memory:
        with pytest.raises(DamagedRecord, match=f"^{place}: record {records[2].id} is damaged"):
            memory.load(memory.ids())
        for number in (0, 1, 3, 4):
            assert same(records[number], memory.load([records[number].id])[0])
            assert memory.search(records[number].keys[0], limit=1)[0].id == records[number].id
        found = [hit.id for hit in memory.search(records[2].keys[0], limit=9)]
    assert (records[2].id in found) == (part == "body")
    assert (f"record {records[2].id} ({place})" in caplog.text) == (part == "keys")


def test_a_missing_shard_costs_its_own_records(path, identity, record):
    with Memory.create(path, identity, sync="process", limits=ShardLimits(max_keys=1)) as memory:
        memory.append([record(1)])
        memory.append([record(2)])
    sorted((path / "shards").iterdir())[0].unlink()
    with Memory.open(path) as memory:
        assert [hit.id for hit in memory.search(record(1).keys[0])] == [record(2).id]
        with pytest.raises(
            DamagedRecord, match=f"a.mp4, 1–2 s: record {record(1).id} cannot be read"
        ):
            memory.load([record(1).id])
        memory.append([record(3)])
        assert len(memory.load([record(2).id, record(3).id])) == 2


@pytest.mark.parametrize("sync", ["power", "process"])
def test_a_file_size_limit_stops_one_append_and_nothing_else(path, identity, record, same, sync):
    small, big = record(1), record(2, num_tokens=2000)
    with Memory.create(path, identity, payload="raw", sync=sync) as memory:
        memory.append([small])
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
        try:
            with pytest.raises(MemoryStoreError, match="no space is left"):
                memory.append([record(3), big])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert memory.ids() == [small.id]
        torn = shard_bytes(path)[0]
        memory.append([big, record(3)])
        assert shard_bytes(path)[0] == torn
        assert len(shard_bytes(path)) == 2
        assert all(map(same, [small, big, record(3)], memory.load(memory.ids())))
    with Memory.open(path) as memory:
        assert all(map(same, [small, big, record(3)], memory.load(memory.ids())))


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_full_disk_stops_appends_until_there_is_room(small_disk, identity, record, same):
    records = [record(number, num_tokens=100) for number in range(60)]
    with Memory.create(small_disk / "m", identity, payload="raw") as memory:
        filler = small_disk / "filler"
        filler.write_bytes(bytes(300_000))
        refused = None
        for done, one in enumerate(records):  # noqa: B007
            try:
                memory.append([one])
            except MemoryStoreError as error:
                refused = str(error)
                break
        assert refused is not None
        assert "no space is left" in refused
        assert done > 0
        for _ in range(3):
            with pytest.raises(MemoryStoreError, match="no space is left"):
                memory.append(records[done : done + 5])
        assert memory.ids() == [one.id for one in records[:done]]
        assert memory.search(records[0].keys[0], limit=1)[0].id == records[0].id
        filler.unlink()
        memory.append([records[done]])
        assert all(map(same, records[: done + 1], memory.load(memory.ids())))
    with Memory.open(small_disk / "m") as memory:
        assert all(map(same, records[: done + 1], memory.load(memory.ids())))


def test_a_folder_that_may_not_be_written_can_be_read(identity, record):
    script = """
import os, sys
from streamvlm.errors import MemoryStoreError
from streamvlm.memory.store import Memory
import numpy, torch, safetensors.torch
path = sys.argv[1]
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
with Memory.open(path, writable=False) as memory:
    (hit,) = memory.search(memory.load(memory.ids())[0].keys[0])
    print("read", hit.id)
for make in (lambda: Memory.open(path), lambda: Memory.create(path + "/new", memory.identity)):
    try:
        make()
    except MemoryStoreError as error:
        print(error)
"""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "m"
        with Memory.create(path, identity, sync="process") as memory:
            memory.append([record(1)])
        for folder in (path / "shards", path, Path(name)):
            folder.chmod(0o555)
        run = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True)
        path.chmod(0o755)
        for folder in (path / "shards", path, Path(name)):
            folder.chmod(0o755)
    assert run.stdout.splitlines()[0] == f"read {record(1).id}", run.stderr
    assert run.stdout.count("writing there is not permitted") == 2


def test_a_missing_folder_is_one_sentence(path):
    with pytest.raises(MemoryStoreError, match=r"there is no memory at .*ingest"):
        Memory.open(path)


def test_a_folder_that_is_no_memory_is_one_sentence(tmp_path):
    with pytest.raises(MemoryStoreError, match="is not a memory"):
        Memory.open(tmp_path)


def test_a_newer_format_says_to_upgrade(path, memory):
    memory.close()
    content = json.loads((path / "format.json").read_text())
    (path / "format.json").write_text(json.dumps({**content, "format": 3}))
    with pytest.raises(MemoryStoreError, match=r"has format 3.*upgrade streamvlm"):
        Memory.open(path)


def test_an_older_format_says_to_ingest_again(path, memory):
    memory.close()
    content = json.loads((path / "format.json").read_text())
    (path / "format.json").write_text(json.dumps({**content, "format": 1}))
    with pytest.raises(MemoryStoreError, match=r"has format 1.*ingest its videos"):
        Memory.open(path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"format": "x"}', '{"format": 2}'])
def test_a_damaged_format_file_is_one_sentence(path, memory, content):
    memory.close()
    (path / "format.json").write_text(content)
    with pytest.raises(MemoryStoreError, match=r"format\.json is damaged"):
        Memory.open(path)


@pytest.mark.parametrize("writable", [True, False])
def test_a_damaged_catalogue_is_one_sentence(path, memory, writable):
    memory.close()
    (path / "catalog.db").write_bytes(b"no database" * 1000)
    with pytest.raises(MemoryStoreError, match="catalogue is damaged"):
        len(Memory.open(path, writable=writable))
    (path / "catalog.db").unlink()
    with pytest.raises(MemoryStoreError, match=r"catalog\.db is missing"):
        Memory.open(path, writable=writable)


def test_a_memory_is_not_made_over_another_nor_over_foreign_files(path, memory, identity, tmp_path):
    with pytest.raises(MemoryStoreError, match="already a memory"):
        Memory.create(path, identity)
    with pytest.raises(MemoryStoreError, match=r"holds other files \(lobby\)"):
        Memory.create(tmp_path, identity)
    file = tmp_path / "file"
    file.write_text("x")
    with pytest.raises(MemoryStoreError, match="is a file"):
        Memory.create(file, identity)


def test_what_a_killed_create_left_behind_does_not_hinder(path, memory, identity):
    memory.close()
    (path / "format.json").rename(path / ".format.json.123")
    Memory.create(path, identity).close()


def test_an_unknown_payload_is_refused_before_anything_is_made(path, identity):
    with pytest.raises(MemoryStoreError, match="did you mean 'int8'"):
        Memory.create(path, identity, payload="int4")
    assert not path.exists()


def test_a_copied_memory_is_a_memory(path, memory, record, tmp_path):
    memory.append([record(1)])
    memory.close()
    path.rename(tmp_path / "moved")
    with Memory.open(tmp_path / "moved") as moved:
        assert moved.load([record(1).id])[0].id == record(1).id
    assert Identity("a", "b", 1) != moved.identity
