import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from xxhash import xxh3_64_intdigest

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.disk import codec
from streamvlm.memory.disk.codec import (
    DamagedRecord,
    pack,
    unpack,
    unpack_indexed,
    unpack_keys,
    unpack_stored,
)


def flipped(blob: bytes, at: int) -> bytes:
    return blob[:at] + bytes([blob[at] ^ 0x10]) + blob[at + 1 :]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_a_raw_record_comes_back_bit_for_bit(record, same, dtype):
    one = record(7, dtype=dtype)
    assert same(one, unpack(pack(one, "raw"), one.id))


def test_ranks_come_back_and_none_stays_none(record):
    one = record(0)
    rank = torch.randperm(len(one.tokens), generator=torch.Generator().manual_seed(0))
    ranked = replace(one, tokens=replace(one.tokens, rank=rank))
    back = unpack(pack(ranked, "int8"), ranked.id)
    assert torch.equal(back.tokens.rank, rank)
    assert back.tokens.rank.dtype == torch.int64
    assert unpack(pack(one, "int8"), one.id).tokens.rank is None


@pytest.mark.parametrize("weights", [[1, 2, 40_000], [3, 1, 32_767], [1, 1.5, 2], [1, 1, 1]])
def test_weights_come_back_exactly(record, weights):
    one = record(0, num_tokens=3)
    weighed = replace(one, tokens=replace(one.tokens, weight=torch.tensor(weights).float()))
    back = unpack(pack(weighed, "raw"), one.id).tokens.weight
    assert torch.equal(back, weighed.tokens.weight)
    assert back.dtype == torch.float32


def test_times_of_frames_and_of_tokens_are_written_once_where_they_are_the_same(record):
    one = record(0, num_tokens=2)
    steps = torch.tensor([0, 1])
    inside = torch.stack([steps, steps, steps], dim=1)
    lengths = {}
    for name, frame_seconds in (("same", [0.25, 0.5]), ("others", [7.0, 8.0]), ("fewer", [0.25])):
        tokens = replace(one.tokens, position=inside, seconds=torch.tensor([0.25, 0.5]).double())
        timed = replace(one, tokens=tokens, frame_seconds=np.array(frame_seconds))
        back = unpack(pack(timed, "raw"), one.id)
        assert back.tokens.seconds.tolist() == [0.25, 0.5]
        assert back.frame_seconds.tolist() == frame_seconds
        lengths[name] = len(pack(timed, "raw"))
    assert lengths["same"] < lengths["fewer"] <= lengths["others"]


def test_deepstack_features_come_back(record, same):
    one = record(7, layers=3)
    back = unpack(pack(one, "raw"), one.id)
    assert same(one, back)
    assert back.tokens.deepstack.shape == (6, 3, 70)


def test_an_int8_record_differs_in_features_alone(record, same):
    one = record(7, layers=2)
    back = unpack(pack(one, "int8"), one.id)
    error = (back.tokens.features - one.tokens.features).abs().max()
    assert 0 < error < 0.02
    assert (back.tokens.deepstack - one.tokens.deepstack).abs().max() < 0.02
    features = {"features": one.tokens.features, "deepstack": one.tokens.deepstack}
    assert same(one, replace(back, tokens=replace(back.tokens, **features)))


@pytest.mark.parametrize("payload", ["raw", "int8"])
def test_the_same_record_gives_the_same_bytes(record, payload):
    assert pack(record(3), payload) == pack(record(3), payload)
    assert pack(record(3), payload) != pack(record(4), payload)


def test_another_process_gives_the_same_bytes(record):
    script = """
import numpy as np, torch, zlib
from streamvlm.memory.disk.codec import pack
from streamvlm.types import MemoryRecord, VisualTokens
tokens = VisualTokens("e", torch.arange(6.0).reshape(3, 2), torch.zeros(3, 3, dtype=torch.int64),
                      torch.zeros(3, dtype=torch.float64), (1, 1, 3), torch.ones(3))
one = MemoryRecord("id", "s", 0.0, 1.0, np.eye(4, dtype=np.float32), tokens, np.zeros(1),
                   np.zeros(1, np.uint64), b"jpeg")
print(zlib.crc32(pack(one, "int8")))
"""
    runs = [
        subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            check=True,
            env={"PYTHONHASHSEED": s},
        ).stdout
        for s in ("1", "2")
    ]
    assert runs[0] == runs[1] != b""


def test_cues_are_not_kept(record):
    one = record(1)
    cued = replace(one, tokens=replace(one.tokens, cues={"attention": torch.ones(6)}))
    assert pack(cued, "raw") == pack(one, "raw")


def test_a_packed_record_is_a_multiple_of_64_bytes(record):
    for count in range(1, 9):
        assert len(pack(record(1, num_tokens=count), "raw")) % 64 == 0


def test_positions_beyond_16_bits_come_back(record):
    one = record(1)
    far = replace(one, tokens=replace(one.tokens, position=one.tokens.position + 100_000))
    back = unpack(pack(far, "raw"), one.id)
    assert torch.equal(back.tokens.position, far.tokens.position)
    assert back.tokens.position.dtype == torch.int64


def test_a_record_without_a_thumbnail_comes_back(record):
    bare = replace(record(1), thumbnail=b"")
    assert unpack(pack(bare, "raw"), bare.id).thumbnail == b""


def test_what_comes_back_may_be_changed(record):
    back = unpack(pack(record(1), "raw"), record(1).id)
    back.tokens.features[0] = 0
    back.frame_seconds[0] = 1
    back.keys[0] = 0


def test_keys_are_read_without_the_body(record):
    one = record(9)
    blob = pack(one, "raw")
    keys = unpack_indexed(blob[: 64 + one.keys.size * 2], one.id)
    assert keys.dtype == np.float16
    np.testing.assert_allclose(keys, one.keys, atol=1e-3)


@pytest.mark.parametrize("chosen", [[2], [0, 3], [1, 2, 3, 4, 0], []])
def test_keys_that_are_not_indexed_come_back_in_their_place(record, units, chosen):
    one = record(9, keys=units(5))
    indexed = np.isin(np.arange(5), chosen)
    blob = pack(one, "raw", indexed, is_anchor=True)
    back = unpack_stored(blob, one.id)
    assert np.array_equal(back.indexed, indexed)
    np.testing.assert_array_equal(back.record.keys[indexed], one.keys[indexed].astype(np.float16))
    np.testing.assert_allclose(back.record.keys, one.keys, atol=0.005)
    assert codec.Head.parse(blob, one.id).is_anchor
    first = unpack_indexed(blob[: codec.indexed_bytes(len(chosen), 32)], one.id)
    np.testing.assert_array_equal(first, one.keys[indexed].astype(np.float16))
    every = unpack_keys(blob[: codec.keys_bytes(5, len(chosen), 32)], one.id)
    np.testing.assert_allclose(every[len(chosen) :], one.keys[~indexed], atol=0.005)


def test_every_byte_that_matters_is_checked(record):
    one = record(5)
    blob = pack(one, "raw")
    head = codec.Head.parse(blob, one.id)
    end = head.keys_end + head.body_bytes
    for at in [*range(64), *range(64, end, 37), end - 1]:
        with pytest.raises(DamagedRecord, match=f"record {one.id} is damaged"):
            unpack(flipped(blob, at), one.id)


def test_a_flipped_key_is_noticed_without_the_body(record):
    with pytest.raises(DamagedRecord, match="a key"):
        unpack_keys(flipped(pack(record(5), "raw"), 70), record(5).id)


def test_a_flipped_body_leaves_the_keys_readable(record):
    blob = pack(record(5), "raw")
    assert len(unpack_keys(flipped(blob, len(blob) // 2 + 64), record(5).id)) == 2


@pytest.mark.parametrize("length", [0, 10, 64, 100, 500])
def test_a_cut_record_is_noticed(record, length):
    with pytest.raises(DamagedRecord):
        unpack(pack(record(5), "raw")[:length], record(5).id)


def test_another_record_in_its_place_is_noticed(record):
    with pytest.raises(DamagedRecord, match=f"found record {record(6).id}"):
        unpack(pack(record(6), "raw"), record(5).id)


def test_a_newer_version_says_to_upgrade(record):
    head = bytearray(pack(record(5), "raw"))
    struct.pack_into("<H", head, 8, 3)
    struct.pack_into("<Q", head, 56, xxh3_64_intdigest(bytes(head[:56])))
    with pytest.raises(MemoryStoreError, match="upgrade streamvlm"):
        unpack(bytes(head), record(5).id)


@pytest.mark.parametrize(
    "keys",
    [
        np.ones((2, 32), np.float32),
        np.zeros((1, 32), np.float32),
        np.full((1, 32), np.nan, np.float32),
        np.empty((0, 32), np.float32),
        np.eye(32, dtype=np.float32)[0],
    ],
    ids=["long", "zero", "nan", "none", "flat"],
)
def test_keys_that_are_not_unit_vectors_are_refused(record, keys):
    with pytest.raises(MemoryStoreError, match="unit vectors"):
        pack(record(1, keys=keys), "raw")
