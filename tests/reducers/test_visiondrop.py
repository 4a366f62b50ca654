from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from streamvlm.models._merging import merged
from streamvlm.reducers.visiondrop import VisionDrop


def test_the_defaults_give_the_published_numbers(rows, signal):
    some = rows(1, (1, 48), depth=32, layer=8)
    for layer, dominant, contextual in ((8, 30, 5), (16, 22, 4), (24, 16, 3)):
        now = replace(some, layer=layer)
        plan = VisionDrop().plan(now, signal(now))
        assert len(plan.keep) == dominant + contextual
        assert len(plan.target.unique()) <= contextual
        some = replace(
            now,
            hidden=merged(now.hidden, plan),
            place=now.place[plan.keep],
            weight=now.weight[plan.keep],
        )


def test_the_rest_is_merged_into_rows_at_even_steps(rows):
    # round(0.5 · 8) = 4 stay: 2 dominant, rows 1 and 6, and 2 contextual. The rest is rows 0, 2,
    # 3, 4, 5 and 7, every third of which is a head: 0 and 4. Rows 2 and 5 point as row 0, rows 3
    # and 7 as row 4; row 5 stands for two: (6 + 3 + 2 · 9) / 4 = 6.75, and (3 + 6 + 6) / 3 = 5.
    hidden = torch.tensor([[6.0, 0], [1, 1], [3, 0], [0, 6], [0, 3], [9, 0], [1, 1], [0, 6]])
    signal = torch.tensor([0.1, 0.9, 0.1, 0.1, 0.1, 0.1, 0.8, 0.1])
    weight = torch.tensor([1.0, 1, 1, 1, 1, 2, 1, 1])
    some = replace(rows(1, (1, 8)), hidden=hidden, weight=weight)
    plan = VisionDrop(keep=0.5, contextual=0.5, stages=(2,)).plan(some, signal)
    assert plan.keep.tolist() == [0, 1, 4, 6]
    assert plan.target.tolist() == [0, 4, 0, 4]
    torch.testing.assert_close(
        merged(hidden, plan), torch.tensor([[6.75, 0], [1, 1], [0, 5], [1, 1]])
    )


def one_by_one(some, signal, count, contextual):
    """The same as a loop over rows, in float64."""
    order = signal.argsort(descending=True, stable=True).tolist()
    dominant = order[: count - contextual]
    rest = [row for row in range(len(some)) if row not in dominant]
    heads = rest[:: len(rest) // contextual][:contextual]
    unit = F.normalize(some.hidden.double(), dim=1)
    members = {head: [head] for head in heads}
    for row in rest:
        if row not in heads:
            members[max(heads, key=lambda head: float(unit[head] @ unit[row]))].append(row)
    kept = sorted([*dominant, *heads])
    return kept, torch.stack(
        [some.hidden.double()[members.get(row, [row])].mean(0) for row in kept]
    )


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize("steps", [1, 8, 9, 33])
def test_it_equals_a_loop_over_rows(rows, signal, kind, steps):
    some = rows(steps, kind=kind)
    given = signal(some)
    count = round(0.73 * len(some))
    kept, expected = one_by_one(some, given, count, round(0.15 * count))
    plan = VisionDrop().plan(some, given)
    assert plan.keep.tolist() == kept
    torch.testing.assert_close(merged(some.hidden, plan).double(), expected, rtol=0, atol=1e-5)


def test_without_contextual_rows_the_rest_is_dropped(rows, signal):
    some = rows()
    plan = VisionDrop(contextual=0.0).plan(some, signal(some))
    assert plan.source is None
    assert len(plan.keep) == round(0.73 * len(some))


@pytest.mark.parametrize("contextual", [-0.1, 1.0])
def test_contextual_must_leave_room_for_dominant_rows(contextual):
    with pytest.raises(ValueError, match="contextual must be"):
        VisionDrop(contextual=contextual)


def test_golden_rows(rows, signal):
    some = rows(9, layer=6)
    plan = VisionDrop().plan(some, signal(some))
    assert (plan.keep[:6].tolist(), int(plan.keep.sum())) == ([0, 1, 3, 5, 7, 12], 2207)
    sums = merged(some.hidden, plan).sum(0)[:4]
    torch.testing.assert_close(
        sums, torch.tensor([-9.7451, -0.0612, 0.405, 17.0398]), rtol=0, atol=1e-3
    )
