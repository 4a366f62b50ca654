import os
import sqlite3

import pytest

from streamvlm.memory.appender import Appender
from streamvlm.memory.catalog import Catalog
from streamvlm.memory.codec import pack
from streamvlm.memory.shards import ShardLimits


@pytest.fixture
def catalog(tmp_path):
    return Catalog(tmp_path / "catalog.db", writable=True, sync="process")


@pytest.fixture
def append(catalog, tmp_path, record):
    open_now: list[Appender] = []

    def make(limits=None):
        for before in open_now:
            before.close()
        appender = Appender(tmp_path, catalog, "process", limits or ShardLimits())
        open_now.append(appender)
        return lambda *numbers: appender.append(
            [record(n) for n in numbers], [pack(record(n), "raw") for n in numbers]
        )

    return make


def shards(tmp_path):
    return sorted(tmp_path.glob("*.svm"))


def test_rows_say_where_the_bytes_are(append, catalog, tmp_path, record):
    write = append()
    write(1, 2)
    write(3)
    (path,) = shards(tmp_path)
    for segment in catalog.segments(1, 0):
        packed = pack(record(int(segment.uid, 16)), "raw")
        assert path.read_bytes()[segment.offset :][: segment.length] == packed
    assert [s.key_base for s in catalog.segments(1, 0)] == [0, 2, 4]


@pytest.mark.parametrize("limits", [ShardLimits(max_keys=4), ShardLimits(max_bytes=5000)])
def test_a_full_shard_is_followed_by_another(append, catalog, tmp_path, limits):
    write = append(limits)
    for number in range(6):
        write(number)
    assert [s.state for s in catalog.shards()] == ["sealed", "sealed", "open"]
    assert [s.num_keys for s in catalog.shards()] == [4, 4, 4]
    assert len(shards(tmp_path)) == 3


def test_a_shard_is_never_written_again_after_a_failed_commit(append, catalog, tmp_path):
    write = append()
    write(1)
    with pytest.raises(sqlite3.IntegrityError):
        write(2, 1)
    torn = shards(tmp_path)[0].read_bytes()
    write(2)
    assert shards(tmp_path)[0].read_bytes() == torn
    assert len(shards(tmp_path)) == 2
    assert catalog.uids(None) == [f"{n:016x}" for n in (1, 2)]


def test_another_writer_does_not_go_on_with_a_shard_given_up(append, catalog, tmp_path):
    write = append()
    write(1)
    with pytest.raises(sqlite3.IntegrityError):
        write(2, 1)
    append()(3)
    assert [s.state for s in catalog.shards()] == ["sealed", "open"]


def test_another_writer_goes_on_behind_a_torn_batch(append, catalog, tmp_path):
    append()(1)
    (path,) = shards(tmp_path)
    committed = path.stat().st_size
    with path.open("ab") as file:
        file.write(os.urandom(1000))
    append()(2)
    (_, second) = catalog.segments(1, 0)
    assert second.offset == committed + 1024
    assert shards(tmp_path) == [path]


def test_a_shard_that_lost_bytes_is_left_alone(append, catalog, tmp_path):
    append()(1)
    (path,) = shards(tmp_path)
    os.truncate(path, 100)
    append()(2)
    assert path.stat().st_size == 100
    assert [s.num_keys for s in catalog.shards()] == [2, 2]
