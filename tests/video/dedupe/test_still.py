"""What counts as new: drawn scenes with noise, through a real encoder, and real clips."""

import itertools
import pickle

import numpy as np
import pytest

from streamvlm.plugins import Recipe, names
from streamvlm.protocols import FrameFilter
from streamvlm.types import Frame
from streamvlm.video.dedupe.none import KeepAll
from streamvlm.video.dedupe.still import Still
from streamvlm.video.sources import Sampling, open_source

WIDTH, HEIGHT = 192, 108
GREY = np.array((110, 110, 110))
# Red of the same brightness as the grey behind it: only its colour shows.
RED, ISOLUMINANT = np.array((230, 30, 30)), np.array((200, 72, 72))


def background(width=WIDTH, height=HEIGHT, seed=0):
    """A fixed texture round a grey."""
    rough = np.random.default_rng(seed).normal(0, 12, (height // 6, width // 6, 1))
    return GREY + np.kron(rough, np.ones((6, 6, 1)))


def scene(square=None, colour=RED, *, noise=0.0, rng=None, gain=1.0, size=(WIDTH, HEIGHT)):
    """A picture with a square of a sixth of the width at a place, if any."""
    picture = background(*size)
    if square is not None:
        side = size[0] // 6
        column, row = square
        picture[row : row + side, column : column + side] = colour
    picture = picture * gain
    if noise:
        picture = picture + rng.normal(0, noise, picture.shape)
    return picture.clip(0, 255).round().astype(np.uint8)


def frames(images):
    return [Frame("cam", n, float(n), image) for n, image in enumerate(images)]


def kept(images, keep=None):
    return [frame.index for frame in (keep or Still())(frames(images))]


def test_both_filters_are_plug_ins_of_the_protocol():
    assert {"none", "still"} <= set(names("dedupe"))
    for name in ("none", "still"):
        keep = Recipe("dedupe", name).build()
        assert isinstance(keep, FrameFilter)
        assert pickle.loads(pickle.dumps(keep)) == keep


def test_none_keeps_every_frame():
    assert kept([scene()] * 5, KeepAll()) == [0, 1, 2, 3, 4]


def test_a_still_picture_yields_one_frame():
    assert kept([scene()] * 50) == [0]


@pytest.mark.parametrize("noise", [2, 8, 16, 25])
@pytest.mark.parametrize("size", [(96, 96), (192, 108), (448, 252)])
def test_sensor_noise_is_nothing_new(noise, size):
    rng = np.random.default_rng(1)
    assert kept([scene(noise=noise, rng=rng, size=size) for _ in range(30)]) == [0]


def test_uniform_breathing_of_the_brightness_is_nothing_new():
    rng = np.random.default_rng(2)
    gains = 1 + 0.2 * np.sin(np.arange(40) / 3)
    assert kept([scene(noise=3, rng=rng, gain=gain) for gain in gains]) == [0]


@pytest.mark.parametrize("colour", [RED, ISOLUMINANT], ids=["red", "isoluminant"])
@pytest.mark.parametrize("noise", [0, 4, 12])
@pytest.mark.parametrize("size", [(96, 96), (192, 108), (448, 252)])
def test_a_small_thing_that_appears_moves_or_vanishes_is_kept(colour, noise, size):
    rng = np.random.default_rng(3)
    width = size[0]
    places = [None] * 10 + [(10, 20)] * 10 + [(10 + width // 3, 20)] * 10 + [None] * 10
    images = [scene(place, colour, noise=noise, rng=rng, size=size) for place in places]
    assert kept(images) == [0, 10, 20, 30]


def test_a_thing_that_is_there_from_the_second_frame_on_is_kept():
    assert kept([scene()] + [scene((50, 50))] * 5) == [0, 1]


def test_slow_drift_adds_up_until_it_counts():
    images = [scene((10 + n, 40), GREY + 30) for n in range(60)]
    found = kept(images)
    assert 3 <= len(found) <= 30
    assert max(b - a for a, b in itertools.pairwise([*found, 60])) <= 20


def test_a_slow_change_of_colour_adds_up_until_it_counts():
    images = [scene((60, 40), GREY + (ISOLUMINANT - GREY) * n / 50) for n in range(51)]
    assert len(kept(images)) >= 3


def test_a_stream_that_becomes_noisy_calms_down():
    rng = np.random.default_rng(5)
    images = [scene(noise=1, rng=rng, size=(96, 54)) for _ in range(20)]
    images += [scene(noise=16, rng=rng, size=(96, 54)) for _ in range(60)]
    found = kept(images, Still(max_gap_seconds=1000))
    assert any(index >= 20 for index in found)
    assert all(index < 60 for index in found)


def test_after_long_stillness_one_frame_is_kept_anyway():
    assert kept([scene()] * 35, Still(max_gap_seconds=10)) == [0, 10, 20, 30]


def test_it_never_looks_ahead():
    given = []

    def source():
        for frame in frames([scene(), scene((20, 20)), scene()]):
            given.append(frame.index)
            yield frame

    for frame in Still()(source()):
        assert given[-1] == frame.index


def test_two_streams_do_not_share_a_memory():
    keep = Still()
    first, second = keep(frames([scene()] * 3)), keep(frames([scene((20, 20))] * 3))
    assert [next(first).index, next(second).index] == [0, 0]
    assert (list(first), list(second)) == ([], [])


def test_a_picture_that_grows_in_mid_stream_is_compared_all_the_same():
    images = [scene(size=(96, 54))] * 3 + [np.kron(scene(size=(96, 54)), np.ones((2, 2, 1), "u1"))]
    assert kept(images) == [0]


def test_a_picture_of_one_pixel_is_compared_too():
    grey = np.full((1, 1, 3), 100, dtype=np.uint8)
    assert kept([grey] * 5) == [0]


def test_no_frames_give_no_frames():
    assert kept([]) == []


@pytest.mark.parametrize(
    ("option", "value"),
    [("levels", 0), ("noises", float("nan")), ("area", 1), ("area", 0), ("max_gap_seconds", 0)],
)
def test_an_impossible_option_is_refused_by_name(option, value):
    with pytest.raises(ValueError, match=option):
        Still(**{option: value})


@pytest.mark.parametrize("crf", ["18", "28", "36"])
def test_through_an_encoder_only_events_are_kept(encode, crf):
    rng = np.random.default_rng(4)
    places = [None] * 100 + [(40, 30)] * 100 + [(120, 30)] * 100
    path = encode(
        [scene(place, noise=4, rng=rng) for place in places],
        options={"crf": crf, "g": "25", "preset": "veryfast"},
    )
    seconds = [frame.seconds for frame in Still()(open_source(path, Sampling()))]
    assert seconds == [0, 10, 20]


def real(clip, name, fps):
    found = list(open_source(clip(name), Sampling(fps=fps)))
    return found, [frame.seconds for frame in Still()(found)]


def test_an_empty_room_is_dropped_and_arrivals_are_kept(clip):
    found, seconds = real(clip, "one-by-one-person-detection.mp4", 1)
    assert len(seconds) < 0.75 * len(found)
    # (the room is empty, someone has come in), looked up by eye at 1 fps
    for empty, arrived in [((1, 5), 8), ((12, 14), 17), ((47, 49), 52), ((72, 74), 77)]:
        assert not [t for t in seconds if empty[0] <= t <= empty[1]]
        assert [t for t in seconds if empty[1] < t <= arrived]


def test_an_empty_road_is_dropped_and_every_car_is_kept(clip):
    found, seconds = real(clip, "car-detection.mp4", 2)
    assert len(seconds) < 0.6 * len(found)
    for start, end in [(5, 8), (14.5, 17), (17, 19.5), (25.5, 28)]:
        assert len([t for t in seconds if start <= t <= end]) >= 2


def test_every_cut_is_kept(clip):
    _, seconds = real(clip, "bikes.mp4", 5)
    for cut in (1.2, 3.04, 5.48, 7.48, 9.68):
        assert [t for t in seconds if cut <= t < cut + 0.2]


def test_people_walking_far_away_are_kept(clip):
    found, seconds = real(clip, "vtest-480x360.avi", 1)
    assert len(seconds) > 0.8 * len(found)
