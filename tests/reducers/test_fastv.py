import pytest
import torch

from streamvlm.reducers.fastv import FastV


def test_it_keeps_what_the_last_token_looks_at_most(rows):
    # round(0.5 · 6) = 3 of 6: the scores 0.9, 0.5 and the first of the two 0.3.
    signal = torch.tensor([0.1, 0.5, 0.3, 0.3, 0.9, 0.2])
    plan = FastV(keep=0.5).plan(rows(1, (1, 6)), signal)
    assert plan.keep.tolist() == [1, 2, 4]
    assert plan.source is None
    assert not plan.cut_caches


@pytest.mark.parametrize(
    ("depth", "lowest", "layer"), [(32, 0, 3), (28, 0, 3), (5, 0, 1), (2, 0, 1), (36, 4, 4)]
)
def test_its_layer_is_the_published_one_at_that_depth(depth, lowest, layer):
    assert FastV().layers(depth, lowest) == (layer,)


def test_golden_rows(rows, signal):
    some = rows(9)
    kept = FastV().plan(some, signal(some)).keep
    assert len(kept) == round(0.222 * 108)
    assert (kept[:6].tolist(), int(kept.sum())) == ([5, 18, 26, 27, 29, 31], 1329)
