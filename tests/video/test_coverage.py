import itertools
import random

import numpy as np
import pytest

from streamvlm.types import Frame, Lost
from streamvlm.video.coverage import CoverageLog
from streamvlm.video.dedupe.none import KeepAll
from streamvlm.video.dedupe.still import Still
from streamvlm.video.sources import Sampling, open_source

IMAGE = np.zeros((2, 2, 3), dtype=np.uint8)


def frame(index, seconds, lost=None):
    return Frame("cam", index, seconds, IMAGE, lost)


def account(frames, *, keep=lambda frame: True, duration=None, ended_at=None):
    log = CoverageLog("cam")
    list(log.kept(each for each in log.saw(frames) if keep(each)))
    return log.close(duration, ended_at)


def spans(coverage):
    return [(span.start, span.end, span.kind, span.reason) for span in coverage.spans]


def test_kept_and_dropped_frames_make_sampled_and_still_spans():
    frames = [frame(n, float(n)) for n in range(5)]
    coverage = account(frames, keep=lambda f: f.index in (0, 1, 4), duration=5.0, ended_at=5.0)
    assert spans(coverage) == [
        (0.0, 2.0, "sampled", ""),
        (2.0, 4.0, "still", ""),
        (4.0, 5.0, "sampled", ""),
    ]


@pytest.mark.parametrize(
    ("reason", "kind", "said"),
    [
        ("gap", "gap", "no pictures stored"),
        ("damage", "gap", "damage"),
        ("overload", "skipped", "overload"),
    ],
)
def test_lost_time_lies_right_before_its_frame(reason, kind, said):
    coverage = account([frame(0, 0.0), frame(1, 10.0, Lost(7.0, reason))], ended_at=11.0)
    assert spans(coverage) == [
        (0.0, 3.0, "sampled", ""),
        (3.0, 10.0, kind, said),
        (10.0, 11.0, "sampled", ""),
    ]


def test_a_missing_tail_is_a_gap():
    coverage = account([frame(0, 0.0)], duration=9.5, ended_at=4.9)
    assert spans(coverage) == [(0.0, 4.9, "sampled", ""), (4.9, 9.5, "gap", "ends early")]


def test_a_tail_shorter_than_a_picture_is_no_gap():
    assert spans(account([frame(0, 0.0)], duration=5.0, ended_at=4.96)) == [(0, 5, "sampled", "")]


def test_a_file_longer_than_it_promised_counts_to_its_end():
    assert account([frame(0, 0.0)], duration=5.0, ended_at=7.0).seconds == 7.0


def test_a_stream_without_any_frame_is_one_gap():
    assert spans(account([], duration=3.0, ended_at=0.0)) == [
        (0.0, 3.0, "gap", "no picture decoded")
    ]


def test_a_stream_of_no_length_has_no_spans():
    assert account([], duration=None).spans == ()


def test_frames_pass_unchanged():
    frames = [frame(n, float(n)) for n in range(3)]
    log = CoverageLog("cam")
    assert list(log.kept(log.saw(frames))) == frames


@pytest.mark.parametrize("seed", range(200))
def test_spans_always_follow_one_another_and_sum_to_the_whole(seed):
    rng = random.Random(seed)
    seconds, frames = 0.0, []
    for index in range(rng.randrange(30)):
        lost = None
        if rng.random() < 0.3:
            lost = Lost(rng.expovariate(0.5), rng.choice(["gap", "damage", "overload"]))
        frames.append(frame(index, seconds, lost))
        seconds += rng.choice([0.0, 0.04, rng.expovariate(1)])
    duration = rng.choice([None, seconds + rng.uniform(-1, 5)])
    ended_at = rng.choice([None, max(0.0, seconds + rng.uniform(-1, 1))])
    coverage = account(
        frames, keep=lambda f: rng.random() < 0.5, duration=duration, ended_at=ended_at
    )
    if not coverage.spans:
        assert not frames or seconds == 0 or duration is None
        return
    assert coverage.spans[0].start == 0
    assert all(a.end == b.start for a, b in itertools.pairwise(coverage.spans))
    assert all(span.start < span.end for span in coverage.spans)
    kinds = [(span.kind, span.reason) for span in coverage.spans]
    assert all(a != b for a, b in itertools.pairwise(kinds))
    assert coverage.seconds >= max(duration or 0, frames[-1].seconds if frames else 0)
    shares = sum(coverage.share(kind) for kind in ("sampled", "still", "skipped", "gap"))
    assert shares == pytest.approx(1)


REAL = [
    "bikes.mp4",
    "decord-corrupted.mp4",
    "vtest-480x360.avi",
    "asl_book.mkv",
    "flower.webm",
    "sample_mpeg2.m2v",
    "sony-a7m3.mts",
    "faults/bitrot.mp4",
    "faults/truncated.mkv",
    "faults/truncated_faststart.mp4",
    "faults/ts_jump_and_resize.ts",
    "faults/ts_mid_gop.ts",
    "faults/ts_wrap.ts",
]


@pytest.mark.parametrize("keep", [KeepAll(), Still()], ids=["none", "still"])
@pytest.mark.parametrize("name", REAL)
def test_every_second_of_a_real_clip_is_accounted_for(clip, name, keep):
    source = open_source(clip(name), Sampling(max_side=96))
    log = CoverageLog(source.stream)
    list(log.kept(keep(log.saw(source))))
    coverage = log.close(source.duration, source.ended_at)
    assert all(a.end == b.start for a, b in itertools.pairwise(coverage.spans))
    assert coverage.seconds == max(source.duration, source.ended_at)
    is_broken = any(word in name for word in ("trunc", "bitrot", "corrupted", "jump"))
    assert (coverage.share("gap") > 0) == is_broken
