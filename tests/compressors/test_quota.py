from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from streamvlm.compressors.quota import Quota
from streamvlm.errors import ConfigError


def asked(tokens, scores):
    """One token of each step stands out so much; a second word that none is near."""
    cue = torch.zeros(len(tokens), 2)
    for step, score in enumerate(scores):
        cue[(tokens.position[:, 0] == step).nonzero()[0], 0] = score
    return replace(tokens, cues={"question": cue})


def per_step(tokens) -> list[int]:
    return tokens.position[:, 0].bincount(minlength=tokens.grid[0]).tolist()


def test_a_case_by_hand(clip):
    # Weights 1 : 2 : 4 of 14 tokens, 16 in each step; then of 24, where the last is full at 13.7.
    # Of 42, 24 would go to the last, which takes 16; the others share 26 as 8.67 and 17.3, so the
    # second is full too, and the first takes what is left.
    tokens = asked(clip((3, 4, 4)), [math.log(n) / 10 for n in (1, 2, 4)])
    compress = Quota(keep=14 / 48, temperature=0.1)
    assert per_step(compress(tokens)) == [2, 4, 8]
    assert per_step(replace(compress, keep=0.5)(tokens)) == [3, 7, 14]
    assert per_step(replace(compress, keep=42 / 48)(tokens)) == [10, 16, 16]


def test_within_a_step_the_tokens_are_evenly_spaced(clip):
    tokens = asked(clip((1, 1, 12)), [0])
    assert Quota(keep=0.25)(tokens).position[:, 2].tolist() == [2, 6, 10]
    # What is left of a step is spaced, not the places: of 0 1 2 9 10 11 it is the 2nd and the 5th.
    left = tokens.select(torch.tensor([0, 1, 2, 9, 10, 11]))
    assert Quota(keep=1 / 3)(left).position[:, 2].tolist() == [1, 10]


@pytest.mark.parametrize("keep", [0.01, 0.1, 0.37, 0.5, 0.99])
def test_the_budget_is_exact_whatever_the_scores(clip, keep):
    for scores in ([0] * 9, [0, 1] * 4 + [0], [9] + [0] * 8):
        tokens = asked(clip((9, 3, 5)), scores)
        out = Quota(keep=keep)(tokens)
        assert len(out) == max(1, round(keep * 135))
        assert max(per_step(out)) <= 15


def test_the_frame_that_the_question_is_about_gets_the_most(clip):
    for wanted in range(4):
        tokens = asked(clip((4, 4, 4)), [0.1 * (step == wanted) for step in range(4)])
        shares = per_step(Quota(keep=0.25)(tokens))
        assert shares[wanted] > 2 * max(
            share for step, share in enumerate(shares) if step != wanted
        )


def test_a_high_temperature_shares_evenly_and_a_low_one_not_at_all(clip):
    tokens = asked(clip((4, 4, 4)), [0, 0.1, 0.2, 0.3])
    assert per_step(Quota(keep=0.25, temperature=1e6)(tokens)) == [4, 4, 4, 4]
    assert per_step(Quota(keep=0.25, temperature=1e-6)(tokens)) == [0, 0, 0, 16]
    # With room left in no wanted step, those without a word to say get the rest.
    assert per_step(Quota(keep=0.5, temperature=1e-6)(tokens))[3] == 16


def test_without_a_question_it_says_what_is_missing(clip):
    with pytest.raises(ConfigError, match="'question' is missing"):
        Quota()(clip((2, 3, 3)))


@pytest.mark.parametrize("temperature", [0, -1, math.inf, math.nan])
def test_a_temperature_out_of_range_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be"):
        Quota(temperature=temperature)


def test_golden(clip):
    tokens = clip((8, 3, 4), "scenes", cues=["question"], seed=3)
    assert Quota(keep=0.2)(tokens).flat_index.tolist() == GOLDEN


GOLDEN = [6, 14, 18, 22, 26, 30, 34, 38, 42, 46, 51, 57, 63, 69, 74, 78, 82, 87, 93]
