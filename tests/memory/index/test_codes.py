import faiss
import numpy as np
import pytest

from streamvlm.memory.index.codes import Codes, _turn, error
from streamvlm.memory.index.cosines import HeldKeys

MANY = 3_000


def estimates(keys, queries):
    """(Q, n) of all keys, in their order, and their exact cosines."""
    held, codes = HeldKeys.of(keys.astype(np.float16)), Codes(None)
    codes.follow(held)
    found, rows = codes.nearest(queries, None, len(keys))
    return np.take_along_axis(found, rows.argsort(axis=1), axis=1), held.cosines(queries)


def rms(numbers):
    return float(np.sqrt(np.mean(numbers**2)))


@pytest.mark.parametrize("width", [33, 64, 128, 384, 1024])
def test_estimates_err_as_much_as_is_said(units, width):
    estimated, exact = estimates(units(MANY, width=width), units(8, width=width, seed=1))
    assert rms(estimated - exact) == pytest.approx(error(width), rel=0.1)
    assert abs((estimated - exact).mean()) < 0.1 * error(width)


def test_keys_of_which_each_has_one_number_are_estimated_as_well(units):
    keys = np.eye(128)[np.arange(MANY) % 128] + 0.1 * units(MANY, width=128)
    estimated, exact = estimates(keys, units(8, width=128, seed=1))
    assert rms(estimated - exact) < 1.2 * error(128)


def test_what_is_very_near_is_estimated_better(units):
    keys = units(MANY, width=128)
    estimated, exact = estimates(keys, keys[:100])
    assert rms((estimated - exact).diagonal()) < error(128) / 4


def test_an_index_of_another_kind_is_made_again(units, caplog):
    keys = units(MANY, width=64)
    other = faiss.index_factory(64, "IVF1,RaBitQfs", faiss.METRIC_L2)
    other.train(keys)
    other.add(keys)
    codes = Codes(faiss.serialize_index(other).tobytes())
    codes.follow(HeldKeys.of(keys.astype(np.float16)))
    _, rows = codes.nearest(keys[:9], None, 1)
    assert rows[:, 0].tolist() == list(range(9))
    assert "is made again" in caplog.text


def test_an_index_of_other_keys_is_made_again(units, caplog):
    others, keys = units(MANY, width=64), units(MANY, width=64, seed=1)
    codes = Codes(None)
    codes.follow(HeldKeys.of(others.astype(np.float16)))
    again = Codes(codes.serialize())
    again.follow(HeldKeys.of(keys.astype(np.float16)))
    _, rows = again.nearest(keys[:9], None, 1)
    assert rows[:, 0].tolist() == list(range(9))
    assert "is made again" in caplog.text


def test_a_saved_index_is_read_and_added_to(units, caplog):
    keys = units(MANY, width=64)
    codes = Codes(None)
    codes.follow(HeldKeys.of(keys[:-9].astype(np.float16)))
    again = Codes(codes.serialize())
    again.follow(HeldKeys.of(keys.astype(np.float16)))
    _, rows = again.nearest(keys[-18:], None, 1)
    assert rows[:, 0].tolist() == list(range(MANY - 18, MANY))
    assert not caplog.text


def test_keys_are_turned_alike_for_ever_as_codes_are_kept():
    rows = [[0.6579, 0.6205, -0.27, 0.3304], [0.6965, -0.6553, 0.2825, 0.0748]]
    assert _turn(3)[:2] == pytest.approx(np.array(rows), abs=1e-4)
