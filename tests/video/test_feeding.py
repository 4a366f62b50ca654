"""What reaches the decoder, on real packets."""

import av
import pytest

from streamvlm.video.feeding import Feed, H264Units, can_skip
from streamvlm.video.sources import Sampling, open_source


@pytest.fixture
def packets_of():
    """(packets, seconds per tick, H.264 reader) of a file."""

    def read(path):
        with av.open(path) as container:
            video = container.streams.video[0]
            units = H264Units(video.codec_context.extradata)
            found = [packet for packet in container.demux(video) if packet.size]
            return found, float(video.time_base), units

    return read


def feed_all(packets, time_base, units, dues):
    """Number of packets passed on when the next due time is set after each `dues` second."""
    dropped = []
    feed = Feed(time_base, units, dropped.append)
    dues = iter(dues)
    passed = []
    for packet in feed(packets):
        passed.append(packet)
        if packet is not None and packet.pts * time_base >= feed.due:
            feed.due = next(dues, float("inf"))
    return passed, dropped


@pytest.mark.parametrize(
    ("format_name", "codec", "expected"),
    [
        ("mov,mp4,m4a,3gp,3g2,mj2", "h264", True),
        ("matroska,webm", "libdav1d", True),
        ("mov,mp4,m4a,3gp,3g2,mj2", "mpeg4", False),
        ("avi", "h264", False),
        ("mpegts", "h264", False),
    ],
)
def test_packets_are_only_skipped_where_key_pictures_can_be_trusted(format_name, codec, expected):
    assert can_skip(format_name, codec) is expected


def test_without_a_due_time_every_packet_passes(encode, packets_of):
    packets, time_base, units = packets_of(encode(list(range(30))))
    feed = Feed(time_base, units, lambda end: None)
    assert list(feed(packets)) == packets


def test_whole_groups_before_the_due_time_are_dropped(encode, packets_of):
    path = encode(list(range(100)), options={"g": "10", "bf": "0", "sc_threshold": "0"})
    packets, time_base, units = packets_of(path)
    passed, dropped = feed_all(packets, time_base, units, [5.0])
    decoded = [round(p.pts * time_base, 3) for p in passed if p is not None]
    # The first picture, then the group of the wanted one; at the end the rest of the last group.
    assert decoded[0] == 0.0
    assert decoded[1] == 5.0
    assert None in passed
    assert len(dropped) == 100 - len(decoded)
    assert len(decoded) < 30


def test_an_h264_picture_that_no_other_needs_is_not_decoded_before_its_time(encode, packets_of):
    options = {"g": "250", "bf": "2", "b-pyramid": "none", "sc_threshold": "0", "b-adapt": "0"}
    packets, time_base, units = packets_of(encode(list(range(90)), options=options))
    passed, _ = feed_all(packets, time_base, units, [8.0])
    assert len(passed) < 0.5 * len(packets)
    assert all(units.is_reference(p) or p.pts * time_base >= 0 for p in passed)


def test_a_key_picture_is_not_trusted_if_pictures_shown_before_it_follow(clip, packets_of):
    packets, time_base, _ = packets_of(clip("faults/coffee_hevc_opengop.mp4"))
    passed, _ = feed_all(packets, time_base, None, [2.0])
    wanted = next(n for n, p in enumerate(passed) if p is not None and p.pts * time_base >= 2)
    assert None not in passed[:wanted]
    # The last group of this clip is closed, and nothing more is wanted.
    assert None in passed[wanted:]


def test_an_h264_key_picture_that_is_no_idr_is_not_trusted(clip, packets_of):
    packets, time_base, units = packets_of(clip("faults/coffee_h264_opengop.mp4"))
    keys = [p for p in packets if p.is_keyframe]
    assert [units.is_restart(p) for p in keys] == [True] + [False] * 5
    passed, _ = feed_all(packets, time_base, units, [8.0])
    assert None not in passed


def test_after_damage_everything_passes(encode, packets_of):
    packets, time_base, units = packets_of(encode(list(range(50)), options={"g": "5"}))
    feed = Feed(time_base, units, lambda end: None)
    feed.due = 4.0
    feed.is_damaged = True
    assert list(feed(packets)) == packets


def test_without_set_up_bytes_every_picture_counts_as_needed(encode, packets_of):
    packets, _, _ = packets_of(encode(list(range(10))))
    assert all(H264Units(None).is_reference(packet) for packet in packets)


def test_a_stream_without_second_key_picture_is_read_in_bounded_memory(encode, monkeypatch):
    monkeypatch.setattr("streamvlm.video.feeding._MAX_HELD_BYTES", 2000)
    path = encode(list(range(100)), options={"g": "1000", "bf": "0", "sc_threshold": "0"})
    seconds = [frame.seconds for frame in open_source(path, Sampling(max_frames=2))]
    assert seconds == [0.0, 5.0]
