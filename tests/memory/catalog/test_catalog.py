import math
import sqlite3
from contextlib import suppress
from dataclasses import replace

import pytest

from streamvlm.memory.catalog.catalog import Catalog
from streamvlm.memory.catalog.rows import Rows, Segment
from streamvlm.memory.store import StreamInfo
from streamvlm.types import Coverage, Span


@pytest.fixture
def catalog(tmp_path):
    catalog = Catalog(tmp_path / "catalog.db", writable=True)
    catalog.add_shard("first")
    return catalog


@pytest.fixture
def reader(catalog, tmp_path):
    return Rows(tmp_path / "catalog.db", writable=False)


def segment(number, *, stream="a", keys=2):
    times = (stream, number, number + 1)
    return Segment(f"id{number}", *times, 64 * number, 64, keys, keys, 2 * number, 1, 0)


def info(stream, *, complete=True):
    spans = (Span(0.0, 2.5, "sampled"), Span(2.5, 4.0, "gap", "camera off"))
    return StreamInfo(stream, 123, "abc", "fps=1", 4.0, Coverage(stream, spans), complete)


def test_rows_come_back_as_they_went_in(catalog):
    catalog.add("first", [segment(0), segment(1, stream="b")])
    assert catalog.count() == 2
    rows = catalog.held("first")
    assert [row.segment for row in rows] == [segment(0), segment(1, stream="b")]
    assert catalog.place("id1") == rows[1]
    assert rows[1].shard == "first"
    assert catalog.place("id9") is None
    assert catalog.known(["id0", "id7", "id1"]) == {"id0", "id1"}
    assert catalog.by_sid([rows[1].sid, 99]) == {rows[1].sid: rows[1]}


def test_a_shard_knows_where_it_ends(catalog):
    catalog.add("first", [segment(0)])
    catalog.add("first", [segment(1), segment(2)])
    (shard,) = catalog.shards()
    assert (shard.bytes, shard.num_keys, shard.state, shard.rev) == (192, 6, "open", 0)


def test_the_shard_that_is_full_is_sealed_as_the_next_begins(catalog):
    catalog.add_shard("of another writer")
    catalog.add_shard("second", seal="first")
    states = {shard.name: shard.state for shard in catalog.shards()}
    assert states == {"first": "sealed", "of another writer": "open", "second": "open"}
    assert not catalog.add("first", [segment(0)])
    assert catalog.count() == 0


def test_a_known_id_is_left_out(catalog):
    catalog.add("first", [segment(0)])
    catalog.add("first", [segment(1), segment(0)])
    assert catalog.uids(None) == ["id0", "id1"]


def test_adopting_twice_adds_nothing(catalog):
    shards = [("x", [segment(1), segment(2)]), ("y", [segment(3)])]
    assert catalog.adopt(shards) == 3
    assert catalog.adopt(shards) == 0
    assert [shard.state for shard in catalog.shards()] == ["open", "sealed", "sealed"]


def test_moved_records_keep_their_number_and_replaced_ones_are_gone(catalog):
    catalog.add("first", [segment(0), segment(1), segment(2)])
    rows = catalog.held("first")
    catalog.add_shard("new")
    moved = [rows[0]._replace(segment=rows[0].segment._replace(offset=0))]
    by = segment(9)._replace(offset=64, key_base=2)
    assert catalog.move("new", moved, [(rows[1:], by)])
    assert [row.segment.uid for row in catalog.held("new")] == ["id0", "id9"]
    assert catalog.place("id0").sid == rows[0].sid
    assert catalog.held("first") == []
    assert [shard.rev for shard in catalog.shards()] == [1, 0]
    catalog.seal(["first"])
    catalog.bury()
    assert [shard.state for shard in catalog.shards()] == ["dead", "sealed"]


def test_what_was_forgotten_meanwhile_does_not_come_back_by_a_move(catalog):
    catalog.add("first", [segment(0), segment(1, stream="b"), segment(2)])
    rows = catalog.held("first")
    catalog.add_shard("new")
    catalog.forget("b", None)
    assert not catalog.move("new", [rows[0]], [(rows[1:], segment(9))])
    assert catalog.uids(None) == ["id0", "id2"]
    assert catalog.move("new", rows, [])
    assert catalog.uids(None) == ["id0", "id2"]


def test_intervals_lie_between_anchors(catalog):
    anchors = {0, 4, 8}
    rows = [segment(n)._replace(is_anchor=int(n in anchors)) for n in range(10)]
    catalog.add("first", rows)
    names = [row.segment.uid for row in catalog.between("a", 4, 8)]
    assert names == ["id4", "id5", "id6", "id7"]
    five, nine = (row.sid for row in catalog.held("first") if row.segment.uid in ("id5", "id9"))
    assert catalog.intervals([five, nine]) == {five: (1, 4, 8), nine: (1, 8, math.inf)}
    assert catalog.partly_indexed([(1, 0, 10)]) == []
    assert [row.segment.uid for row in catalog.until_anchor("a", 5.5)] == ["id5", "id6", "id7"]
    assert [row.segment.uid for row in catalog.until_anchor("a", 8.5)] == ["id8", "id9"]


def test_ids_come_by_stream_and_time(catalog):
    rows = [segment(3), segment(1), segment(2, stream="B")]
    catalog.add("first", rows)
    assert catalog.uids(None) == ["id2", "id1", "id3"]
    assert catalog.uids("a") == ["id1", "id3"]
    assert catalog.uids("none") == []


def test_a_number_is_never_used_twice(catalog):
    catalog.add("first", [segment(0)])
    used = catalog.held("first")[0].sid
    catalog.forget("a", None)
    catalog.add("first", [segment(0)])
    assert catalog.held("first")[0].sid > used


def test_forgetting_tells_readers_which_shards_changed(catalog):
    catalog.add("first", [segment(0)])
    catalog.add_shard("second")
    catalog.add("second", [segment(1, stream="b")])
    catalog.put_stream(info("a"))
    catalog.forget("a", None)
    assert [shard.rev for shard in catalog.shards()] == [1, 0]
    assert catalog.uids(None) == ["id1"]
    assert catalog.streams() == []


def test_what_is_forgotten_up_to_a_time_is_a_gap_in_the_coverage(catalog):
    catalog.add("first", [segment(0), segment(1), segment(2), segment(3)])
    spans = (Span(0, 1.5, "sampled"), Span(1.5, 2.5, "still"), Span(2.5, 3.5, "sampled"))
    catalog.put_stream(replace(info("a"), seconds=3.5, coverage=Coverage("a", spans)))

    def left(before):
        catalog.forget("a", before)
        (known,) = catalog.streams("a")
        return known.coverage.spans

    assert left(0.5) == spans
    assert left(1.2) == (Span(0, 1, "gap", "forgotten"), replace(spans[0], start=1), *spans[1:])
    # What stood still was to be seen in the record that went.
    assert left(2) == (Span(0, 2.5, "gap", "forgotten"), spans[2])
    # The last clip is longer than its stream.
    assert left(9) == (Span(0, 3.5, "gap", "forgotten"),)


def test_a_stream_that_was_forgotten_is_not_brought_back_by_what_knew_it(catalog):
    number = catalog.put_stream(info("a", complete=False))
    assert catalog.update_stream(info("a"), number)
    assert catalog.streams() == [info("a")]
    catalog.forget("a", None)
    catalog.add("first", [segment(0)])
    assert not catalog.has_stream("a", number)
    assert not catalog.update_stream(info("a"), number)
    assert catalog.streams() == []
    catalog.forget_strays("a")
    assert catalog.count() == 0


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
        catalog.sql.execute("DELETE FROM segment")
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
        reader.sql.execute("DELETE FROM segment")


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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["catalog.db", "catalog.lock"]


def test_the_columns_of_a_shard_say_where_its_keys_are(catalog):
    catalog.add_shard("second")
    catalog.add("first", [segment(0), segment(1, stream="b"), segment(2)])
    catalog.add("second", [segment(3)])
    first, second = (shard.number for shard in catalog.shards())
    columns = catalog.columns(first)
    names = ["sid", "start", "end", "tier", "count", "base", "offset"]
    assert columns[names].tolist() == [
        (1, 0.0, 1.0, 0, 2, 0, 0),
        (2, 1.0, 2.0, 0, 2, 2, 64),
        (3, 2.0, 3.0, 0, 2, 4, 128),
    ]
    assert columns["stream"][0] == columns["stream"][2] == catalog.stream_numbers()["a"]
    assert catalog.columns(first, 2)["sid"].tolist() == [3]
    assert len(catalog.columns(first, min_tier=1)) == 0
    assert catalog.columns_of(first, [2, 4, 99])["sid"].tolist() == [2]
    assert sorted(catalog.sids(first).tolist()) == [1, 2, 3]
    assert catalog.sids(second).tolist() == [4]
    assert catalog.sids(99).tolist() == []
    assert catalog.tally(first, 2) == (2, 3)
    assert catalog.tally(99, 2) == (0, 0)
    assert catalog.are_there([1, 4])
    assert not catalog.are_there([1, 5])
