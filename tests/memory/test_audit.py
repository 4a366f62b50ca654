"""What `audit` and `survey` find in real folders, whole and damaged."""

import sqlite3
import threading
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.audit import audit
from streamvlm.memory.index import derived
from streamvlm.memory.index.held import NO_RECORDS
from streamvlm.memory.maintain import erase
from streamvlm.memory.store import Memory, Novelty, ShardLimits, StreamInfo
from streamvlm.memory.survey import survey
from streamvlm.types import Coverage, Span


@pytest.fixture
def filled(path, identity, record):
    """Twelve records of two streams in three shards."""
    limits = ShardLimits(max_keys=7)
    with Memory.create(path, identity, sync="process", limits=limits) as memory:
        for number in range(12):
            memory.append([record(number, stream=f"/videos/{'ab'[number % 2]}.mp4")])
    return path


def shards(path):
    return sorted((path / "shards").glob("*.svm"))


def places(path):
    """Of each record: its shard's file, offset, length, id."""
    sql = sqlite3.connect(path / "catalog.db")
    rows = sql.execute(
        "SELECT name, offset, length, uid FROM segment JOIN shard ON number = shard ORDER BY uid"
    ).fetchall()
    sql.close()
    return [(path / "shards" / f"{name}.svm", *rest) for name, *rest in rows]


def flip(file, place):
    content = bytearray(file.read_bytes())
    content[place] ^= 1
    file.write_bytes(content)


def change(path, statement):
    with sqlite3.connect(path / "catalog.db") as sql:
        sql.execute(statement)
    sql.close()


def test_an_intact_memory_has_no_findings_and_every_record_was_read(filled):
    told = []
    assert list(audit(filled, lambda done, total: told.append((done, total)))) == []
    assert told[-1] == (12, 12)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_an_empty_memory_has_no_findings(path, memory):
    assert list(audit(path)) == []


def test_a_flipped_bit_anywhere_is_found_and_named(filled, record):
    """Head, keys, body, padding: no byte of a record is out of sight."""
    file, offset, length, uid = places(filled)[5]
    whole = file.read_bytes()
    for place in {0, 9, 63, 64, 200, *range(250, length, 97), length - 1}:
        flip(file, offset + place)
        (found,) = audit(filled)
        assert (found.kind, found.id, found.records) == ("record", uid, 1), place
        assert (found.stream, found.start, found.end) == ("/videos/b.mp4", 5.0, 6.0)
        assert uid in found.problem
        assert "/videos/b.mp4" in found.problem
        assert "ingest it again" in found.problem
        file.write_bytes(whole)


def test_bytes_that_belong_to_no_record_may_be_anything(filled):
    with shards(filled)[-1].open("ab") as file:
        file.write(b"half a record that a killed writer left")
    assert list(audit(filled)) == []


def test_a_missing_shard_is_one_finding_for_each_stream(filled):
    gone = shards(filled)[0]
    lost = sum(file == gone for file, *_ in places(filled))
    gone.unlink()
    found = list(audit(filled))
    assert [(each.kind, each.stream) for each in found] == [
        ("shard", "/videos/a.mp4"),
        ("shard", "/videos/b.mp4"),
    ]
    assert sum(each.records for each in found) == lost
    assert found[0].start == 0
    assert found[0].end == 3
    assert survey(filled).missing_shards == 1


def test_a_shard_cut_short_costs_the_records_at_its_end(filled):
    file, offset, length, uid = places(filled)[-1]
    with file.open("r+b") as opened:
        opened.truncate(offset + length - 64)
    (found,) = audit(filled)
    assert found.id == uid
    assert "should lie at bytes" in found.problem


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE segment SET start = start + 1 WHERE sid = 3",
        "UPDATE segment SET num_keys = 9 WHERE sid = 3",
        "UPDATE segment SET tier = 2 WHERE sid = 3",
        "UPDATE segment SET stream = 3 - stream WHERE sid = 3",
        "UPDATE segment SET uid = 'other' WHERE sid = 3",
        "UPDATE segment SET offset = 1000000000000 WHERE sid = 3",
        "UPDATE segment SET length = length - 64 WHERE sid = 3",
        "UPDATE segment SET offset = offset + 64 WHERE sid = 3",
        "UPDATE segment SET key_base = key_base - 1 WHERE sid = 3",
        "UPDATE shard SET num_keys = 1 WHERE number = 1",
        "DELETE FROM shard WHERE number = 1",
    ],
)
def test_a_catalogue_that_does_not_fit_its_shards_is_found(filled, statement):
    change(filled, statement)
    found = list(audit(filled))
    assert found
    assert {each.kind for each in found} <= {"record", "catalogue"}


def test_a_damaged_catalogue_is_found_and_the_way_out_is_said(filled):
    content = bytearray((filled / "catalog.db").read_bytes())
    content[4096 + 5 : 4096 + 400] = bytes(395)
    (filled / "catalog.db").write_bytes(content)
    found = list(audit(filled))
    assert found[0].kind == "catalogue"
    assert "streamvlm memory rebuild" in found[0].problem
    (filled / "catalog.db").write_bytes(b"this is no database" * 500)
    (found,) = audit(filled)
    assert found.kind == "catalogue"


def test_damaged_index_files_are_found_by_their_seal_and_cost_nothing(filled):
    name = shards(filled)[0].stem
    derived.save(filled / "index", name, [np.ones((4, 32), np.float16)], b"codes", NO_RECORDS, 0)
    assert list(audit(filled)) == []
    flip(filled / "index" / f"{name}.npy", 130)
    (found,) = audit(filled)
    assert (found.kind, found.records) == ("index", 0)
    assert "nothing is lost" in found.problem


def test_a_catalogue_that_cannot_be_read_is_one_finding_and_names_the_remedy_whole(filled):
    content = bytearray((filled / "catalog.db").read_bytes())
    content[4096:] = b"x" * (len(content) - 4096)
    (filled / "catalog.db").write_bytes(content)
    (found,) = audit(filled)
    assert found.problem.endswith(f"streamvlm memory rebuild {filled}")
    with pytest.raises(MemoryStoreError, match=f"streamvlm memory rebuild {filled}$"):
        survey(filled)


def test_a_memory_without_its_format_says_where_another_is_to_be_had(filled, identity):
    held = (filled / "format.json").read_bytes()
    (filled / "format.json").unlink()
    for look in (survey, Memory.open, lambda folder: Memory.create(folder, identity)):
        with pytest.raises(MemoryStoreError, match=r"format\.json is lost; copy it from a backup"):
            look(filled)
    (filled / "format.json").write_bytes(held)
    assert list(audit(filled)) == []


def test_a_folder_that_is_no_memory_is_refused(tmp_path):
    for look in (survey, lambda folder: list(audit(folder))):
        with pytest.raises(MemoryStoreError, match="not a memory"):
            look(tmp_path)
        with pytest.raises(MemoryStoreError, match="there is no memory"):
            look(tmp_path / "nowhere")


def test_a_memory_in_use_is_intact_at_every_moment(path, identity, record):
    """Writer, forgetting and rewriting go on while it is read again and again."""
    with Memory.create(path, identity, sync="process", limits=ShardLimits(max_keys=9)) as memory:
        memory.append([record(number) for number in range(20)])
        stop, failures = threading.Event(), []

        def work():
            try:
                for number in range(20, 60):
                    stream = f"/videos/{number % 3}.mp4"
                    memory.append([record(number, stream=stream)])
                    if number % 10 == 0:
                        memory.forget(stream)
                        erase(path, sync="process")
            except BaseException as error:
                failures.append(error)
            stop.set()

        worker = threading.Thread(target=work)
        worker.start()
        rounds = 0
        while not stop.is_set() or not rounds:
            assert list(audit(path)) == []
            rounds += 1
        worker.join()
        assert failures == []


def test_records_that_are_moved_between_two_looks_are_read_at_their_new_place(filled):
    """Whatever is left is looked at, in a shard that was not there when it began."""
    names = {shard.name for shard in shards(filled)}

    def move(done, total):
        if done == 1:
            with Memory.open(filled, sync="process") as memory:
                memory.forget("/videos/b.mp4")
            erase(filled, sync="process")
            assert not names & {shard.name for shard in shards(filled)}
            flip(shards(filled)[-1], 70)

    (found,) = audit(filled, move)
    assert (found.stream, found.start) == ("/videos/a.mp4", 8.0)


def test_a_survey_adds_up(path, identity, record):
    coverage = Coverage("/videos/a.mp4", (Span(0, 9, "sampled"),))
    known = StreamInfo("/videos/a.mp4", 10, "digest", "{}", 9.0, coverage, True)
    novelty = Novelty(cosine=0.8, anchor_seconds=60)
    with Memory.create(path, identity, sync="process", novelty=novelty) as memory:
        memory.append([record(number) for number in range(4)])
        memory.append([record(7, stream="/videos/b.mp4")])
        memory.append([replace(record(8, stream="/videos/b.mp4"), tier=1)])
        memory.put_stream(known)
        memory.put_stream(replace(known, stream="/videos/empty.mp4"))
        found = survey(path)
        assert found.streams == ("/videos/a.mp4", "/videos/b.mp4", "/videos/empty.mp4")
        assert (found.identity, found.payload, found.novelty) == (identity, "int8", novelty)
        assert (found.records, found.shards, found.dead_bytes) == (6, 1, 0)
        (a,) = found.of("/videos/a.mp4")
        assert (a.records, a.keys, a.start, a.end) == (4, 8, 0.0, 4.0)
        assert 2 <= a.indexed_keys <= 8
        assert [each.tier for each in found.of("/videos/b.mp4")] == [0, 1]
        assert found.of("/videos/empty.mp4") == ()
        assert sum(each.bytes for each in found.holdings) == shards(path)[0].stat().st_size
        memory.forget("/videos/b.mp4")
        after = survey(path)
    assert after.dead_bytes == sum(each.bytes for each in found.of("/videos/b.mp4"))
    closed = survey(path)
    files = [file for file in path.rglob("*") if file.is_file()]
    assert closed.files == len(files)
    assert closed.disk_bytes == sum(file.stat().st_size for file in files)


def test_findings_come_while_the_rest_is_still_unread(filled):
    for file, offset, _, _ in places(filled)[:2]:
        flip(file, offset + 70)
    read = []
    findings = audit(filled, lambda done, total: read.append(done))
    counts = [read[-1] for _ in findings]
    assert len(counts) == 2
    assert all(earlier < later for earlier, later in pairwise(counts))
    assert counts[0] < 12
