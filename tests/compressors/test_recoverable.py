from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from streamvlm.compressors.recoverable import Recoverable
from streamvlm.errors import ConfigError


def asked(tokens, likeness):
    return replace(tokens, cues={"question": torch.tensor(likeness)[:, None]})


def small(clip):
    """Two steps of four tokens that look along two axes."""
    tokens = clip((2, 2, 2), width=2)
    looks = torch.tensor([[4.0, 0], [0, 2], [1, 0.1], [0.1, 1], [5, 0], [5, 0], [0, 5], [0, 5]])
    return replace(tokens, features=looks)


def test_a_case_by_hand(clip):
    # Kept are the first two; the third joins the first, the fourth the second; step 1 is dropped.
    tokens = asked(small(clip), [0.9, 0.8, 0, 0, 0, 0, 0, 0])
    out = Recoverable(keep=0.25)(tokens)
    assert out.flat_index.tolist() == [0, 1]
    assert out.weight.tolist() == [2, 2]
    torch.testing.assert_close(out.features, torch.tensor([[2.5, 0.05], [0.05, 1.5]]))


def test_a_kept_token_counts_as_much_as_all_that_join_it(clip):
    # Three join one: (3·4 + 0 + 1 + .1) / 6 and (0 + 2 + .1 + 1) / 6.
    tokens = asked(small(clip), [0.9, 0, 0, 0, 0, 0, 0, 0])
    out = Recoverable(keep=1 / 8)(tokens)
    assert out.weight.tolist() == [4]
    torch.testing.assert_close(out.features, torch.tensor([[13.1 / 6, 3.1 / 6]]))
    # One that is heavier than what joins it counts by its weight: (7·4 + 1.1) / 10.
    heavy = replace(tokens, weight=torch.tensor([7.0, 1, 1, 1, 1, 1, 1, 1]))
    out = Recoverable(keep=1 / 8)(heavy)
    assert out.weight.tolist() == [10]
    torch.testing.assert_close(out.features, torch.tensor([[29.1 / 10, 3.1 / 10]]))


def test_what_the_question_asks_for_is_kept_wherever_it_is(clip):
    for wanted in ([3, 4], [0, 7], [5, 6]):
        likeness = [0.5 if place in wanted else 0.0 for place in range(8)]
        assert Recoverable(keep=0.25)(asked(small(clip), likeness)).flat_index.tolist() == wanted


def test_nothing_is_merged_over_time(clip):
    dense = clip((4, 3, 3), cues=["question"])
    tokens = replace(dense, deepstack=torch.eye(36)[:, None])
    out = Recoverable(keep=0.3)(tokens)
    counted = out.deepstack[:, 0].view(-1, 4, 9).sum(2)
    torch.testing.assert_close(counted, torch.eye(4)[out.position[:, 0]])
    lasting = torch.isin(dense.position[:, 0], out.position[:, 0])
    assert out.weight.sum() == lasting.sum()


def test_of_equal_tokens_the_earlier_are_kept(clip):
    tokens = asked(small(clip), [0.0] * 8)
    assert Recoverable(keep=3 / 8)(tokens).flat_index.tolist() == [0, 1, 2]


@pytest.mark.parametrize("keep", [0.01, 0.1, 0.37, 0.99])
def test_the_budget_is_exact(clip, keep):
    tokens = clip((7, 5, 7), cues=["question"])
    assert len(Recoverable(keep=keep)(tokens)) == max(1, round(keep * 245))


def test_without_a_question_it_says_what_is_missing(clip):
    with pytest.raises(ConfigError, match="'question' is missing"):
        Recoverable()(clip((2, 3, 3)))


def test_golden(clip):
    tokens = clip((8, 3, 4), "scenes", cues=["question"], seed=3)
    out = Recoverable(keep=0.1)(tokens)
    assert out.flat_index.tolist() == GOLDEN
    assert out.features.sum(1)[:3].tolist() == pytest.approx(SUMS, abs=1e-4)


GOLDEN = [12, 18, 23, 26, 35, 39, 59, 80, 81, 84]
SUMS = [0.7369, -0.0178, -1.1784]
