"""An export is read back with json, safetensors and PIL alone, and compared with the records."""

import io
import json
import resource
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.export import Selection, export
from streamvlm.memory.store import Memory, StreamInfo
from streamvlm.types import Coverage, Span


def picture(number):
    """A real JPEG."""
    pixels = np.full((24, 32, 3), 20 * number, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg")
    return file.getvalue()


@pytest.fixture
def filled(path, identity, record):
    """Eight records: with ranks and deepstack, bfloat16, an id that is no file name, no picture."""
    records = [
        replace(
            record(number, stream=f"/videos/{'ab'[number % 2]}.mp4", num_tokens=100 * number + 6),
            thumbnail=picture(number),
        )
        for number in range(8)
    ]
    tokens = record(2, dtype=torch.bfloat16, layers=2).tokens
    records[2] = replace(
        records[2], tokens=replace(tokens, rank=torch.randperm(len(tokens))), thumbnail=b""
    )
    records[5] = replace(records[5], id="../sub folder/é?")
    coverage = Coverage("/videos/a.mp4", (Span(0, 8, "sampled"), Span(8, 9, "gap", "hole")))
    with Memory.create(path, identity, sync="process") as memory:
        memory.append(records)
        memory.put_stream(StreamInfo("/videos/a.mp4", 10, "digest", "{}", 9.0, coverage, True))
    return path


def lines(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_everything_can_be_read_back(filled, tmp_path):
    out, told = tmp_path / "out", []
    done = export(filled, out, progress=lambda *numbers: told.append(numbers))
    assert (done.records, done.streams, done.damaged) == (8, 2, ())
    assert told[-1] == (8, 8)
    about = json.loads((out / "memory.json").read_text())
    assert about["encoder"] == "tiny-encoder@1"
    with Memory.open(filled, writable=False) as memory:
        assert [line["id"] for line in lines(out / "records.jsonl")] == memory.ids()
        for line in lines(out / "records.jsonl"):
            (record,) = memory.load([line["id"]])
            tokens = record.tokens
            assert (line["stream"], line["start"], line["end"]) == (
                *(record.stream, record.start, record.end),
            )
            assert (line["tier"], tuple(line["grid"])) == (0, tokens.grid)
            assert line["frame_seconds"] == record.frame_seconds.tolist()
            hashes = [int(text, 16) for text in line["frame_hash"]]
            assert hashes == record.frame_hash.tolist()
            tensors = load_file(out / line["tensors"])
            for name in ("features", "position", "seconds", "weight", "rank", "deepstack"):
                value = getattr(tokens, name)
                assert (value is None) == (name not in tensors)
                assert value is None or torch.equal(tensors[name], value)
                assert value is None or tensors[name].dtype == value.dtype
            np.testing.assert_array_equal(tensors["keys"].numpy(), record.keys)
            with safe_open(out / line["tensors"], "pt") as file:
                assert file.metadata() == {"id": record.id}
            if record.thumbnail:
                with Image.open(out / line["thumbnail"]) as image:
                    assert image.size == (32, 24)
                assert (out / line["thumbnail"]).read_bytes() == record.thumbnail
            else:
                assert line["thumbnail"] is None
    first, second = lines(out / "streams.jsonl")
    assert first["coverage"][1] == {"start": 8, "end": 9, "kind": "gap", "reason": "hole"}
    assert (first["seconds"], first["complete"]) == (9.0, True)
    assert second == {"stream": "/videos/b.mp4"}


def test_every_file_lies_in_its_folder(filled, tmp_path):
    out = tmp_path / "out"
    export(filled, out)
    folders = {file.parent for file in tmp_path.rglob("*") if file.is_file()}
    assert {out, out / "tensors", out / "thumbnails"} == {
        folder for folder in folders if folder.is_relative_to(out)
    }
    assert sorted(file.name for file in out.iterdir()) == [
        "memory.json",
        "records.jsonl",
        "streams.jsonl",
        "tensors",
        "thumbnails",
    ]


def test_streams_and_times_narrow_it(filled, tmp_path):
    chosen = Selection(("/videos/a.mp4",), since=2.5, until=6.0)
    assert export(filled, tmp_path / "out", chosen).records == 2
    found = lines(tmp_path / "out" / "records.jsonl")
    assert [(line["stream"], line["start"]) for line in found] == [
        ("/videos/a.mp4", 2.0),
        ("/videos/a.mp4", 4.0),
    ]
    assert [line["stream"] for line in lines(tmp_path / "out" / "streams.jsonl")] == [
        "/videos/a.mp4"
    ]
    with pytest.raises(MemoryStoreError, match=r"has no stream /videos/c\.mp4; name one of"):
        export(filled, tmp_path / "other", Selection(("/videos/c.mp4",)))


def test_a_damaged_record_is_named_and_left_out(filled, tmp_path, record):
    (shard,) = (filled / "shards").iterdir()
    content = bytearray(shard.read_bytes())
    content[80] ^= 1
    shard.write_bytes(content)
    told = []
    done = export(filled, tmp_path / "out", tell=told.append)
    assert (done.records, done.damaged) == (7, (record(0).id,))
    assert told[0].startswith(f"/videos/a.mp4, 0–1 s: record {record(0).id} is damaged")
    assert record(0).id not in (tmp_path / "out" / "records.jsonl").read_text()


def test_a_folder_with_other_files_is_left_alone(filled, tmp_path):
    mine = tmp_path / "out" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("mine")
    with pytest.raises(MemoryStoreError, match=r"holds other files \(mine.txt\); export to a new"):
        export(filled, mine.parent)
    assert [file.name for file in mine.parent.iterdir()] == ["mine.txt"]
    with pytest.raises(MemoryStoreError, match="is a file"):
        export(filled, mine)


def test_nothing_is_exported_into_the_memory_where_it_would_outlive_a_forget(filled, tmp_path):
    (tmp_path / "link").symlink_to(filled)
    for out in (filled, filled / "backup" / "plain", filled / ".." / filled.name / "plain"):
        with pytest.raises(MemoryStoreError, match=r"lies inside the memory .* another folder"):
            export(filled, out)
    with pytest.raises(MemoryStoreError, match="lies inside the memory"):
        export(filled, tmp_path / "link" / "plain")
    assert not any(file.name == "plain" for file in filled.rglob("*"))


def test_a_full_disk_is_one_sentence_and_nothing_of_it_stays(filled, tmp_path):
    out = tmp_path / "out"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(MemoryStoreError, match=r"cannot export to .*out.*no space is left"):
            export(filled, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(out.iterdir()) == []
    assert export(filled, out).records == 8


def test_an_interrupted_export_does_not_look_like_a_whole_one(filled, tmp_path):
    def interrupt(done, total):
        assert not (tmp_path / "out" / "records.jsonl").exists()
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(filled, tmp_path / "out", progress=interrupt)
    assert list((tmp_path / "out").iterdir()) == []


def test_what_is_forgotten_meanwhile_is_no_damage(filled, tmp_path):
    def forget(done, total):
        if done == 1:
            with Memory.open(filled, sync="process") as memory:
                memory.forget("/videos/b.mp4")

    done = export(filled, tmp_path / "out", progress=forget)
    assert (done.records, done.damaged) == (4, ())


def test_what_takes_the_place_of_others_meanwhile_is_exported_too(filled, tmp_path, record):
    """As when old records are merged while an export runs: more may be there, never less."""

    def merge(done, total):
        if done == 1:
            with Memory.open(filled, sync="process") as memory:
                memory.forget("/videos/a.mp4", before=5.5)
                memory.append([record(99, stream="/videos/a.mp4", start=0.0)])

    export(filled, tmp_path / "out", progress=merge)
    found = {line["id"] for line in lines(tmp_path / "out" / "records.jsonl")}
    assert {record(0).id, record(6).id, record(99).id, record(1).id} <= found
