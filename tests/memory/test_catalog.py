import sqlite3
from contextlib import suppress

import pytest

from streamvlm.memory.catalog import Catalog, Segment
from streamvlm.memory.store import StreamInfo
from streamvlm.types import Coverage, Span


@pytest.fixture
def catalog(tmp_path):
    catalog = Catalog(tmp_path / "catalog.db", writable=True)
    catalog.add_shard("first")
    return catalog


@pytest.fixture
def reader(catalog, tmp_path):
    return Catalog(tmp_path / "catalog.db", writable=False)


def segment(number, *, stream="a", keys=2):
    return Segment(0, f"id{number}", stream, number, number + 1, 64 * number, 64, keys, 2 * number)


def info(stream, *, complete=True):
    spans = (Span(0.0, 2.5, "sampled"), Span(2.5, 4.0, "gap", "camera off"))
    return StreamInfo(stream, 123, "abc", "fps=1", 4.0, Coverage(stream, spans), complete)


def test_rows_come_back_as_they_went_in(catalog):
    catalog.add("first", [segment(0), segment(1, stream="b")])
    assert catalog.count() == 2
    rows = catalog.segments(1, 0)
    assert [row._replace(sid=0) for row in rows] == [segment(0), segment(1, stream="b")]
    assert catalog.place("id1") == ("first", rows[1])
    assert catalog.place("id9") is None
    assert catalog.known(["id0", "id7", "id1"]) == {"id0", "id1"}
    assert catalog.uid_of([rows[1].sid, 99]) == {rows[1].sid: "id1"}


def test_a_shard_knows_where_it_ends(catalog):
    catalog.add("first", [segment(0)])
    catalog.add("first", [segment(1), segment(2)])
    shard = catalog.last_shard()
    assert (shard.bytes, shard.num_keys, shard.state, shard.rev) == (192, 6, "open", 0)


def test_only_the_newest_shard_is_open(catalog):
    catalog.add_shard("second")
    assert [(s.name, s.state) for s in catalog.shards()] == [
        ("first", "sealed"),
        ("second", "open"),
    ]
    catalog.seal_all()
    assert catalog.last_shard().state == "sealed"


def test_a_batch_with_a_known_id_adds_nothing(catalog):
    catalog.add("first", [segment(0)])
    with pytest.raises(sqlite3.IntegrityError):
        catalog.add("first", [segment(1), segment(0)])
    assert catalog.uids(None) == ["id0"]
    assert catalog.last_shard().num_keys == 2


def test_ids_come_by_stream_and_time(catalog):
    rows = [segment(3), segment(1), segment(2, stream="B")]
    catalog.add("first", rows)
    assert catalog.uids(None) == ["id2", "id1", "id3"]
    assert catalog.uids("a") == ["id1", "id3"]
    assert catalog.uids("none") == []


def test_a_number_is_never_used_twice(catalog):
    catalog.add("first", [segment(0)])
    used = catalog.segments(1, 0)[0].sid
    catalog.forget("a")
    catalog.add("first", [segment(0)])
    assert catalog.segments(1, 0)[0].sid > used


def test_forgetting_tells_readers_which_shards_changed(catalog):
    catalog.add("first", [segment(0)])
    catalog.add_shard("second")
    catalog.add("second", [segment(1, stream="b")])
    catalog.put_stream(info("a"))
    catalog.forget("a")
    assert [shard.rev for shard in catalog.shards()] == [1, 0]
    assert catalog.uids(None) == ["id1"]
    assert catalog.streams() == []


def test_streams_come_back_whole_and_can_be_replaced(catalog):
    catalog.put_stream(info("b", complete=False))
    catalog.put_stream(info("a"))
    catalog.put_stream(info("b"))
    assert catalog.streams() == [info("a"), info("b")]


def test_a_reader_sees_what_was_committed_and_nothing_else(catalog, reader):
    before = reader.version()
    catalog.add("first", [segment(0)])
    assert reader.count() == 1
    assert reader.version() != before
    with suppress(RuntimeError), catalog.transaction():
        catalog._sql.execute("DELETE FROM segment")
        assert reader.count() == 1
        raise RuntimeError
    assert catalog.count() == 1


def test_a_snapshot_stays_as_it_was(catalog, reader):
    catalog.add("first", [segment(0)])
    with reader.snapshot():
        assert reader.count() == 1
        catalog.add("first", [segment(1)])
        assert reader.count() == 1
    assert reader.count() == 2


def test_a_reader_cannot_write(reader):
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        reader.put_stream(info("a"))


def test_the_writer_notices_its_own_commits(catalog):
    before = catalog.version()
    catalog.add("first", [segment(0)])
    assert catalog.version() != before


def test_the_log_stays_short_over_many_commits(catalog, tmp_path):
    for _ in range(700):
        catalog.put_stream(info("a"))
    assert (tmp_path / "catalog.db-wal").stat().st_size < 700 * 4096


def test_a_closed_catalogue_is_one_file(catalog, tmp_path):
    catalog.add("first", [segment(0)])
    catalog.close()
    assert [path.name for path in tmp_path.iterdir()] == ["catalog.db"]
