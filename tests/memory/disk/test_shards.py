import os

import pytest

from streamvlm.memory.disk.shards import ShardReader, ShardWriter


def test_what_is_appended_can_be_read_by_range(tmp_path):
    writer = ShardWriter.create(tmp_path, "power")
    assert writer.append([[b"a" * 64], [b"b" * 128]]) == [0, 64]
    assert writer.append([[b"c" * 64]]) == [192]
    reader = ShardReader(tmp_path)
    assert reader.read(writer.name, 64, 128) == b"b" * 128
    assert reader.read(writer.name, 192, 64) == b"c" * 64


def test_a_read_beyond_the_end_gives_what_there_is(tmp_path):
    writer = ShardWriter.create(tmp_path, "process")
    writer.append([[b"a" * 64]])
    assert ShardReader(tmp_path).read(writer.name, 32, 1000) == b"a" * 32


def test_two_shards_never_share_a_name_and_sort_by_time(tmp_path):
    names = [ShardWriter.create(tmp_path, "process").name for _ in range(20)]
    assert len(set(names)) == 20
    assert [name[:16] for name in names] == sorted(name[:16] for name in names)


def test_a_shard_has_one_writer(tmp_path):
    writer = ShardWriter.create(tmp_path, "process")
    assert ShardWriter.resume(tmp_path / f"{writer.name}.svm", 0, "process") is None
    writer.close()
    resumed = ShardWriter.resume(tmp_path / f"{writer.name}.svm", 0, "process")
    assert resumed is not None


def test_going_on_skips_what_a_killed_writer_left(tmp_path):
    writer = ShardWriter.create(tmp_path, "process")
    writer.append([[b"a" * 64]])
    writer.close()
    path = tmp_path / f"{writer.name}.svm"
    with path.open("ab") as file:
        file.write(b"torn")
    resumed = ShardWriter.resume(path, 64, "process")
    assert resumed is not None
    assert resumed.append([[b"b" * 64]]) == [128]
    assert path.read_bytes() == b"a" * 64 + b"torn" + bytes(60) + b"b" * 64


@pytest.mark.parametrize("content", [None, b"short"])
def test_a_shard_that_lost_bytes_is_not_gone_on_with(tmp_path, content):
    path = tmp_path / "x.svm"
    if content is not None:
        path.write_bytes(content)
    assert ShardWriter.resume(path, 64, "process") is None


def test_a_reader_keeps_few_files_open(tmp_path):
    names = []
    for number in range(100):
        writer = ShardWriter.create(tmp_path, "process")
        writer.append([[bytes([number]) * 64]])
        writer.close()
        names.append(writer.name)
    before = len(os.listdir("/proc/self/fd"))
    reader = ShardReader(tmp_path)
    for _ in range(2):
        for number, name in enumerate(names):
            assert reader.read(name, 0, 64) == bytes([number]) * 64
    assert len(os.listdir("/proc/self/fd")) - before <= 64
    reader.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_missing_shard_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        ShardReader(tmp_path).read("gone", 0, 64)
