from __future__ import annotations

from dataclasses import replace

import torch

from streamvlm.memory.thin import foremost


def test_the_foremost_by_rank_come_in_time_order(record):
    tokens = record(0, num_tokens=5).tokens
    ranked = replace(tokens, rank=torch.tensor([7, 0, 9, 3, 8]))
    out = foremost(ranked, 3)
    assert torch.equal(out.features, tokens.features[torch.tensor([0, 1, 3])])
    assert out.rank.tolist() == [7, 0, 3]


def test_without_ranks_an_even_part_is_taken(record):
    tokens = record(0, num_tokens=9).tokens
    assert torch.equal(foremost(tokens, 3).features, tokens.features[torch.tensor([0, 4, 8])])


def test_all_are_the_same_tokens(record):
    tokens = record(0, num_tokens=4).tokens
    assert foremost(tokens, 4) is tokens
