"""What every way of cutting must hold, and what is special to each."""

import itertools
import pickle
import random

import numpy as np
import pytest

from streamvlm.plugins import Recipe, names
from streamvlm.protocols import Clipper
from streamvlm.types import Frame
from streamvlm.video.clips.fixed import Fixed
from streamvlm.video.clips.scenes import Scenes
from streamvlm.video.sources import Sampling, open_source

DARK = np.zeros((36, 64, 3), dtype=np.uint8)
BRIGHT = np.full((36, 64, 3), (200, 120, 60), dtype=np.uint8)


def frames(seconds, images=None):
    images = [DARK] * len(seconds) if images is None else images
    return [
        Frame("cam", n, float(t), image)
        for n, (t, image) in enumerate(zip(seconds, images, strict=True))
    ]


def borders(clips):
    return [(clip.start, clip.end) for clip in clips]


@pytest.fixture(params=["fixed", "scenes"])
def cut(request):
    return Recipe("clips", request.param).build()


def test_the_ways_of_cutting_are_plug_ins_of_the_protocol(cut):
    assert {"fixed", "scenes"} <= set(names("clips"))
    assert isinstance(cut, Clipper)
    assert pickle.loads(pickle.dumps(cut)) == cut


@pytest.mark.parametrize("seed", range(40))
def test_each_frame_is_in_exactly_one_clip_that_contains_its_time(cut, seed):
    rng = random.Random(seed)
    gaps = [rng.choice([0.04, 0.5, 1.0, rng.expovariate(0.2)]) for _ in range(150)]
    seconds = list(itertools.accumulate(gaps, initial=0.0))
    given = frames(seconds, [rng.choice([DARK, BRIGHT]) for _ in seconds])
    clips = list(cut(given))
    assert [frame for clip in clips for frame in clip.frames] == given
    for clip in clips:
        assert all(clip.start <= frame.seconds < clip.end for frame in clip.frames)
        assert len(clip.frames) <= cut.max_frames
    assert all(a.end <= b.start for a, b in itertools.pairwise(clips))


def test_a_clip_comes_as_soon_as_a_later_frame_is_seen(cut):
    given = []

    def source():
        for frame in frames(range(100)):
            given.append(frame.seconds)
            yield frame

    for clip in itertools.islice(cut(source()), 3):
        assert given[-1] <= clip.end + 1


def test_frames_of_equal_time_stay_together(cut):
    clips = list(cut(frames([0, 1, 1, 1, 2])))
    assert [len(clip.frames) for clip in clips] == [5]


def test_a_single_frame_is_a_clip(cut):
    (clip,) = cut(frames([3.0]))
    assert clip.start <= 3.0 < clip.end


def test_no_frames_give_no_clips(cut):
    assert list(cut([])) == []


def test_endless_frames_are_cut_in_bounded_memory(cut):
    clips = cut(frame for n in itertools.count() for frame in [Frame("cam", n, n / 100, DARK)])
    assert all(len(clip.frames) <= 64 for clip in itertools.islice(clips, 50))


def test_the_grid_of_fixed_clips_does_not_depend_on_the_frames():
    clips = list(Fixed(seconds=8)(frames([0, 1, 7.9, 8, 9, 30, 31])))
    assert borders(clips) == [(0, 8), (8, 16), (24, 31.1)]
    assert [len(clip.frames) for clip in clips] == [3, 2, 2]


def test_the_last_fixed_clip_ends_with_its_last_frame():
    assert borders(Fixed(seconds=8)(frames([0, 0.5, 1.0, 1.5])))[-1] == (0, 2.0)
    assert borders(Fixed(seconds=8)(frames([0, 7.9])))[-1] == (0, 8)


def test_a_full_fixed_clip_is_cut_in_two_without_a_hole():
    clips = list(Fixed(seconds=8, max_frames=3)(frames([0, 1, 2, 3, 4, 5, 6, 8])))
    assert borders(clips) == [(0, 3), (3, 6), (6, 8), (8, 9)]


@pytest.mark.parametrize("seconds", [0.1, 0.2, 0.3, 0.7, 1.1])
def test_fixed_borders_hold_for_lengths_that_floats_cannot_say(seconds):
    given = frames([n * seconds for n in range(500)])
    clips = list(Fixed(seconds=seconds)(given))
    assert all(c.start <= f.seconds < c.end for c in clips for f in c.frames)
    assert all(a.end <= b.start for a, b in itertools.pairwise(clips))
    assert len(clips) >= 490


def test_scenes_cut_where_the_picture_changes():
    images = [DARK] * 5 + [BRIGHT] * 4 + [DARK] * 6
    clips = list(Scenes(min_seconds=2)(frames(range(15), images)))
    assert borders(clips) == [(0, 5), (5, 9), (9, 15)]


def test_scenes_ignore_cuts_that_come_too_soon():
    images = [DARK] * 5 + [BRIGHT] + [DARK] * 5
    assert borders(Scenes(min_seconds=3)(frames(range(11), images))) == [(0, 5), (5, 11)]


def test_a_long_scene_is_cut_at_max_seconds():
    assert borders(Scenes(max_seconds=10)(frames(range(25)))) == [(0, 10), (10, 20), (20, 25)]


def test_an_empty_stretch_makes_no_clip():
    clips = list(Scenes(max_seconds=10)(frames([0, 1, 100, 101])))
    assert borders(clips) == [(0, 10), (100, 102)]


def test_a_change_of_exposure_alone_is_no_cut():
    texture = np.random.default_rng(0).integers(40, 180, (36, 64, 1)).repeat(3, 2)
    images = [(texture * gain).astype(np.uint8) for gain in (1, 1, 1, 1.15, 1.15, 1.15)]
    assert len(list(Scenes(min_seconds=1)(frames(range(6), images)))) == 1


@pytest.mark.parametrize(
    ("make", "option", "value"),
    [
        (Fixed, "seconds", 0),
        (Fixed, "seconds", float("inf")),
        (Fixed, "max_frames", 0),
        (Scenes, "threshold", 0),
        (Scenes, "min_seconds", 99),
        (Scenes, "max_frames", 0),
    ],
)
def test_an_impossible_option_is_refused_by_name(make, option, value):
    with pytest.raises(ValueError, match=option):
        make(**{option: value})


@pytest.mark.parametrize("fps", [5, 25])
def test_scenes_find_every_cut_of_a_real_clip(clip, fps):
    source = open_source(clip("bikes.mp4"), Sampling(fps=fps))
    clips = list(Scenes(min_seconds=1, max_frames=1000)(source))
    cuts = [1.2, 3.04, 5.48, 7.48, 9.68]
    assert [c.start for c in clips[1:]] == [pytest.approx(t, abs=1 / fps) for t in cuts]
    assert all(c.start >= t - 1e-6 for c, t in zip(clips[1:], cuts, strict=True))


def test_a_fixed_camera_has_hardly_a_cut(clip):
    source = open_source(clip("vtest-480x360.avi"), Sampling(fps=1))
    assert len(list(Scenes(max_seconds=1000, max_frames=1000)(source))) == 1
