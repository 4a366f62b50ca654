from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from streamvlm.compressors.mmtok import MMTok
from streamvlm.errors import ConfigError


def greedy(features, question, count: int, alpha=0.5, text=0.02, vision=0.2) -> list[int]:
    """The sheet's algorithm as it stands there, in float64: rows [P; α·Q], every gain each time."""
    n, m = question.shape
    unit = torch.nn.functional.normalize(features.double(), dim=1)
    rows = [(question[:, word].double() / text).softmax(0) / m for word in range(m)]
    rows += [alpha * (unit @ unit[token] / vision).softmax(0) / n for token in range(n)]
    whole = torch.stack(rows)
    covered, chosen = torch.zeros(m + n), []
    for _ in range(count):
        gains = (whole - covered[:, None]).clamp(min=0).sum(0)
        gains[chosen] = -1
        best = int(gains.argmax())
        chosen.append(best)
        covered = torch.maximum(covered, whole[:, best])
    return sorted(chosen)


@pytest.mark.parametrize("kind", ["noise", "scenes"])
@pytest.mark.parametrize(
    ("steps", "keep"), [(8, 0.3), (9, 0.25), (32, 0.1), (33, 0.1), (128, 0.02)]
)
def test_the_choice_is_the_plain_greedy_one(clip, kind, steps, keep):
    tokens = clip((steps, 2, 3), kind, width=8, cues=["question"])
    tokens = replace(tokens, features=tokens.features.double())
    expected = greedy(tokens.features, tokens.cues["question"], round(keep * len(tokens)))
    assert MMTok(keep=keep)(tokens).flat_index.tolist() == expected


def small(clip):
    """Two equal tokens and another; the one word is nearest the second."""
    tokens = clip((3, 1, 1), width=2, cues=["question"])
    features = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    return replace(
        tokens, features=features, cues={"question": torch.tensor([[1.0], [2], [1]]).log()}
    )


def test_a_case_by_hand(clip):
    # exp(cos / temperature) is 2 for equal tokens and 1 for others. The word's row is [1 2 1] / 4,
    # a first or second token's 0.6 / 3 · [2 2 1] / 5 = [.08 .08 .04], the third's [.05 .05 .10].
    # Sums over rows: .46, .71, .43. Then the first adds nothing, the third .10 − .05.
    compress = MMTok(keep=2 / 3, vision=0.6, word_temperature=1, token_temperature=1 / math.log(2))
    assert replace(compress, keep=1 / 3)(small(clip)).flat_index.tolist() == [1]
    assert compress(small(clip)).flat_index.tolist() == [1, 2]


def test_the_question_decides_what_a_small_budget_is_spent_on(clip):
    tokens = clip((4, 3, 3), cues=["question"])
    for wanted in (0, 17, 35):
        question = torch.zeros(len(tokens), 2)
        question[wanted, 1] = 0.5
        asked = replace(tokens, cues={"question": question})
        assert wanted in MMTok(keep=2 / 36)(asked).flat_index


def test_of_equal_tokens_one_is_enough(clip):
    tokens = clip((1, 3, 4), cues=["question"])
    looks = torch.eye(16)[torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 3])]
    tokens = replace(tokens, features=looks, cues={"question": torch.zeros(12, 3)})
    assert MMTok(keep=4 / 12)(tokens).flat_index.tolist() == [0, 4, 8, 11]


def test_a_token_that_stands_for_many_is_covered_first(clip):
    tokens = clip((1, 1, 4), cues=["question"])
    tokens = replace(tokens, features=torch.eye(16)[:4], cues={"question": torch.zeros(4, 1)})
    assert MMTok(keep=0.25)(tokens).flat_index.tolist() == [0]
    heavy = replace(tokens, weight=torch.tensor([1.0, 1, 5, 1]))
    assert MMTok(keep=0.25)(heavy).flat_index.tolist() == [2]


def test_the_budget_is_exact_with_any_blocks(clip):
    tokens = clip((7, 5, 7), cues=["question"])
    for block in (1, 10, 100, 244, 245, 10**9):
        for keep in (0.001, 0.1, 0.37, 0.99):
            assert len(MMTok(keep=keep, block=block)(tokens)) == max(1, round(keep * 245))


def test_blocks_are_chosen_from_one_by_one(clip):
    tokens = clip((6, 2, 3), cues=["question"])
    whole = MMTok(keep=1 / 3, block=18)(tokens).flat_index.tolist()
    halves = [tokens.select(torch.arange(start, start + 18)) for start in (0, 18)]
    expected = [MMTok(keep=1 / 3)(half).flat_index.tolist() for half in halves]
    assert whole == expected[0] + expected[1]


def test_a_question_without_words_leaves_the_picture(clip):
    tokens = replace(clip((2, 3, 3)), cues={"question": torch.zeros(18, 0)})
    assert len(MMTok(keep=0.5)(tokens)) == 9


def test_without_a_question_it_says_what_is_missing(clip):
    with pytest.raises(ConfigError, match="'question' is missing"):
        MMTok(keep=0.5)(clip((2, 3, 3)))


@pytest.mark.parametrize("option", ["vision", "word_temperature", "token_temperature", "block"])
def test_options_out_of_range_are_refused(option):
    with pytest.raises(ValueError, match=f"{option} must be"):
        MMTok(**{option: 0})


def test_golden(clip):
    tokens = clip((8, 3, 4), "scenes", cues=["question"], seed=3)
    assert MMTok(keep=0.1)(tokens).flat_index.tolist() == GOLDEN


GOLDEN = [4, 8, 13, 39, 48, 59, 65, 66, 90, 95]
