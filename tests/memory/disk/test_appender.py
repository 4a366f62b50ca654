import os
import sqlite3
import threading

import pytest

from streamvlm.memory.catalog.catalog import Catalog
from streamvlm.memory.disk.appender import Appender
from streamvlm.memory.disk.codec import pack
from streamvlm.memory.disk.packing import Packed
from streamvlm.memory.disk.shards import ShardLimits


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
        return lambda *numbers: appender.finish(
            appender.enqueue(
                [Packed(record(n), [pack(record(n), "raw")], 2, is_anchor=True) for n in numbers]
            )
        )

    return make


def shards(tmp_path):
    return sorted(tmp_path.glob("*.svm"))


def rows(catalog):
    return [row.segment for row in catalog.held(catalog.shards()[0].name)]


def test_rows_say_where_the_bytes_are(append, catalog, tmp_path, record):
    write = append()
    write(1, 2)
    write(3)
    (path,) = shards(tmp_path)
    for segment in rows(catalog):
        packed = pack(record(int(segment.uid, 16)), "raw")
        assert path.read_bytes()[segment.offset :][: segment.length] == packed
    assert [segment.key_base for segment in rows(catalog)] == [0, 2, 4]


@pytest.mark.parametrize("limits", [ShardLimits(max_keys=4), ShardLimits(max_bytes=5000)])
def test_a_full_shard_is_followed_by_another(append, catalog, tmp_path, limits):
    write = append(limits)
    for number in range(6):
        write(number)
    assert [s.state for s in catalog.shards()] == ["sealed", "sealed", "open"]
    assert [s.num_keys for s in catalog.shards()] == [4, 4, 4]
    assert len(shards(tmp_path)) == 3


@pytest.fixture
def broken(catalog):
    """Lets every commit of a record fail until it is called."""
    catalog.sql.execute(
        "CREATE TEMP TRIGGER broken BEFORE INSERT ON segment BEGIN SELECT RAISE(ABORT, 'x'); END"
    )
    return lambda: catalog.sql.execute("DROP TRIGGER broken")


def test_a_shard_is_never_written_again_after_a_failed_commit(append, catalog, tmp_path, broken):
    write = append()
    with pytest.raises(sqlite3.IntegrityError):
        write(1, 2)
    broken()
    torn = shards(tmp_path)[0].read_bytes()
    write(2)
    assert shards(tmp_path)[0].read_bytes() == torn
    assert len(shards(tmp_path)) == 2
    assert catalog.uids(None) == [f"{2:016x}"]


def test_another_writer_does_not_go_on_with_a_shard_given_up(append, catalog, tmp_path, broken):
    write = append()
    with pytest.raises(sqlite3.IntegrityError):
        write(1)
    broken()
    append()(3)
    assert [s.state for s in catalog.shards()] == ["sealed", "open"]


def test_a_record_that_is_known_meanwhile_adds_nothing(append, catalog, tmp_path):
    write = append()
    write(1)
    write(2, 1)
    assert catalog.uids(None) == [f"{n:016x}" for n in (1, 2)]
    assert catalog.shards()[0].num_keys == 6


def test_a_shard_that_was_sealed_meanwhile_is_followed_by_another(append, catalog, tmp_path):
    write = append()
    write(1)
    catalog.seal([catalog.shards()[0].name])
    write(2)
    assert [s.state for s in catalog.shards()] == ["sealed", "open"]
    assert catalog.uids(None) == [f"{n:016x}" for n in (1, 2)]


def test_threads_share_commits(catalog, tmp_path, record):
    appender = Appender(tmp_path, catalog, "power", ShardLimits())
    before = catalog.version()[1]

    def write(first):
        for n in range(first, first + 25):
            packed = [Packed(record(n), [pack(record(n), "raw")], 2, is_anchor=False)]
            appender.finish(appender.enqueue(packed))

    threads = [threading.Thread(target=write, args=(100 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert catalog.count() == 200
    assert catalog.version()[1] - before < 200
    for segment in rows(catalog):
        packed = pack(record(int(segment.uid, 16)), "raw")
        content = shards(tmp_path)[0].read_bytes()
        assert content[segment.offset :][: segment.length] == packed


def test_another_writer_goes_on_behind_a_torn_batch(append, catalog, tmp_path):
    append()(1)
    (path,) = shards(tmp_path)
    committed = path.stat().st_size
    with path.open("ab") as file:
        file.write(os.urandom(1000))
    append()(2)
    (_, second) = rows(catalog)
    assert second.offset == committed + 1024
    assert shards(tmp_path) == [path]


def test_a_shard_that_lost_bytes_is_left_alone(append, catalog, tmp_path):
    append()(1)
    (path,) = shards(tmp_path)
    os.truncate(path, 100)
    append()(2)
    assert path.stat().st_size == 100
    assert [s.num_keys for s in catalog.shards()] == [2, 2]
