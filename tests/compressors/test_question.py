from __future__ import annotations

from dataclasses import replace

import torch

from streamvlm.compressors._question import relevance


def test_a_word_that_all_tokens_are_near_says_nothing(clip):
    # Means .8 and .1: the first stands out by .1 for one word, the third by .2 for the other.
    cue = torch.tensor([[0.9, 0.0], [0.8, 0.0], [0.7, 0.3], [0.8, 0.1]])
    tokens = replace(clip((1, 2, 2)), cues={"question": cue})
    expected = torch.tensor([0.1, 0.0, 0.2, 0.0])
    torch.testing.assert_close(relevance(tokens), expected, atol=1e-6, rtol=0)


def test_without_words_or_tokens_there_is_nothing_to_stand_out(clip):
    silent = replace(clip((1, 2, 2)), cues={"question": torch.zeros(4, 0)})
    assert relevance(silent).tolist() == [0, 0, 0, 0]
    assert relevance(clip((0, 2, 2), cues=["question"])).shape == (0,)
