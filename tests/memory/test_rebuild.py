"""The catalogue is lost, and the shards tell it again."""

from dataclasses import replace

import pytest

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.bulk import write_shard
from streamvlm.memory.maintain import maintain
from streamvlm.memory.rebuild import rebuild
from streamvlm.memory.store import Memory, ShardLimits, StreamInfo
from streamvlm.types import Coverage, Span


@pytest.fixture
def filled(path, identity, record):
    """Thirty records of two streams in several shards, one of them adopted."""
    with Memory.create(path, identity, payload="raw", limits=ShardLimits(max_keys=15)) as memory:
        for number in range(20):
            memory.append([record(number, stream="ab"[number % 2])])
        later = [record(number, stream="c") for number in range(20, 30)]
        memory.adopt([write_shard(path / "shards", memory.format, later)])
        span = Span(0.0, 20.0, "sampled")
        memory.put_stream(StreamInfo("a", 1, "d", "r", 20.0, Coverage("a", (span,)), True))
    return path


def lose_catalogue(path):
    for file in path.glob("catalog.db*"):
        file.unlink()


def test_all_records_are_found_again_and_answer_as_before(filled, record, same):
    with Memory.open(filled, writable=False) as memory:
        before = [memory.search(record(n).keys[0]) for n in range(30)]
    maintain(filled)
    lose_catalogue(filled)
    with pytest.raises(MemoryStoreError, match="streamvlm memory rebuild"):
        Memory.open(filled)
    found = rebuild(filled)
    assert (found.records, found.streams, found.unknown, found.damaged) == (30, 1, 2, 0)
    with Memory.open(filled) as memory:
        assert [memory.search(record(n).keys[0]) for n in range(30)] == before
        for number in range(30):
            stream = "c" if number >= 20 else "ab"[number % 2]
            assert same(record(number, stream=stream), memory.load([record(number).id])[0])
        assert [info.stream for info in memory.streams()] == ["a"]
        memory.append([record(30)])
        assert memory.search(record(30).keys[0], limit=1)[0].id == record(30).id


def test_a_catalogue_of_rubbish_is_replaced_and_kept_beside(filled):
    (filled / "catalog.db").write_bytes(b"rubbish" * 999)
    assert rebuild(filled).records == 30
    assert (filled / "catalog.db.old").read_bytes().startswith(b"rubbish")
    with Memory.open(filled, writable=False) as memory:
        assert len(memory) == 30


def test_damaged_records_are_left_out_and_counted(filled, caplog):
    shard = min((filled / "shards").iterdir())
    content = bytearray(shard.read_bytes())
    content[-200] ^= 1
    shard.write_bytes(bytes(content) + b"SVMRECRD torn".ljust(128))
    found = rebuild(filled)
    assert (found.records, found.damaged) == (29, 2)
    assert caplog.text.count("is damaged and left out") == 2
    with Memory.open(filled, writable=False) as memory:
        # What is lost was watched, but is not there: the same ingest may bring it again.
        (info,) = memory.streams()
        assert not info.complete
        assert info.coverage.spans == ()


def test_of_a_record_in_two_shards_the_later_counts(path, identity, record):
    with Memory.create(path, identity, payload="raw") as memory:
        memory.append([record(1), record(2)])
        smaller = replace(record(1), thumbnail=b"later")
        write_shard(path / "shards", memory.format, [smaller])
    assert rebuild(path).records == 2
    with Memory.open(path) as memory:
        assert memory.load([record(1).id])[0].thumbnail == b"later"


def test_the_parts_of_a_merged_record_do_not_come_back(path, identity, record):
    with Memory.create(path, identity, payload="raw") as memory:
        memory.append([record(1), record(2), record(3)])
        merged = replace(record(9, start=1.0), end=3.0, tier=2)
        write_shard(path / "shards", memory.format, [merged])
    assert rebuild(path).records == 2
    with Memory.open(path) as memory:
        assert memory.ids() == [record(9).id, record(3).id]


def test_a_writer_at_work_is_not_disturbed(filled, record):
    with Memory.open(filled) as memory:
        memory.append([record(40)])
        with pytest.raises(MemoryStoreError, match="another process writes"):
            rebuild(filled)
