from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from streamvlm.models._merging import merged
from streamvlm.reducers.holitom import HoliTomInner


def test_what_leaves_is_halved_into_its_like_one_after_the_other(rows):
    # Kept are rows 0 and 3. Rows 1 and 4 point as row 0 does, rows 2 and 5 as row 3:
    # ((8 + 4) / 2 + 2) / 2 = 4 and ((16 + 8) / 2 + 4) / 2 = 8.
    hidden = torch.tensor([[8.0, 0], [4, 0], [0, 8], [0, 16], [2, 0], [0, 4]])
    signal = torch.tensor([0.9, 0.1, 0.1, 0.8, 0.1, 0.1])
    some = replace(rows(1, (1, 6)), hidden=hidden)
    plan = HoliTomInner(keep=1 / 3).plan(some, signal)
    assert plan.keep.tolist() == [0, 3]
    assert plan.source.tolist() == [1, 2, 4, 5]
    assert plan.target.tolist() == [0, 3, 0, 3]
    assert plan.share.tolist() == [0.25, 0.25, 0.5, 0.5]
    assert merged(hidden, plan).tolist() == [[4.0, 0], [0, 8]]


def one_by_one(hidden, signal, keep):
    """The published merge, a loop over what leaves, in float64."""
    kept = signal.argsort(descending=True, stable=True)[: round(keep * len(signal))].sort().values
    out = hidden.double().clone()
    unit = F.normalize(out, dim=1)
    for row in range(len(hidden)):
        if row not in kept:
            into = kept[(unit[kept] @ unit[row]).argmax()]
            out[into] = (out[into] + hidden[row]) / 2
    return kept, out[kept]


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize("keep", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("steps", [1, 8, 33])
def test_it_equals_the_loop_over_what_leaves(rows, signal, kind, keep, steps):
    some = rows(steps, kind=kind)
    given = signal(some)
    if round(keep * len(some)) == 0:
        return
    kept, expected = one_by_one(some.hidden, given, keep)
    plan = HoliTomInner(keep=keep).plan(some, given)
    assert torch.equal(plan.keep, kept)
    torch.testing.assert_close(merged(some.hidden, plan).double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("depth", "layer"), [(28, 18), (32, 21), (5, 3), (2, 1)])
def test_its_layer_is_the_published_one_at_that_depth(depth, layer):
    assert HoliTomInner().layers(depth, 0) == (layer,)


def test_golden_rows(rows, signal):
    some = rows(9)
    plan = HoliTomInner().plan(some, signal(some))
    assert (plan.keep[:6].tolist(), int(plan.keep.sum())) == ([0, 3, 5, 7, 8, 10], 2987)
    sums = merged(some.hidden, plan).sum(0)[:4]
    torch.testing.assert_close(
        sums, torch.tensor([-15.0835, 0.3255, 5.6593, 19.7142]), rtol=0, atol=1e-3
    )
