import pytest

from streamvlm.video.survey import survey

DURATIONS = {
    "01_dog.mp4": 9.643,
    "asl_book.mkv": 3.633,
    "bikes.mp4": 10.0,
    "flower.webm": 5.005,
    "nasa_13013.mp4": 13.013,
    "one-by-one-person-detection.mp4": 139.4,
    "sample_mpeg2.m2v": 4.967,
    "sony-a7m3.mts": 0.52,
    "stream-of-water.webm": 3.003,
    "videollava-screen.mp4": 31.8,
    "vtest-480x360.avi": 79.5,
    "faults/truncated.mkv": 3.633,
    "faults/truncated_faststart.mp4": 9.576,
    "faults/ts_jump_and_resize.ts": 1003.844,
    "faults/ts_mid_gop.ts": 6.96,
    "faults/ts_wrap.ts": 30.16,
}


@pytest.mark.parametrize(("name", "expected"), DURATIONS.items())
def test_the_promised_length_of_a_real_clip(clip, name, expected):
    path = clip(name)
    assert survey(path, path, allow_local=False) == pytest.approx(expected, abs=0.001)


@pytest.mark.parametrize("name", ["made.mp4", "made.mkv", "made.ts", "made.avi"])
def test_the_length_is_counted_from_the_first_picture(encode, name):
    codec = "mpeg4" if name == "made.avi" else "libx264"
    start = 0.0 if name == "made.avi" else 2.0
    times = [start + n / 25 for n in range(100)]
    path = encode(list(range(100)), name=name, times=times, codec=codec, options={"g": "10"})
    assert survey(path, path, allow_local=False) == pytest.approx(4.0, abs=0.002)


def test_a_fragmented_file_states_no_length_and_is_measured(tmp_path, encode):
    import av

    path, made = encode(list(range(50)), options={"g": "5"}), str(tmp_path / "live.mp4")
    flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    with av.open(path) as source, av.open(made, "w", options=flags) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    assert survey(made, made, allow_local=False) == pytest.approx(4.94, abs=0.07)
