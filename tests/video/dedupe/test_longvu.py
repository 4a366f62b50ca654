"""What LongVU's window counts as new: drawn pictures, and the real clips it was tuned on."""

import pickle

import numpy as np
import pytest

from streamvlm.plugins import Recipe
from streamvlm.protocols import FrameFilter
from streamvlm.types import Frame
from streamvlm.video.dedupe.longvu import LongVU
from streamvlm.video.sources import Sampling, open_source


def scene(seed, size=(54, 96)):
    """A picture of coloured blocks, another one for each seed."""
    blocks = np.random.default_rng(seed).integers(40, 200, (size[0] // 6, size[1] // 6, 3))
    return np.kron(blocks, np.ones((6, 6, 1))).astype(np.uint8)


def frames(images):
    return [Frame("cam", n, float(n), image) for n, image in enumerate(images)]


def kept(images, **options):
    return [frame.index for frame in LongVU(**options)(frames(images))]


def test_it_is_a_plug_in_of_the_protocol():
    keep = Recipe("dedupe", "longvu").build()
    assert isinstance(keep, FrameFilter)
    assert pickle.loads(pickle.dumps(keep)) == keep


def test_a_case_computed_by_hand():
    # Halves swapped: the pixels of A and B are each other's negative, the cosine is nearly −1. In a
    # window of 4 the means are 1 while there is A alone, then for A A A B −1/2, for A A B B 0, for
    # A B B B 1/2, and 1 from the fourth B on. After three dropped ones a frame is kept anyway.
    one, other = np.zeros((2, 18, 32, 3), dtype=np.uint8)
    one[:, :16], other[:, 16:] = 200, 200
    images = [one] * 3 + [other] * 6
    assert kept(images, threshold=0.9, window=4) == [0, 3, 4, 5]
    assert kept(images, threshold=0.4, window=4) == [0, 3, 4, 8]


def test_a_still_picture_yields_one_frame_of_each_window():
    assert kept([scene(0)] * 40) == [0, 16, 32]
    assert kept([scene(0)] * 40, window=5) == [0, 5, 10, 15, 20, 25, 30, 35]


def test_after_a_change_frames_are_kept_until_the_window_is_mostly_new():
    found = kept([scene(0)] * 16 + [scene(1)] * 20)
    assert found[0] == 0
    assert found[1:15] == list(range(16, 30))
    assert len(found) == 16


def test_frames_that_all_differ_are_all_kept():
    assert kept([scene(seed) for seed in range(30)]) == list(range(30))


def test_brightness_as_a_whole_is_nothing_new():
    images = [(scene(0) * gain).astype(np.uint8) for gain in np.linspace(0.7, 1.2, 15)]
    images += [scene(0) + shift for shift in np.arange(15, dtype=np.uint8)]
    assert kept(images) == [0, 16]


def test_flat_pictures_are_alike_whatever_their_noise():
    rng = np.random.default_rng(0)
    images = [rng.normal(90, 4, (108, 192, 3)).round().astype(np.uint8) for _ in range(16)]
    assert kept(images) == [0]


def test_the_window_holds_dropped_frames_too():
    # Were frames compared with kept ones only, the last one would meet A alone, and be dropped.
    images = [scene(0)] + [scene(0)] * 6 + [scene(1)] * 8 + [scene(0)]
    assert kept(images, threshold=0.6, window=16)[-1] == 15


def test_it_never_looks_ahead():
    given = []

    def source():
        for frame in frames([scene(0), scene(1), scene(1), scene(2)] * 10):
            given.append(frame.index)
            yield frame

    for frame in LongVU()(source()):
        assert given[-1] == frame.index


@pytest.mark.parametrize("end", [1, 10, 17, 30])
def test_what_follows_changes_nothing(end):
    images = [scene(seed // 7) for seed in range(40)]
    assert kept(images[:end]) == [index for index in kept(images) if index < end]


def test_two_streams_do_not_share_a_memory():
    keep = LongVU()
    first, second = keep(frames([scene(0)] * 3)), keep(frames([scene(1)] * 3))
    assert [next(first).index, next(second).index] == [0, 0]
    assert (list(first), list(second)) == ([], [])


def test_a_picture_that_grows_in_mid_stream_is_compared_all_the_same():
    large = np.kron(scene(0), np.ones((2, 2, 1), dtype=np.uint8))
    assert kept([scene(0)] * 3 + [large] * 3) == [0]


def test_no_frames_give_no_frames():
    assert kept([]) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("threshold", 0), ("threshold", 1.1), ("threshold", float("nan")), ("window", 1)],
)
def test_an_impossible_option_is_refused_by_name(option, value):
    with pytest.raises(ValueError, match=option):
        LongVU(**{option: value})


def real(clip, name, fps, **options):
    found = list(open_source(clip(name), Sampling(fps=fps)))
    return found, [frame.seconds for frame in LongVU(**options)(found)]


# What happens when, looked up by eye: as in test_still.py.
ARRIVALS = [(5, 8), (14, 17), (49, 52), (74, 77)]


def test_every_arrival_in_an_empty_room_is_kept_and_a_lower_threshold_would_miss_one(clip):
    found, seconds = real(clip, "one-by-one-person-detection.mp4", 1)
    assert len(seconds) < 0.85 * len(found)
    assert not [t for t in seconds if 1 <= t <= 5]
    assert all(any(empty < t <= come for t in seconds) for empty, come in ARRIVALS)
    lower = [frame.seconds for frame in LongVU(threshold=0.95)(found)]
    assert not all(any(empty < t <= come for t in lower) for empty, come in ARRIVALS)


def test_every_car_is_kept(clip):
    found, seconds = real(clip, "car-detection.mp4", 2)
    assert len(seconds) < 0.9 * len(found)
    for start, end in [(5, 8), (14.5, 17), (17, 19.5), (25.5, 28)]:
        assert len([t for t in seconds if start <= t <= end]) >= 2


def test_every_cut_is_kept(clip):
    _, seconds = real(clip, "bikes.mp4", 5)
    for cut in (1.2, 3.04, 5.48, 7.48, 9.68):
        assert [t for t in seconds if cut <= t < cut + 0.2]
