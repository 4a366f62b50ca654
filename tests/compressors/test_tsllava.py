from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamvlm.compressors.pool import Pool
from streamvlm.compressors.tsllava import TSLLaVA
from streamvlm.compressors.uniform import Uniform


def test_a_case_computed_by_hand(clip):
    # 6 of 16, half of them for a thumbnail of step 2. A 2×2 frame is made small in proportion as
    # 1×2: the columns {8, 10} and {9, 11}, whose upper tokens stand for them. The other four are
    # the middles of four stretches of the 14 left, 0–7 and 10–15: numbers 1, 5, 8 and 12 of them.
    tokens = clip((4, 2, 2), width=1)
    tokens = replace(tokens, features=torch.arange(16.0)[:, None])
    out = TSLLaVA(keep=6 / 16, frames=1, thumbnail=0.5)(tokens)
    assert out.flat_index.tolist() == [1, 5, 8, 9, 10, 14]
    # 10 is sampled: it counts by itself, and 8 stands alone.
    assert out.features.flatten().tolist() == [1, 5, 8, 10, 10, 14]
    assert out.weight.tolist() == [1, 1, 1, 2, 1, 1]


@pytest.mark.parametrize("steps", [1, 2, 7, 8, 9, 33])
@pytest.mark.parametrize("keep", [0.01, 0.05, 0.1, 0.46, 0.8, 0.99])
@pytest.mark.parametrize("thumbnail", [0, 1 / 6, 1])
def test_the_budget_is_met_exactly(clip, steps, keep, thumbnail):
    for frame in ((5, 7), (1, 9), (9, 1)):
        tokens = clip((steps, *frame), "scenes")
        out = TSLLaVA(keep=keep, thumbnail=thumbnail)(tokens)
        assert len(out) == max(1, round(keep * len(tokens)))


def test_six_evenly_spaced_steps_become_thumbnails_of_one_shape(clip):
    # 216 of 864 tokens, 36 of them for thumbnails: 2×3 of each of six steps.
    out = TSLLaVA()(clip((24, 6, 6)))
    merged = out.position[out.weight > 1]
    steps, counts = merged[:, 0].unique(return_counts=True)
    assert steps.tolist() == [2, 6, 10, 14, 18, 22]
    assert counts.tolist() == [6] * 6
    assert merged[:, 1].unique().numel() == 2
    assert merged[:, 2].unique().numel() == 3


@pytest.mark.parametrize(("steps", "frames", "found"), [(24, 3, 3), (4, 6, 4), (2, 9, 2)])
def test_there_are_as_many_thumbnails_as_asked_if_there_are_so_many_steps(
    clip, steps, frames, found
):
    out = TSLLaVA(frames=frames)(clip((steps, 9, 9)))
    assert len(out.position[out.weight > 1, 0].unique()) == found


def test_a_small_budget_has_fewer_thumbnails_of_one_token(clip):
    # 24 tokens, 4 of them for thumbnails: four frames, a token each.
    out = TSLLaVA(keep=24 / 360)(clip((10, 6, 6)))
    # Two tokens of each of these frames are sampled and count by themselves.
    assert sorted(out.weight.tolist())[-5:] == [1, 34, 34, 34, 34]


@pytest.mark.parametrize("frame", [(9, 1), (1, 9), (3, 3)])
def test_thumbnails_take_no_more_than_their_share(clip, frame):
    # 8 of 18 tokens, half of them for two thumbnails, in each of which two cells have room.
    out = TSLLaVA(keep=8 / 18, frames=2, thumbnail=0.5)(clip((2, *frame)))
    assert out.position[out.weight > 1, 0].tolist() == [0, 0, 1, 1]


def test_thumbnails_alone_are_pooled_frames(clip):
    tokens = clip((9, 6, 6), "scenes")
    # All of the budget, 18 tokens, for two frames: 3×3 each.
    out = TSLLaVA(keep=18 / 324, frames=2, thumbnail=1)(tokens)
    chosen = tokens.select((tokens.position[:, 0] == 2) | (tokens.position[:, 0] == 6))
    pooled = Pool(keep=18 / 72)(chosen)
    assert torch.equal(out.position, pooled.position)
    torch.testing.assert_close(out.features, pooled.features)
    assert torch.equal(out.weight, pooled.weight)


def test_without_a_thumbnail_it_is_uniform(clip):
    tokens = clip((9, 5, 7))
    out, uniform = TSLLaVA(keep=0.3, thumbnail=0)(tokens), Uniform(keep=0.3)(tokens)
    assert torch.equal(out.features, uniform.features)


def test_every_step_has_its_part_of_the_sample(clip):
    tokens = clip((20, 6, 6))
    out = TSLLaVA(keep=0.25)(tokens)
    # 180 tokens, 24 in thumbnails of 2×2; 156 are sampled from 20 steps.
    sampled = out.position[out.weight == 1, 0].bincount(minlength=20)
    assert sampled.sum() == 156
    assert sampled.min() >= 6
    assert sampled.max() <= 9
    assert torch.equal(
        out.features[out.weight == 1], tokens.features[out.flat_index[out.weight == 1]]
    )


def test_every_token_of_a_thumbnail_counts_once(clip):
    tokens = clip((6, 5, 7), "scenes")
    tokens = replace(tokens, weight=torch.arange(len(tokens)) % 3 + 1.0)
    out = TSLLaVA(keep=0.5)(tokens)
    assert out.weight.sum() == tokens.weight.sum()
    total = tokens.weight @ tokens.features
    torch.testing.assert_close(out.weight @ out.features, total, atol=1e-3, rtol=1e-4)


def test_the_head_of_a_cell_is_its_middle_token(clip):
    out = TSLLaVA(keep=1 / 9, frames=2, thumbnail=1)(clip((2, 3, 6)))
    assert out.position.tolist() == [[0, 1, 1], [0, 1, 4], [1, 1, 1], [1, 1, 4]]
    assert out.seconds.tolist() == [0, 0, 0.5, 0.5]


def test_cells_without_tokens_leave_more_to_sample(clip):
    dense = clip((2, 4, 4))
    left = dense.select((dense.position[:, 1] < 2).nonzero().flatten())
    out = TSLLaVA(keep=0.5, thumbnail=1)(left)
    assert len(out) == 8
    assert (out.position[:, 1] < 2).all()
    assert out.weight.sum() == 16


def test_golden_numbers(clip):
    out = TSLLaVA(keep=0.2, frames=2, thumbnail=0.5)(clip((4, 3, 5), "scenes", width=2))
    assert out.flat_index.tolist() == [4, 13, 20, 22, 24, 25, 34, 43, 50, 52, 54, 55]
    assert out.weight.tolist() == [1, 1, 5, 3, 6, 1, 1, 1, 5, 3, 6, 1]
    merged = torch.tensor([[-0.2565, 0.0714], [0.6769, 0.136], [0.1148, -0.66]])
    torch.testing.assert_close(out.features[2:5], merged, atol=1e-4, rtol=0)


@pytest.mark.parametrize("options", [{"frames": 0}, {"thumbnail": -0.1}, {"thumbnail": 1.1}])
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        TSLLaVA(**options)
