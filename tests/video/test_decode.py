"""Times and pictures of sampled videos; the oracle is a number drawn into each picture."""

import itertools
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from streamvlm.video.decode import Reader
from streamvlm.video.opening import opened
from streamvlm.video.pictures import Painter, frame_hash
from streamvlm.video.sources import Sampling, open_source

ALL = 1000.0


def frames_of(path, **sampling):
    return list(open_source(path, Sampling(**sampling)))


def seconds_of(path, **sampling):
    return [frame.seconds for frame in open_source(path, Sampling(**sampling))]


def first_at_or_after(times, step):
    """The rule of sampling, said once more and plainly."""
    wanted, due = [], 0.0
    for number, time in enumerate(times):
        if time >= due - 1e-6:
            wanted.append(number)
            due = (np.floor(time / step + 1e-6) + 1) * step
    return wanted


LONG_GOP = {"crf": "12", "g": "250", "bf": "3", "sc_threshold": "0"}
SHORT_GOP = {"crf": "12", "g": "7", "bf": "2", "sc_threshold": "0"}


@pytest.mark.parametrize("options", [LONG_GOP, SHORT_GOP, {"crf": "12", "bf": "0", "g": "5"}])
@pytest.mark.parametrize("fps", [0.4, 1, 3, 7])
def test_the_sampled_picture_is_the_first_at_or_after_each_step(encode, read_number, options, fps):
    path = encode(list(range(100)), options=options)
    frames = frames_of(path, fps=fps)
    expected = first_at_or_after([n / 10 for n in range(100)], 1 / fps)
    assert [read_number(frame.image) for frame in frames] == expected
    assert [frame.seconds for frame in frames] == [n / 10 for n in expected]
    assert [frame.index for frame in frames] == list(range(len(expected)))


@pytest.mark.parametrize("name", ["made.mp4", "made.mkv"])
def test_variable_frame_rate_gives_true_times_without_catch_up_frames(encode, read_number, name):
    times = [0, 0.04, 0.9, 1.3, 1.35, 1.9, 3.7, 3.8, 4.0, 4.01, 5.5]
    path = encode(list(range(len(times))), times=times, name=name)
    frames = frames_of(path)
    assert [read_number(frame.image) for frame in frames] == [0, 3, 6, 8, 10]
    assert [frame.seconds for frame in frames] == [0, 1.3, 3.7, 4.0, 5.5]


@pytest.mark.parametrize("name", ["made.mp4", "made.mkv", "made.ts"])
def test_a_file_that_starts_late_is_counted_from_its_first_picture(encode, read_number, name):
    path = encode(list(range(40)), times=[3.5 + n / 10 for n in range(40)], name=name)
    source = open_source(path, Sampling(fps=2))
    frames = list(source)
    assert [frame.seconds for frame in frames] == pytest.approx([n / 2 for n in range(8)])
    assert [read_number(frame.image) for frame in frames] == list(range(0, 40, 5))
    assert source.duration == pytest.approx(4.0, abs=0.07)


@pytest.mark.parametrize(
    ("codec", "name"),
    [
        ("libx265", "made.mp4"),
        ("libvpx-vp9", "made.webm"),
        ("mpeg4", "made.avi"),
        ("mjpeg", "made.mkv"),
        ("libx264", "made.ts"),
    ],
)
def test_other_codecs_and_containers_give_the_same_pictures(encode, read_number, codec, name):
    options = {"x265-params": "log-level=none:keyint=12"} if codec == "libx265" else {"g": "12"}
    times = [n / 25 for n in range(75)]
    path = encode(list(range(75)), times=times, codec=codec, name=name, options=options)
    frames = frames_of(path, fps=2)
    assert [frame.seconds for frame in frames] == pytest.approx(
        [0, 0.52, 1, 1.52, 2, 2.52], abs=2e-3
    )
    assert [read_number(frame.image) for frame in frames] == [0, 13, 25, 38, 50, 63]


@pytest.mark.parametrize(("limit", "expected"), [(1, 1), (3, 3), (7, 7), (100, 10)])
def test_max_frames_spreads_its_frames_over_the_whole_file(encode, limit, expected):
    path = encode(list(range(100)))
    seconds = seconds_of(path, max_frames=limit)
    assert len(seconds) == expected
    assert seconds[-1] >= 10 - 10 / expected - 1e-6


def rotate(path, degrees):
    """Write a turn into the track header of an MP4, as phones do."""
    data = bytearray(Path(path).read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 5 * 4 + 4 * 4
    turn = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}[degrees]
    a, b, c, d = (each * 65536 for each in turn)
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    Path(path).write_bytes(data)


@pytest.mark.parametrize(("degrees", "corner"), [(90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_a_turned_video_comes_out_upright(encode, degrees, corner):
    picture = np.zeros((60, 100, 3), dtype=np.uint8)
    picture[:15, :15] = 255
    path = encode([picture] * 3)
    rotate(path, degrees)
    image = frames_of(path)[0].image
    assert image.shape == ((60, 100, 3) if degrees == 180 else (100, 60, 3))
    rows, columns = (slice(0, 10) if side == 0 else slice(-10, None) for side in corner)
    assert image[rows, columns].mean() > 230
    assert image.mean() < 30


@pytest.mark.parametrize(
    ("size", "codec", "name", "shape"),
    [
        ((1, 1), "png", "made.mov", (1, 1, 3)),
        ((1, 1), "libx264", "made.mp4", (1, 1, 3)),
        ((3, 5), "ffv1", "made.mkv", (5, 3, 3)),
        ((161, 91), "libx264", "made.mp4", (91, 161, 3)),
        ((3840, 2160), "libx264", "made.mp4", (252, 448, 3)),
        ((2160, 3840), "mjpeg", "made.mkv", (448, 252, 3)),
        ((2000, 16), "libx264", "made.mp4", (4, 448, 3)),
    ],
)
def test_any_size_of_picture_is_read_and_fitted(encode, size, codec, name, shape):
    grey = np.full((size[1], size[0], 3), 120, dtype=np.uint8)
    frames = frames_of(encode([grey] * 2, codec=codec, name=name, options={"g": "2"}), fps=ALL)
    assert len(frames) == 2
    assert frames[0].image.shape == shape
    assert abs(int(frames[0].image.mean()) - 120) <= 2


def test_a_single_picture_is_a_video_of_one_frame(encode):
    source = open_source(encode([5]), Sampling())
    assert [frame.seconds for frame in source] == [0.0]
    assert source.duration > 0


def test_a_second_pass_gives_the_same_frames(encode):
    source = open_source(encode(list(range(30))), Sampling(fps=3))
    first, second = ([(f.seconds, frame_hash(f.image)) for f in source] for _ in range(2))
    assert first == second


def test_a_pass_may_be_left_early(encode):
    source = open_source(encode(list(range(30))), Sampling(fps=3))
    next(iter(source))
    assert source.ended_at is None
    assert len(list(source)) == 9


def test_damage_in_one_packet_costs_its_time_only_and_is_reported(encode):
    path = encode(list(range(60)), options={"crf": "12", "g": "5", "bf": "0"})
    with av.open(path) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        broken = packets[30]
        at, size = broken.pos, broken.size
    data = bytearray(Path(path).read_bytes())
    data[at : at + size] = b"\xff" * size
    Path(path).write_bytes(data)
    source = open_source(path, Sampling(fps=ALL))
    frames = list(source)
    lost = [(f.seconds, f.lost.reason) for f in frames if f.lost]
    assert lost
    assert {reason for _, reason in lost} == {"damage"}
    assert all(3.0 <= seconds <= 3.6 for seconds, _ in lost)
    assert sum(f.lost.seconds for f in frames if f.lost) == pytest.approx(0.1, abs=0.41)
    assert source.ended_at == source.duration


COUNTS = {
    "one-by-one-person-detection.mp4": 1394,
    "car-detection.mp4": 377,
    "vtest-480x360.avi": 795,
    "01_dog.mp4": 289,
    "03_blocks.mp4": 292,
    "04_coffee.mp4": 287,
    "sample_iTunes.mov": 855,
    "flir-thermal-vfr.mp4": 84,
    "with-gps-rot90.mov": 120,
    "sony-a7m3.mts": 13,
    "sample_mpeg2.m2v": 149,
    "bikes.mp4": 250,
    "videollava-screen.mp4": 636,
    "flower.webm": 150,
    "stream-of-water.webm": 90,
    "nasa_13013.mp4": 390,
    "asl_book.mkv": 109,
    "decord-corrupted.mp4": 49,
    "av1_testsrc.mkv": 125,
    "faults/coffee_hevc.mp4": 150,
    "faults/coffee_vp9.webm": 150,
    "faults/coffee_av1.mp4": 150,
    "faults/coffee_h264_opengop.mp4": 287,
    "faults/coffee_hevc_opengop.mp4": 150,
    "faults/latin1-metadata.mp4": 109,
    "faults/truncated_faststart.mp4": 148,
    "faults/truncated.mkv": 55,
    "faults/bitrot.mp4": 247,
    "faults/ts_wrap.ts": 377,
    "faults/ts_jump_and_resize.ts": 183,
    "faults/ts_mid_gop.ts": 174,
}
DAMAGED = {"decord-corrupted.mp4", "faults/bitrot.mp4"}
# Their times follow other rules than a difference of timestamps.
NOT_SKIPPED = {"sample_mpeg2.m2v", "vtest-480x360.avi", "faults/ts_jump_and_resize.ts"}
SLOW = {
    "01_dog.mp4",
    "03_blocks.mp4",
    "flir-thermal-vfr.mp4",
    "one-by-one-person-detection.mp4",
    "sample_iTunes.mov",
    "videollava-screen.mp4",
}


def marked(names):
    """The names as parameters, in order, the big files marked as slow."""
    slow = pytest.mark.slow
    return [pytest.param(n, marks=slow if n in SLOW else ()) for n in sorted(names)]


@pytest.mark.parametrize("name", marked(COUNTS))
def test_every_picture_of_a_real_clip_is_read_in_time_order(clip, name):
    source = open_source(clip(name), Sampling(fps=ALL, max_side=32))
    seconds = [frame.seconds for frame in source]
    assert len(seconds) == COUNTS[name]
    assert seconds[0] == 0
    assert all(a < b for a, b in itertools.pairwise(seconds))
    assert source.ended_at <= source.duration + 0.01
    if not name.startswith("faults/trunc"):
        assert source.ended_at == pytest.approx(source.duration, abs=0.021)


def plain_hashes(path, fps):
    """Sampled pictures when every packet is decoded, by another way than the library's."""
    with opened(path, path, allow_local=False) as source:
        reader = Reader(*source)
        paint = Painter(96, reader.traits.aspect)
        found = []
        for picture in reader.pictures():
            raw = reader.raw_time(picture)
            zero = found[0][0] if found else raw
            found.append((raw, round(raw - zero, 6), frame_hash(paint(picture))))
    wanted = {each: first_at_or_after([f[1] for f in found], 1 / each) for each in fps}
    return {each: [found[number][1:] for number in wanted[each]] for each in fps}


@pytest.mark.parametrize("name", marked(COUNTS.keys() - DAMAGED - NOT_SKIPPED))
def test_skipping_packets_gives_the_same_pictures_as_decoding_all(clip, name):
    path = clip(name)
    for fps, expected in plain_hashes(path, [0.35, 1.0, 2.7]).items():
        frames = frames_of(path, fps=fps, max_side=96)
        assert [(f.seconds, frame_hash(f.image)) for f in frames] == expected, f"at {fps} fps"


def test_a_truncated_file_keeps_its_promise_and_says_where_it_ended(clip):
    source = open_source(clip("faults/truncated_faststart.mp4"), Sampling())
    list(source)
    assert source.duration == pytest.approx(9.576, abs=0.001)
    assert source.ended_at == pytest.approx(4.938, abs=0.001)


def test_a_clock_jump_is_one_gap_and_the_picture_size_may_change(clip):
    frames = frames_of(clip("faults/ts_jump_and_resize.ts"))
    gaps = [(frame.index, frame.lost) for frame in frames if frame.lost]
    assert len(gaps) == 1
    assert gaps[0][1].reason == "gap"
    assert gaps[0][1].seconds == pytest.approx(994.8, abs=0.01)
    assert len(frames) == 10


def test_the_better_of_two_video_streams_is_read(clip):
    with opened(clip("nasa_13013.mp4"), "nasa", allow_local=False) as (_, video):
        assert (video.width, video.height) == (480, 270)


def test_a_real_phone_video_comes_out_upright(clip):
    assert frames_of(clip("with-gps-rot90.mov"))[0].image.shape == (448, 252, 3)


def test_bitrot_prefers_clean_pictures_and_reports_the_damage(clip):
    frames = frames_of(clip("faults/bitrot.mp4"))
    lost = [frame.lost for frame in frames if frame.lost]
    assert {each.reason for each in lost} == {"damage"}
    assert sum(each.seconds for each in lost) == pytest.approx(57 / 25, abs=2.6)
    assert all(frame.lost is None for frame in frames if frame.seconds < 3)
