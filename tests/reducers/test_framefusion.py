from dataclasses import replace

import pytest
import torch

from streamvlm.models._merging import merged
from streamvlm.reducers.framefusion import FrameFusion


def one_place(rows, hidden, **facts):
    hidden = torch.tensor(hidden)
    known = {"layer": 0, "depth": 4, "alive": (), "total": len(hidden)}
    return replace(rows(len(hidden), (1, 1), **{**known, **facts}), hidden=hidden)


def test_runs_of_alike_rows_become_their_mean(rows):
    # Cosines 1, 0, 1: rows 1 and 3 join. All layers may read 0.5 · 4 · 4 = 8, so 2 each: just met.
    some = one_place(rows, [[1.0, 0], [3, 0], [0, 2], [0, 4]])
    plan = FrameFusion(cost=0.5).plan(some, None)
    assert (plan.keep.tolist(), plan.note) == ([0, 2], "done")
    assert merged(some.hidden, plan).tolist() == [[2, 0], [0, 3]]


def test_a_row_that_stands_for_more_counts_for_more(rows):
    some = one_place(rows, [[2.0, 0], [4, 0], [6, 0]])
    some = replace(some, weight=torch.tensor([1.0, 1, 2]))
    plan = FrameFusion().plan(some, None)
    assert merged(some.hidden, plan).tolist() == [[4.5, 0]]  # (2 + 4 + 2 · 6) / 4


def test_only_the_most_alike_join_when_the_budget_allows_more(rows):
    # 4 layers may read 0.75 · 4 · 4 = 12 rows, 3 each: one of the two that are alike joins.
    some = one_place(rows, [[1.0, 0], [1, 1], [5, 0], [5, 1]])
    plan = FrameFusion(cost=0.75).plan(some, None)
    assert (plan.keep.tolist(), plan.source.tolist(), plan.note) == ([0, 1, 2], [3], "done")


def test_when_few_are_alike_the_next_layer_prunes_to_the_cost_once(rows):
    some = one_place(rows, [[1.0, 0], [-1, 0], [1, 0], [-1, 0]])
    reducer = FrameFusion(cost=0.5)
    first = reducer.plan(some, None)
    assert (first.keep.tolist(), first.note) == ([0, 1, 2, 3], "prune")
    # Spent are 4 of 0.5 · 4 · 4 = 8; the other 3 layers may read 4 / 3 rows each.
    now = replace(some, layer=1, alive=(4,), note=first.note)
    second = reducer.plan(now, torch.tensor([0.1, 0.3, 0.5, 0.4]))
    assert (second.keep.tolist(), second.source, second.note) == ([2], None, "done")
    later = replace(now, layer=2, alive=(4, 1), note=second.note)
    assert reducer.plan(later, torch.rand(4)).keep.tolist() == [0, 1, 2, 3]


def test_neighbours_are_those_of_one_place_of_one_stream(rows):
    some = rows(4, (1, 1), layer=0, depth=4, alive=())
    some = replace(some, hidden=torch.ones(4, 2))
    for column in (0, 2, 3):  # another stream, row or column for every other
        place = some.place.clone()
        place[1::2, column] = 1
        plan = FrameFusion(cost=0.5).plan(replace(some, place=place), None)
        assert plan.keep.tolist() == [0, 1]
        assert plan.target.tolist() == [0, 1]


def one_by_one(some, similar):
    """One merge pass as a loop over places and time, in float64."""
    out, heads, last = {}, {}, {}
    hidden = some.hidden.double()
    for row, (stream, _, *cell) in enumerate(some.place.tolist()):
        key = (stream, *cell)
        before = last.get(key)
        alike = before is not None and float(
            torch.cosine_similarity(hidden[before], hidden[row], dim=0)
        )
        heads[key] = heads[key] if before is not None and alike >= similar else row
        out.setdefault(heads[key], []).append(row)
        last[key] = row
    kept = sorted(out)
    return kept, torch.stack([hidden[out[row]].mean(0) for row in kept])


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize("steps", [1, 8, 9, 33])
def test_merging_equals_a_loop_over_places_and_time(rows, kind, steps):
    some = rows(steps, kind=kind, layer=0, alive=(), depth=28)
    kept, expected = one_by_one(some, 0.6)
    plan = FrameFusion(cost=0.05).plan(some, None)
    assert plan.keep.tolist() == kept
    torch.testing.assert_close(merged(some.hidden, plan).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["noise", "scenes", "constant"])
@pytest.mark.parametrize("depth", [5, 28])
@pytest.mark.parametrize("cost", [0.3, 0.7])
def test_all_layers_together_read_what_the_cost_allows(rows, signal, kind, depth, cost):
    some = rows(33, kind=kind, depth=depth, layer=0, alive=())
    reducer, alive = FrameFusion(cost=cost), []
    for layer in reducer.layers(depth, 0):
        some = replace(some, layer=layer, alive=tuple(alive))
        plan = reducer.plan(some, signal(some) if layer else None)
        some = replace(
            some,
            hidden=merged(some.hidden, plan),
            place=some.place[plan.keep],
            weight=torch.ones(len(plan.keep)),
            note=plan.note,
        )
        alive.append(len(some))
    # Rows are whole, so each layer may be half a row off.
    assert sum(alive) == pytest.approx(cost * depth * 33 * 12, abs=depth)


@pytest.mark.parametrize("options", [{"similar": 1.5}, {"fewest": -0.1}])
def test_thresholds_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="similar must be −1 to 1, and fewest 0 to 1"):
        FrameFusion(**options)


def test_golden_rows(rows):
    some = rows(9, layer=0, alive=())
    plan = FrameFusion().plan(some, None)
    assert (len(plan.keep), int(plan.keep.sum()), plan.note) == (34, 1394, "")
    sums = merged(some.hidden, plan).sum(0)[:4]
    torch.testing.assert_close(
        sums, torch.tensor([-7.849, 0.8852, 4.1302, 8.5916]), rtol=0, atol=1e-3
    )
