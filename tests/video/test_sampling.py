import pytest

from streamvlm.errors import BadOption
from streamvlm.video.sampling import Sampling


@pytest.mark.parametrize(
    ("option", "value"),
    [("fps", 0), ("fps", -1), ("fps", float("nan")), ("max_frames", 0), ("max_side", 0)],
)
def test_an_impossible_option_is_refused_by_name(option, value):
    with pytest.raises(BadOption, match=option):
        Sampling(**{option: value})


def test_the_step_is_one_over_fps():
    assert Sampling(fps=4).step_seconds(duration=1000) == 0.25


def test_the_step_grows_so_that_max_frames_span_the_duration():
    assert Sampling(fps=1, max_frames=10).step_seconds(duration=100) == 10


def test_max_frames_does_not_shrink_the_step():
    assert Sampling(fps=1, max_frames=10).step_seconds(duration=5) == 1


def test_an_unknown_duration_leaves_the_step_at_one_over_fps():
    assert Sampling(fps=2, max_frames=1).step_seconds(duration=None) == 0.5
