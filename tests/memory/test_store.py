import threading
from pathlib import Path

import numpy as np
import pytest

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.store import Memory, ShardLimits, StreamInfo
from streamvlm.types import Coverage, Span


def shard_bytes(path: Path) -> list[bytes]:
    return [shard.read_bytes() for shard in sorted((path / "shards").iterdir())]


def info(stream="/videos/a.mp4", complete=True) -> StreamInfo:
    spans = (Span(0.0, 3.0, "sampled"), Span(3.0, 4.0, "gap", "no signal"))
    return StreamInfo(stream, 10, "d1", "fps=1", 4.0, Coverage(stream, spans), complete)


def test_what_was_appended_is_there_after_reopening(path, identity, record, same):
    records = [record(number) for number in range(5)]
    with Memory.create(path, identity, payload="raw") as memory:
        memory.append(records[:2])
        memory.append(records[2:])
        memory.put_stream(info())
    with Memory.open(path, identity) as memory:
        assert len(memory) == 5
        assert memory.ids() == [one.id for one in records]
        assert all(map(same, records, memory.load(memory.ids())))
        assert memory.streams() == [info()]


def test_a_reopened_memory_goes_on_in_the_same_shard(path, identity, record, same):
    for number in range(4):
        opened = Memory.open if number else Memory.create
        with opened(path, identity, sync="process") as memory:
            memory.append([record(number)])
    assert len(shard_bytes(path)) == 1
    with Memory.open(path, writable=False) as memory:
        assert len(memory.load(memory.ids())) == 4


def test_the_same_records_give_the_same_bytes(tmp_path, identity, record):
    for name in ("one", "two"):
        with Memory.create(tmp_path / name, identity, sync="process") as memory:
            memory.append([record(number) for number in range(3)])
            memory.append([record(3)])
    one, two = shard_bytes(tmp_path / "one"), shard_bytes(tmp_path / "two")
    assert one == two
    format_of = [(tmp_path / name / "format.json").read_bytes() for name in ("one", "two")]
    assert format_of[0] == format_of[1]


def test_appending_again_adds_nothing(path, memory, record):
    memory.append([record(1), record(2)])
    before = shard_bytes(path)
    memory.append([record(2), record(1)])
    assert shard_bytes(path) == before
    memory.append([record(2), record(3), record(3)])
    assert memory.ids() == [record(number).id for number in (1, 2, 3)]


def test_appending_nothing_writes_nothing(path, memory):
    memory.append([])
    assert shard_bytes(path) == []


def test_ids_of_a_stream_come_in_time_order(memory, record):
    memory.append([record(3), record(1), record(2, stream="b")])
    assert memory.ids("/videos/a.mp4") == [record(1).id, record(3).id]
    assert memory.ids("b") == [record(2).id]
    assert memory.ids("c") == []


def test_a_record_is_found_by_the_best_of_its_keys(memory, record, units):
    keys = units(6)
    memory.append([record(1, keys=keys[:3]), record(2, keys=keys[3:])])
    hits = memory.search(keys[4])
    assert [hit.id for hit in hits] == [record(2).id, record(1).id]
    assert hits[0].score == pytest.approx(1, abs=1e-6)
    assert hits[1].score == pytest.approx(float((keys[:3] @ keys[4]).max()), abs=1e-3)


def test_the_length_of_the_query_does_not_matter(memory, record, units):
    memory.append([record(number) for number in range(4)])
    key = units(1, seed=99)[0]
    short, long = memory.search(key), memory.search(1000 * key)
    assert [hit.id for hit in short] == [hit.id for hit in long]
    assert [h.score for h in short] == pytest.approx([h.score for h in long], abs=1e-6)


def test_a_record_is_found_right_after_it_was_appended(memory, record):
    for number in range(5):
        memory.append([record(number)])
        assert memory.search(record(number).keys[0], limit=1)[0].id == record(number).id


@pytest.mark.parametrize("streams", [(), ("b",), ("a", "c"), ("nowhere",)])
@pytest.mark.parametrize(("since", "until"), [(None, None), (10.0, None), (None, 7.0), (3.5, 9.0)])
def test_filters_give_what_brute_force_gives(path, identity, record, units, streams, since, until):
    records = [record(n, stream="abc"[n % 3], start=n / 3) for n in range(60)]
    limits = ShardLimits(max_keys=17)
    with Memory.create(path, identity, sync="process", limits=limits) as memory:
        for start in range(0, 60, 5):
            memory.append(records[start : start + 5])
        query = units(1, seed=5)[0]
        hits = memory.search(query, streams=streams, since=since, until=until, limit=7)
    fits = [
        one
        for one in records
        if (not streams or one.stream in streams)
        and (since is None or one.end > since)
        and (until is None or one.start < until)
    ]
    ranked = sorted(fits, key=lambda one: -float((one.keys @ query).max()))[:7]
    assert [hit.id for hit in hits] == [one.id for one in ranked]


def test_shards_are_rolled_and_searched_together(path, identity, record):
    with Memory.create(path, identity, sync="process", limits=ShardLimits(max_bytes=1)) as memory:
        for number in range(6):
            memory.append([record(number)])
        assert len(shard_bytes(path)) == 6
        for number in range(6):
            assert memory.search(record(number).keys[1], limit=1)[0].id == record(number).id


def test_a_large_memory_answers_the_same_without_and_with_damaged_index_files(
    path, identity, record, units, caplog
):
    keys = units(34_000).reshape(3400, 10, 32)
    queries = units(10, seed=3)
    with Memory.create(path, identity, sync="process") as memory:
        memory.append([record(n, keys=keys[n], num_tokens=1, width=4) for n in range(3400)])
        expected = [memory.search(query) for query in queries]
    flat = keys.reshape(-1, 32).astype(np.float16).astype(np.float32)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    for query, hits in zip(queries, expected, strict=True):
        best = np.argsort(-(flat @ query).reshape(3400, 10).max(1))[:8]
        assert [int(hit.id, 16) for hit in hits] == best.tolist()
    files = sorted((path / "index").iterdir())
    assert [file.suffix for file in files] == [".faiss", ".json", ".npy", ".rows"]

    def answers():
        with Memory.open(path, writable=False) as reader:
            return [[hit.id for hit in reader.search(query)] for query in queries]

    wanted = [[hit.id for hit in hits] for hits in expected]
    assert answers() == wanted
    assert not caplog.records
    for file in files:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 0x20
        file.write_bytes(content)
        assert answers() == wanted
        assert "made again" in caplog.text
        caplog.clear()
    for file in files:
        file.unlink()
    assert answers() == wanted
    assert len(list((path / "index").iterdir())) == 4


def test_what_is_forgotten_is_neither_found_nor_loaded(path, memory, record):
    memory.append([record(1), record(2, stream="b")])
    memory.put_stream(info())
    memory.search(record(1).keys[0])
    with Memory.open(path, writable=False) as reader:
        assert len(reader.search(record(1).keys[0])) == 2
        memory.forget("/videos/a.mp4")
        for each in (memory, reader):
            assert [hit.id for hit in each.search(record(1).keys[0])] == [record(2).id]
            assert each.streams() == []
            with pytest.raises(MemoryStoreError, match=f"no record {record(1).id}"):
                each.load([record(1).id])
    memory.append([record(1)])
    assert memory.search(record(1).keys[0], limit=1)[0].id == record(1).id


def test_a_reader_beside_the_writer_sees_each_batch_whole(path, identity, record):
    batches = [[record(10 * b + n) for n in range(10)] for b in range(20)]
    with Memory.create(path, identity, sync="process") as memory:
        memory.append(batches[0])
        seen: list[int] = []

        def read() -> None:
            with Memory.open(path, writable=False) as reader:
                while not seen or seen[-1] < 200:
                    seen.append(len(reader))
                    found = reader.search(batches[0][0].keys[0], limit=300)
                    assert len(found) % 10 == 0
                    reader.load([found[-1].id])

        thread = threading.Thread(target=read)
        thread.start()
        for batch in batches[1:]:
            memory.append(batch)
        thread.join(timeout=60)
    assert seen[-1] == 200
    assert all(count % 10 == 0 for count in seen)
    assert seen == sorted(seen)
