"""What only the scanner of torch devices does; test_scan.py has what both do."""

import sys

import numpy as np
import pytest

from streamvlm.memory.index import device
from streamvlm.memory.index.device import DeviceScanner, scanner_on
from streamvlm.memory.index.scan import INDEX_FROM, Asked, Scanner

WIDTH = 16


def test_the_device_picks_the_scanner(units):
    keys = units(3, width=WIDTH).astype(np.float16)
    assert isinstance(scanner_on("cpu", keys, None), Scanner)
    assert isinstance(scanner_on("cpu:0", keys, None), DeviceScanner)


def test_many_keys_need_no_faiss(units, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    keys = units(INDEX_FROM + 5, width=WIDTH)
    scanner = DeviceScanner(keys.astype(np.float16), device="cpu")
    ((records, _),) = scanner.look(Asked(keys[-1:], np.arange(len(keys)), None, 1)).rankings
    assert records.tolist() == [len(keys) - 1]
    assert not scanner.has_index


def test_an_index_is_handed_on_unread(units):
    scanner = DeviceScanner(units(3, width=WIDTH).astype(np.float16), b"codes", device="cpu")
    scanner.add(units(2, width=WIDTH).astype(np.float16))
    assert scanner.serialize() == b"codes"


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_how_keys_are_cut_into_chunks_does_not_matter(units, monkeypatch, chunk):
    keys, owners = units(200, width=WIDTH).astype(np.float16), np.arange(200) // 5
    scanner = DeviceScanner(keys, device="cpu")
    allowed = np.random.default_rng(0).random(200) < 0.5
    asked = Asked(units(3, width=WIDTH, seed=1), owners, allowed, 8)
    whole = scanner.look(asked).rankings
    monkeypatch.setattr(device, "_CHUNK", chunk)
    for one, other in zip(whole, scanner.look(asked).rankings, strict=True):
        assert one[0].tolist() == other[0].tolist()
        np.testing.assert_allclose(one[1], other[1], atol=1e-6)


def test_room_grows_with_the_keys_and_not_with_the_number_of_additions(units):
    scanner = DeviceScanner(np.empty((0, WIDTH), np.float16), device="cpu")
    rooms = set()
    for _ in range(500):
        scanner.add(units(1, width=WIDTH).astype(np.float16))
        rooms.add(len(scanner._room[0]))
    assert len(scanner) == 500
    assert len(rooms) <= 10
