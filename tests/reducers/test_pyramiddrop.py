import pytest
import torch

from streamvlm.reducers.pyramiddrop import PyramidDrop


@pytest.mark.parametrize(("layer", "alive", "count"), [(8, 96, 48), (16, 48, 24), (24, 24, 12)])
def test_each_stage_halves_what_the_prompt_had(rows, signal, layer, alive, count):
    some = rows(1, (1, alive), layer=layer, depth=32, total=96)
    given = signal(some)
    kept = PyramidDrop().plan(some, given).keep
    assert len(kept) == count
    assert given[kept].min() > given.sort(descending=True).values[count]


@pytest.mark.parametrize(
    ("depth", "lowest", "layers"),
    [
        (32, 0, (8, 16, 24)),
        (28, 0, (7, 14, 21)),
        (5, 0, (1, 2, 4)),
        (2, 0, (1,)),
        (36, 10, (10, 18, 27)),
    ],
)
def test_its_stages_are_quarters_of_the_depth(depth, lowest, layers):
    assert PyramidDrop().layers(depth, lowest) == layers


def test_stages_that_fall_on_one_layer_count_together(rows, signal):
    some = rows(1, (1, 64), layer=1, depth=2)
    assert len(PyramidDrop().plan(some, signal(some)).keep) == 8  # 64 · 0.5³


def test_chosen_stages_count_from_the_first(rows, signal):
    some = rows(1, (1, 64), layer=5, depth=28)
    assert len(PyramidDrop(keep=0.25, stages=(2, 5, 9)).plan(some, signal(some)).keep) == 4


def test_the_best_stay_in_order(rows):
    # 6 · 0.5 = 3: the scores 0.9, 0.5, and the first of the two 0.3.
    signal = torch.tensor([0.1, 0.5, 0.3, 0.3, 0.9, 0.2])
    plan = PyramidDrop(stages=(2,)).plan(rows(1, (1, 6)), signal)
    assert plan.keep.tolist() == [1, 2, 4]


def test_golden_rows(rows, signal):
    some = rows(9, layer=6)
    kept = PyramidDrop().plan(some, signal(some)).keep
    assert (kept[:6].tolist(), int(kept.sum())) == ([18, 29, 31, 32, 36, 40], 754)
