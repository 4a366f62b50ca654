"""The contract of every reducer, run against every file in the folder.

Nothing here names a reducer: one more file in the folder is checked without a change here.
"""

import dataclasses
import pickle
import re
from dataclasses import replace

import pytest
import torch

from streamvlm import plugins
from streamvlm.models._merging import merged
from streamvlm.protocols import Reducer

FRAMES = ((3, 4), (1, 1), (1, 7))
STEPS = (1, 2, 7, 9)
SHARES = (0.02, 0.25, 0.5, 0.8, 1.0)
DEPTHS = ((2, 0), (5, 0), (28, 0), (28, 3), (32, 0), (48, 3))


@pytest.fixture(params=plugins.names("reducers"))
def plugin(request):
    return plugins.find("reducers", request.param)


def share_of(plugin, value):
    """The plug-in with its first option, the share, set."""
    return plugin(**{dataclasses.fields(plugin)[0].name: value})


def same(one, other):
    pairs = [(getattr(one, name), getattr(other, name)) for name in ("keep", "source", "target")]
    tensors = [*pairs, (one.share, other.share)]
    equal = [a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in tensors]
    return all(equal) and (one.note, one.cut_caches) == (other.note, other.cut_caches)


def assert_well_formed(plan, rows):
    every = torch.arange(len(rows))
    assert plan.keep.dtype == torch.int64
    assert 1 <= len(plan.keep) <= len(rows)
    assert torch.isin(plan.keep, every).all()
    assert (plan.keep.diff() > 0).all(), "not increasing or not unique"
    if plan.source is None:
        assert plan.target is None
        assert plan.share is None
        return
    assert plan.source.shape == plan.target.shape == plan.share.shape
    assert not torch.isin(plan.source, plan.keep).any(), "a row that stays is merged away"
    assert torch.isin(plan.target, plan.keep).all(), "merged into a row that leaves"
    assert len(plan.source.unique()) == len(plan.source), "a row goes into two"
    assert plan.share.dtype == torch.float32
    assert (plan.share >= 0).all()
    taken = torch.zeros(len(rows)).index_add(0, plan.target, plan.share)
    assert taken.max() <= 1 + 1e-6, "shares sum to more than 1"


def all_plans(reducer, rows, signal):
    """Every plan from the first of its layers to the last, as an engine asks for them."""
    alive, plans = [], []
    for layer in range(rows.depth):
        if layer in reducer.layers(rows.depth, rows.lowest):
            now = replace(rows, layer=layer, alive=tuple(alive))
            plan = reducer.plan(now, signal(now) if layer and reducer.wants != "none" else None)
            plans.append((now, plan))
            weight = now.weight
            if plan.source is not None:
                weight = weight.index_add(0, plan.target, weight[plan.source])
            rows = replace(
                now,
                hidden=merged(now.hidden, plan),
                place=now.place[plan.keep],
                weight=weight[plan.keep],
                note=plan.note,
            )
        alive.append(len(rows))
    return plans


def test_any_number_of_rows_any_share_any_depth(plugin, rows, signal):
    for steps in STEPS:
        for frame in FRAMES:
            for depth, lowest in DEPTHS[1:4]:
                for share in SHARES:
                    some = rows(steps, frame, depth=depth, lowest=lowest)
                    plans = all_plans(share_of(plugin, share), some, signal)
                    assert plans
                    for now, plan in plans:
                        assert_well_formed(plan, now)


def test_a_share_of_one_changes_nothing(plugin, rows, signal):
    for kind in ("noise", "scenes", "constant"):
        for now, plan in all_plans(share_of(plugin, 1.0), rows(kind=kind), signal):
            assert plan.keep.tolist() == list(range(len(now)))
            assert plan.source is None or not len(plan.source)
            assert not plan.cut_caches


def test_a_smaller_share_lets_more_leave(plugin, rows, signal):
    left = [
        len(all_plans(share_of(plugin, share), rows(9, depth=12), signal)[-1][1].keep)
        for share in (0.2, 0.5, 0.9)
    ]
    assert left[0] < left[1] < left[2]


def test_the_same_rows_give_the_same_plan_after_pickling_too(plugin, rows, signal):
    reducer = plugin()
    first = all_plans(reducer, rows(9), signal)
    torch.manual_seed(torch.initial_seed() + 1)
    for again in (reducer, pickle.loads(pickle.dumps(reducer))):
        second = all_plans(again, rows(9), signal)
        assert all(same(a, b) for (_, a), (_, b) in zip(first, second, strict=True))


def test_rows_and_signal_are_left_as_they_were(plugin, rows):
    for layer in plugin().layers(8, 0):
        some = replace(rows(9), layer=layer, alive=(108,) * layer)
        given = torch.rand(len(some)) if layer else None
        before = pickle.loads(pickle.dumps((some.hidden, some.place, some.weight, given)))
        plugin().plan(some, given)
        after = (some.hidden, some.place, some.weight, given)
        assert all(a is None or torch.equal(a, b) for a, b in zip(after, before, strict=True))


def test_constant_rows_and_equal_attention_stay_constant(plugin, rows):
    for hidden in (0.0, 1.0):
        some = rows(kind="constant")
        some = replace(some, hidden=some.hidden * hidden)
        for now, plan in all_plans(plugin(), some, lambda now: torch.ones(len(now))):
            assert_well_formed(plan, now)
            torch.testing.assert_close(merged(now.hidden, plan), now.hidden[: len(plan.keep)])


def test_half_precision_keeps_its_dtype_and_stays_finite(plugin, rows, signal):
    for dtype in (torch.float16, torch.bfloat16):
        some = rows()
        some = replace(some, hidden=some.hidden.to(dtype))
        for now, plan in all_plans(plugin(), some, signal):
            assert_well_formed(plan, now)
            out = merged(now.hidden, plan)
            assert out.dtype is dtype
            assert out.isfinite().all()
            assert out.abs().max() <= now.hidden.abs().max()


def test_rows_of_any_places_and_weights(plugin, rows, signal):
    """As a compressor leaves them: steps without rows, and rows that stand for several."""
    some = rows(9)
    index = (torch.rand(len(some), generator=torch.Generator().manual_seed(4)) < 0.3).nonzero()[
        :, 0
    ]
    some = replace(
        some,
        hidden=some.hidden[index],
        place=some.place[index],
        weight=1.0 + torch.arange(len(index)) % 5,
        total=len(index),
    )
    for now, plan in all_plans(plugin(), some, signal):
        assert_well_formed(plan, now)


def test_layers_are_increasing_and_inside_the_model(plugin):
    for depth, lowest in DEPTHS:
        layers = plugin().layers(depth, lowest)
        assert layers
        assert list(layers) == sorted(set(layers))
        assert lowest <= layers[0]
        assert layers[-1] < depth


def test_an_option_out_of_range_is_refused(plugin):
    for share in (0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match="must be more than 0 and at most 1"):
            share_of(plugin, share)
    names = {field.name for field in dataclasses.fields(plugin)}
    wrong = {"layer": (0, -1), "stages": ((0, 4), (4, 4), (5, 2), ("a",), 8)}
    for name in names & wrong.keys():
        for value in wrong[name]:
            with pytest.raises(ValueError, match="must be whole numbers from 1 on, increasing"):
                plugin(**{name: value})


def test_it_is_a_frozen_reducer_that_names_its_paper(plugin):
    assert plugin.__dataclass_params__.frozen
    assert isinstance(plugin(), Reducer)
    summary = (plugin.__doc__ or "").strip().splitlines()[0]
    assert re.search(r"\(.*\b(20\d\d|\d{4}\.\d{5})\b.*\)", summary), f"no paper: {summary}"


def test_layers_can_be_chosen(plugin):
    names = {field.name for field in dataclasses.fields(plugin)}
    if "layer" in names:
        assert plugin(layer=7).layers(28, 0) == (7,)
    if "stages" in names:
        assert plugin(stages=[3, 9]).layers(28, 0) == (3, 9)
