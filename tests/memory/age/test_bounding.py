"""A live memory stays under its caps, remembers the first hour, and never forgets that it was."""

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch

from streamvlm.errors import BadOption
from streamvlm.memory.age import bounding
from streamvlm.memory.store import Caps, Memory
from streamvlm.types import MemoryRecord, VisualTokens

CAP = 16 << 20
STEPS, SIDE, FEATURES = 8, 6, 256
SECONDS = 8.0


@pytest.fixture
def clip(units):
    """A clip of eight seconds, about 80 KB as int8; of each twentieth a key is seen only there."""

    def make(number: int, stream: str = "camera") -> MemoryRecord:
        background = units(1, seed=1)[0]
        keys = background + 0.02 * units(STEPS, seed=number)
        if number % 20 == 0:
            keys[3] = units(1, seed=10_000 + number)[0]
        count = STEPS * SIDE * SIDE
        step = torch.arange(STEPS).repeat_interleave(SIDE * SIDE)
        place = torch.arange(SIDE * SIDE).repeat(STEPS)
        start = SECONDS * number
        tokens = VisualTokens(
            model="tiny-encoder@1",
            features=torch.full((count, FEATURES), float(number % 100)),
            position=torch.stack([step, place // SIDE, place % SIDE], dim=1),
            seconds=start + step.double(),
            grid=(STEPS, SIDE, SIDE),
            weight=torch.ones(count),
        )
        return MemoryRecord(
            id=f"{stream}-{number:08}",
            stream=stream,
            start=start,
            end=start + SECONDS,
            keys=(keys / np.linalg.norm(keys, axis=1, keepdims=True)).astype(np.float32),
            tokens=tokens,
            frame_seconds=start + np.arange(STEPS),
            frame_hash=np.arange(STEPS, dtype=np.uint64),
            thumbnail=b"\xff\xd8" + bytes(2000) + b"\xff\xd9",
        )

    return make


def taken(path):
    """Bytes and shard files of a folder now."""
    files = [(file.stat().st_size, file) for file in path.rglob("*") if file.is_file()]
    return sum(size for size, _ in files), sum(file.suffix == ".svm" for _, file in files)


def spans(memory, stream="camera"):
    return [(row.segment.start, row.segment.end) for row in memory._rows.stream_rows(stream)]


def is_unbroken(memory, until, stream="camera"):
    found = spans(memory, stream)
    joined = all(one[1] == other[0] for one, other in pairwise(found))
    return joined and found[0][0] == 0 and found[-1][1] == until


def test_the_folder_is_under_its_caps_at_every_moment(path, identity, clip):
    caps = Caps(max_bytes=CAP, max_records=120, max_files=60)
    with Memory.create(path, identity, sync="process", caps=caps) as memory:
        for number in range(600):
            one = clip(number)
            memory.append([one])
            if number % 10 == 0:
                size, shards = taken(path)
                assert size <= CAP
                assert shards <= 60
                assert len(memory) <= 120
                assert memory.load([one.id])[0].tier == 0
        assert is_unbroken(memory, 600 * SECONDS)
        tiers = [row.segment.tier for row in memory._rows.stream_rows("camera")]
        assert tiers == sorted(tiers, reverse=True)
        assert {0, 2, 3} <= set(tiers)
        # The eighth seconds of the first minutes are found, where they were seen.
        for number in range(0, 600, 20):
            (hit,) = memory.search(clip(number).keys[3], limit=1)
            assert hit.start <= number * SECONDS < hit.end, number
        oldest = memory.load([memory.ids()[0]])[0]
        assert len(oldest.tokens) == 0
        assert oldest.thumbnail == clip(0).thumbnail


def test_thinned_tokens_are_some_of_those_that_were_stored(path, identity, clip):
    with Memory.create(path, identity, sync="process", caps=Caps(max_bytes=CAP)) as memory:
        for number in range(300):
            memory.append([clip(number)])
        memory.close()
    with Memory.open(path, writable=False) as memory:
        for record in memory.load(memory.ids()):
            shown = torch.unique(record.tokens.seconds // SECONDS % 100)
            # Of four bits a number, so only nearly what it was.
            wanted = (record.tokens.seconds // SECONDS % 100)[:, None].expand(-1, FEATURES)
            assert torch.allclose(record.tokens.features.double(), wanted, rtol=0.01)
            assert len(shown) == 0 or record.start <= record.tokens.seconds.min()


def test_each_stream_has_its_own_share(path, identity, clip):
    caps = Caps(max_bytes=CAP)
    with Memory.create(path, identity, sync="process", caps=caps) as memory:
        memory.append([clip(number, "short") for number in range(20)])
        for number in range(400):
            memory.append([clip(number, "long")])
        memory.close()
    with Memory.open(path, writable=False) as memory:
        assert {row.segment.tier for row in memory._rows.stream_rows("short")} == {0}
        assert is_unbroken(memory, 400 * SECONDS, "long")
        assert taken(path)[0] <= 2 * CAP


def test_a_reader_finds_every_moment_while_old_ones_are_thinned(path, identity, clip):
    caps = Caps(max_bytes=CAP)
    wrong: list[str] = []
    done = threading.Event()
    with Memory.create(path, identity, sync="process", caps=caps) as memory:
        memory.append([clip(number) for number in range(41)])

        def read() -> None:
            with Memory.open(path, writable=False) as reader:
                while not done.is_set():
                    for number in (0, 20, 40):
                        hits = reader.search(clip(number).keys[3], limit=1)
                        if [h.start <= number * SECONDS < h.end for h in hits] != [True]:
                            wrong.append(f"{number} at {hits}")

        thread = threading.Thread(target=read)
        thread.start()
        for number in range(41, 350):
            memory.append([clip(number)])
        done.set()
        thread.join(timeout=60)
    assert wrong == []


def test_a_damaged_record_stays_as_it_is_and_hinders_nothing(path, identity, clip, caplog):
    caps = Caps(max_bytes=CAP)
    with Memory.create(path, identity, sync="process", caps=caps) as memory:
        memory.append([clip(0)])
        (shard,) = (path / "shards").iterdir()
        content = bytearray(shard.read_bytes())
        content[-3000] ^= 1
        shard.write_bytes(content)
        for number in range(1, 300):
            memory.append([clip(number)])
        memory.close()
    assert f"not thinned: record {clip(0).id} is damaged" in caplog.text
    with Memory.open(path, writable=False) as memory:
        assert is_unbroken(memory, 300 * SECONDS)
        assert memory._rows.stream_rows("camera")[1].segment.tier > 0


def test_when_thinning_fails_nothing_that_was_appended_is_lost(
    path, identity, clip, monkeypatch, caplog
):
    def full(*_):
        raise OSError(28, "No space left on device")

    with Memory.create(path, identity, sync="process", caps=Caps(max_bytes=CAP)) as memory:
        with monkeypatch.context() as patched:
            patched.setattr(bounding, "rewrite", full)
            for number in range(200):
                memory.append([clip(number)])
        assert "cannot be thinned" in caplog.text
        assert len(memory) == 200
        for number in range(200, 240):
            memory.append([clip(number)])
        memory.close()
    with Memory.open(path, writable=False) as memory:
        assert is_unbroken(memory, 240 * SECONDS)
        assert taken(path)[0] <= CAP


def test_what_was_forgotten_meanwhile_does_not_come_back(path, identity, clip, monkeypatch):
    """A stream is forgotten while its old records are being merged."""
    forget_first = bounding.rewrite

    def rewrite(folder, catalog, *rest):
        catalog.forget("camera", None)
        return forget_first(folder, catalog, *rest)

    with Memory.create(path, identity, sync="process", caps=Caps(max_bytes=CAP)) as memory:
        memory.append([clip(number, "other") for number in range(3)])
        monkeypatch.setattr(bounding, "rewrite", rewrite)
        for number in range(250):
            memory.append([clip(number)])
        memory.close()
    with Memory.open(path, writable=False) as memory:
        assert len(memory.ids("other")) == 3
        assert len(memory.ids("camera")) < 250
        assert all(row.segment.tier == 0 for row in memory._rows.stream_rows("camera"))


def test_what_was_merged_is_known_when_it_comes_again(path, identity, clip):
    """As after a crash, when a source is read from its start again."""
    caps = Caps(max_bytes=CAP)
    with Memory.create(path, identity, sync="process", caps=caps) as memory:
        for number in range(400):
            memory.append([clip(number)])
        memory.close()
    with Memory.open(path, sync="process") as memory:
        before = memory.ids()
        memory.append([clip(number) for number in range(400)])
        assert memory.ids() == before


def test_caps_that_cannot_be_kept_are_refused():
    with pytest.raises(BadOption, match="max_bytes must be at least"):
        Caps(max_bytes=1000)


def test_the_smallest_cap_is_kept_too(path, identity, clip):
    caps = Caps(max_bytes=8 << 20)
    with Memory.create(path, identity, sync="process", caps=caps) as memory:
        for number in range(300):
            memory.append([clip(number)])
            assert taken(path)[0] <= 8 << 20
        assert is_unbroken(memory, 300 * SECONDS)
