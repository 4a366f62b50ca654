import numpy as np

from streamvlm.memory.age.keys import distinct, most_different


def at(*degrees: float) -> np.ndarray:
    """Unit vectors in the plane."""
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def test_a_key_that_nearly_equals_one_kept_before_is_dropped():
    # cos 11.48° is 0.98.
    keys = at(0, 11, 12, 23, 24, 0)
    assert np.array_equal(distinct(keys), keys[[0, 2, 4]])


def test_what_was_dropped_drops_nothing():
    keys = at(0, 9, 18)
    assert np.array_equal(distinct(keys), keys[[0, 2]])


def test_the_most_different_are_spread_and_keep_their_order():
    keys = at(0, 1, 2, 90, 91, 180)
    assert np.array_equal(most_different(keys, 3), keys[[0, 3, 5]])


def test_few_keys_are_all_kept():
    keys = at(0, 5)
    assert most_different(keys, 2) is keys


def test_equal_keys_do_not_confuse():
    assert most_different(at(*[30] * 5), 3).shape == (3, 2)


def test_none_left_out_is_further_from_the_kept_than_they_are_from_one_another(units):
    for seed in range(20):
        keys = units(40, width=4, seed=seed)
        kept = most_different(keys, 7)
        between = (kept @ kept.T)[~np.eye(7, dtype=bool)].max()
        assert ((keys @ kept.T).max(axis=1) >= between - 1e-6).all()
