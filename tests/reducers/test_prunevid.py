from dataclasses import replace

import pytest
import torch

from streamvlm.reducers.prunevid import PruneVidInner


def uneven(rows, counts):
    some = rows(1, (1, sum(counts)))
    place = some.place.clone()
    place[:, 1] = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    return replace(some, place=place)


def test_each_step_keeps_its_share_of_what_the_question_looks_at(rows):
    # 0.4 of 5, 3 and 2 rows are 2, 1.2 and 0.8; of round(0.4 · 10) = 4 the fourth goes to the last.
    signal = torch.tensor([0.5, 0.9, 0.1, 0.8, 0.7, 0.1, 0.2, 0.2, 0.3, 0.4])
    plan = PruneVidInner().plan(uneven(rows, (5, 3, 2)), signal)
    assert plan.keep.tolist() == [1, 3, 6, 9]
    assert plan.source is None


def test_the_layers_below_forget_what_left(rows, signal):
    some = rows()
    assert PruneVidInner().plan(some, signal(some)).cut_caches


def test_steps_of_two_streams_are_two_steps(rows):
    some = rows(1, (1, 4))
    place = some.place.clone()
    place[2:, :2] = torch.tensor([1, 1])
    signal = torch.tensor([0.9, 0.8, 0.2, 0.1])
    plan = PruneVidInner(keep=0.5).plan(replace(some, place=place), signal)
    assert plan.keep.tolist() == [0, 2]


@pytest.mark.parametrize("keep", [0.01, 0.1, 0.4, 0.77])
@pytest.mark.parametrize("counts", [(1,), (1, 1, 1), (12, 1, 7, 0, 3), (40, 40, 40)])
def test_the_budget_is_met_exactly_and_fairly(rows, signal, keep, counts):
    some = uneven(rows, counts)
    kept = PruneVidInner(keep=keep).plan(some, signal(some)).keep
    assert len(kept) == max(1, round(keep * sum(counts)))
    each = some.place[kept, 1].bincount(minlength=len(counts)).tolist()
    assert all(abs(found - keep * count) < 1 for found, count in zip(each, counts, strict=True))


@pytest.mark.parametrize(("depth", "layer"), [(32, 10), (28, 9), (5, 2), (2, 1)])
def test_its_layer_is_the_published_one_at_that_depth(depth, layer):
    assert PruneVidInner().layers(depth, 0) == (layer,)


def test_golden_rows(rows, signal):
    some = rows(9)
    kept = PruneVidInner().plan(some, signal(some)).keep
    assert (kept[:6].tolist(), int(kept.sum())) == ([0, 3, 5, 7, 10, 12], 2193)
