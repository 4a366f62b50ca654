"""Evidence in reading order."""

import pytest
import torch

from streamvlm.models._evidence import clock, labels, runs, steps
from streamvlm.types import VisualTokens


@pytest.fixture
def item(clip, evidence):
    def make(flat, seconds, start=0.0, stream="/videos/a.mp4"):
        flat = torch.tensor(flat, dtype=torch.int64)
        tokens = VisualTokens(
            model="m",
            features=torch.zeros(len(flat), 4),
            position=torch.stack([flat // 4, flat % 4 // 2, flat % 2], dim=1),
            seconds=torch.tensor(seconds, dtype=torch.float64),
            grid=(2, 2, 2),
            weight=torch.ones(len(flat)),
        )
        return evidence(tokens, clip(frames=2, start=start, stream=stream))

    return make


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "00:00"),
        (7.999, "00:07"),
        (61.0, "01:01"),
        (3599.5, "59:59"),
        (3600.0, "01:00:00"),
        (3723.0, "01:02:03"),
        (360_000.0, "100:00:00"),
    ],
)
def test_a_time_is_written_in_minutes_and_from_one_hour_on_in_hours(seconds, written):
    assert clock(seconds) == written


def test_every_step_with_tokens_has_its_own_second(item):
    found = list(steps([item([1, 3, 6], [4.2, 4.2, 5.9])]))
    assert [step.seconds for step in found] == [4.2, 5.9]
    assert [step.tokens.flat_index.tolist() for step in found] == [[1, 3], [6]]


def test_one_stream_has_no_heading(item):
    assert [step.heading for step in steps([item([0, 4], [0.0, 1.0])])] == ["", ""]


def test_each_of_several_streams_is_named_once_at_its_first_step(item):
    items = [
        item([0, 4], [0.0, 1.0], stream="/videos/b.mp4"),
        item([0], [9.0], start=9.0, stream="rtsp://host:554/cam"),
        item([0], [5.0], start=5.0, stream="/videos/b.mp4"),
    ]
    found = [(step.heading, step.seconds) for step in steps(items)]
    assert found == [("b.mp4", 0.0), ("", 1.0), ("", 5.0), ("cam", 9.0)]


@pytest.mark.parametrize(
    ("streams", "names"),
    [
        (["/home/me/a.mp4"], ["a.mp4"]),
        (["/v/hall/a.mp4", "/v/lab/a.mp4", "/v/lab/b.mp4"], ["hall/a.mp4", "lab/a.mp4", "b.mp4"]),
        (["/1/x/a.mp4", "/2/x/a.mp4", "/2/y/a.mp4"], ["1/x/a.mp4", "2/x/a.mp4", "y/a.mp4"]),
        (["/a.mp4", "/x/a.mp4"], ["a.mp4", "x/a.mp4"]),
        (["/a?b.mp4", "/a#b.mp4"], ["a?b.mp4", "a#b.mp4"]),
        (["rtsp://hall:554/cam", "rtsp://lab:554/cam"], ["hall:554/cam", "lab:554/cam"]),
        (["rtsp://hall/", "rtsp://lab/"], ["hall", "lab"]),
    ],
)
def test_a_stream_is_named_by_the_shortest_end_that_tells_it_apart(streams, names):
    assert list(labels(streams + streams).values()) == names


def test_streams_that_differ_in_a_query_or_in_who_asks_are_numbered_and_neither_is_told():
    streams = ["https://me:pw@host/v/a.mp4?sig=1", "https://host/v/a.mp4?sig=2", "/v/b.mp4"]
    assert list(labels(streams).values()) == ["a.mp4 (1)", "a.mp4 (2)", "b.mp4"]


def test_a_record_from_which_nothing_was_kept_leaves_no_trace(item):
    items = [
        item([], [], stream="/videos/b.mp4"),
        item([0], [0.0]),
        item([], [], start=2.0),
        item([0], [2.0], start=2.0),
    ]
    found = [(step.heading, step.seconds, step.follows) for step in steps(items)]
    assert found == [("", 0.0, False), ("", 2.0, True)]


def test_a_run_ends_at_a_gap_and_where_another_stream_begins(item):
    items = [
        item([0, 4], [0.0, 1.0], start=0.0),
        item([0], [2.0], start=2.0),
        item([0], [9.0], start=9.0),
        item([4], [12.0], start=11.0, stream="/videos/b.mp4"),
    ]
    found = [[step.seconds for step in run] for run in runs(list(steps(items)))]
    assert found == [[0.0, 1.0, 2.0], [9.0], [12.0]]


def test_nothing_makes_no_run():
    assert list(runs(list(steps([])))) == []
