"""Position rules: numbers worked out by hand."""

import pytest
import torch

from streamvlm.models._places import Dense, Raster
from streamvlm.models._qwen import Blocks, Timed
from streamvlm.types import VisualTokens


@pytest.fixture
def step():
    """Tokens of one step on a grid of two rows and three columns."""

    def make(cells, seconds=0.0, number=0):
        cells = torch.tensor(cells)
        return VisualTokens(
            model="m",
            features=torch.zeros(len(cells), 4),
            position=torch.stack([torch.full_like(cells, number), cells // 3, cells % 3], dim=1),
            seconds=torch.full((len(cells),), seconds, dtype=torch.float64),
            grid=(4, 2, 3),
            weight=torch.ones(len(cells)),
        )

    return make


def test_a_raster_gives_every_step_its_whole_grid(step):
    places, end = Raster().place((step([1, 5]), step([0], number=1)), 10)
    assert (places.tolist(), end) == ([[11, 15, 16]], 22)


def test_dense_places_are_those_of_words(step):
    places, end = Dense(3).place((step([1, 5]), step([0], number=1)), 10)
    assert (places.tolist(), end) == ([[10, 11, 12]] * 3, 13)


def test_blocks_restart_rows_and_columns_behind_the_longer_side(step):
    places, end = Blocks().place((step([1, 5]), step([0, 4], number=2)), 10)
    assert places.tolist() == [[10, 10, 13, 13], [10, 11, 13, 14], [11, 12, 13, 14]]
    assert end == 16


@pytest.mark.parametrize(("text_after", "expected"), [("max", 10 + 14 + 1), ("hf", 13)])
def test_time_counts_in_places_a_second_as_seen_and_text_goes_behind_as_asked(
    step, text_after, expected
):
    steps = (step([1, 5], 4.0), step([0, 4], 6.0), step([2], 11.0))
    places, end = Timed(2, text_after).place(steps, 10)
    assert places.tolist() == [
        [10, 10, 14, 14, 24],
        [10, 11, 10, 11, 10],
        [11, 12, 10, 11, 12],
    ]
    assert end == expected


def test_a_short_video_ends_behind_its_longer_side(step):
    assert Timed(2, "max").place((step([0], 3.0),), 10)[1] == 13


def test_seconds_that_are_sums_of_frame_durations_keep_their_place(step):
    tenths = sum([0.1] * 10)  # a little less than one
    places, _ = Timed(2, "max").place((step([0], 0.0), step([0], tenths)), 0)
    assert places[0].tolist() == [0, 2]
