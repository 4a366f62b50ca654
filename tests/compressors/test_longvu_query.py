from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamvlm.compressors.longvu_query import LongVUQuery
from streamvlm.compressors.pool import Pool
from streamvlm.errors import ConfigError


def asked(tokens, scores):
    """Steps of these mean likenesses to a question of two words."""
    cue = torch.tensor(scores)[tokens.position[:, 0]]
    return replace(tokens, cues={"question": torch.stack([cue - 0.1, cue + 0.1], 1)})


def per_step(tokens) -> list[int]:
    return tokens.position[:, 0].bincount(minlength=tokens.grid[0]).tolist()


def test_a_case_by_hand(clip):
    # 32 of 64 tokens, 16 of them for the best frame; the three others share 16: 5 each, a grid 2×2.
    tokens = asked(clip((4, 4, 4)), [0.1, 0.0, 0.3, 0.2])
    out = LongVUQuery(keep=0.5)(tokens)
    assert per_step(out) == [4, 4, 16, 4]
    assert out.weight.tolist() == [4.0] * 8 + [1.0] * 16 + [4.0] * 4
    frame = tokens.features.view(4, 2, 2, 2, 2, 16)  # step, row cell, row, column cell, column
    torch.testing.assert_close(out.features[:4], frame[0].mean((1, 3)).view(4, 16))
    assert torch.equal(out.features[8:24], tokens.features[32:48])


def test_frames_without_a_bearing_are_those_of_pool(clip):
    tokens = asked(clip((6, 4, 4)), [0.0, 0.5, 0.1, 0.2, 0.3, 0.4])
    out = LongVUQuery(keep=1 / 3, detail=0.5)(tokens)
    others = tokens.select(tokens.position[:, 0] != 1)
    pooled = Pool(keep=16 / 80)(others)
    small = out.select(out.position[:, 0] != 1)
    assert torch.equal(small.features, pooled.features)
    assert torch.equal(small.position, pooled.position)


@pytest.mark.parametrize(
    ("detail", "whole"), [(0, 0), (0.2, 0), (0.25, 1), (0.5, 2), (0.99, 3), (1, 4)]
)
def test_so_many_frames_stay_whole_as_fit_into_their_part(clip, detail, whole):
    tokens = asked(clip((8, 4, 4)), [0.0, 0.3, 0.1, 0.5, 0.2, 0.4, 0.7, 0.6])
    shares = per_step(LongVUQuery(keep=0.5, detail=detail)(tokens))
    best = sorted(range(8), key=[0.0, 0.3, 0.1, 0.5, 0.2, 0.4, 0.7, 0.6].__getitem__)[::-1]
    assert {step for step in range(8) if shares[step] == 16} == set(best[:whole])


def test_nothing_is_lost_while_frames_are_pooled(clip):
    tokens = asked(clip((5, 5, 7)), [0.0, 0.1, 0.2, 0.1, 0.0])
    out = LongVUQuery(keep=0.4)(tokens)
    assert out.weight.sum() == len(tokens)
    total = (out.features * out.weight[:, None]).sum(0)
    torch.testing.assert_close(total, tokens.features.sum(0), atol=1e-3, rtol=1e-4)


def test_of_equal_frames_the_first_stay_whole(clip):
    tokens = asked(clip((4, 4, 4)), [0.0] * 4)
    assert per_step(LongVUQuery(keep=0.5)(tokens))[0] == 16


def test_a_budget_without_room_for_a_frame_pools_all(clip):
    tokens = asked(clip((4, 4, 4)), [0.0, 0.5, 0.1, 0.2])
    small, pooled = LongVUQuery(keep=0.1)(tokens), Pool(keep=0.1)(tokens)
    assert torch.equal(small.features, pooled.features)


def test_without_a_question_it_says_what_is_missing(clip):
    with pytest.raises(ConfigError, match="'question' is missing"):
        LongVUQuery()(clip((2, 3, 3)))


@pytest.mark.parametrize("detail", [-0.1, 1.1])
def test_a_share_out_of_range_is_refused(detail):
    with pytest.raises(ValueError, match="detail must be"):
        LongVUQuery(detail=detail)


def test_golden(clip):
    tokens = clip((8, 3, 4), "scenes", cues=["question"], seed=3)
    out = LongVUQuery(keep=0.4)(tokens)
    assert out.flat_index.tolist() == GOLDEN
    assert out.features.sum(1)[:3].tolist() == pytest.approx(SUMS, abs=1e-4)


GOLDEN = [
    4,
    6,
    16,
    18,
    28,
    30,
    40,
    42,
    52,
    54,
    64,
    66,
    72,
    73,
    74,
    75,
    76,
    77,
    78,
    79,
    80,
    81,
    82,
    83,
    88,
    90,
]
SUMS = [-0.4787, -1.1231, 0.1226]
