"""Stored tokens are compared with the words of a question, in every family."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from streamvlm import plugins
from streamvlm.models._question import _AT_ONCE, compared
from streamvlm.types import VisualTokens
from tests.models.tiny import FAMILIES

TEXT = "what colour is the star ?"


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.plugin)
def model(request, tmp_path_factory):
    tiny = request.param
    folder = tiny.save(tmp_path_factory.mktemp("question") / tiny.plugin)
    return plugins.find("models", tiny.plugin)(weights=str(folder), **tiny.options)


def test_the_cue_is_the_cosine_with_each_word_as_the_model_reads_it(model, clip):
    tokens = model.encode(clip(frames=4))
    asked = model.with_question(tokens, TEXT)
    words = model._voice.tokenizer.encode(TEXT, add_special_tokens=False)
    table = model.network.get_input_embeddings().weight.detach()
    expected = F.cosine_similarity(tokens.features[:, None], table[words][None], dim=2)
    cue = asked.cues["question"]
    assert cue.shape == (len(tokens), len(words))
    assert cue.dtype is torch.float32
    torch.testing.assert_close(cue, expected)
    assert torch.equal(asked.without_cues().features, tokens.features)


def test_a_word_itself_is_nearest_to_itself(model, clip):
    tokens = model.encode(clip(frames=2))
    words = model._voice.tokenizer.encode(TEXT, add_special_tokens=False)
    vector = model.network.get_input_embeddings().weight.detach()[words[-1]]
    tokens = replace(tokens, features=torch.cat([vector[None] * 3, tokens.features[1:]]))
    cue = model.with_question(tokens, TEXT).cues["question"]
    assert cue[0, -1].item() == pytest.approx(1, abs=1e-5)
    assert cue[0].max() == cue[0, -1]


def test_the_name_of_a_special_token_in_a_question_is_only_text(model, clip):
    tokens = model.encode(clip(frames=2))
    special = model._voice.tokenizer.convert_ids_to_tokens(model._template._slot)
    cue = model.with_question(tokens, special).cues["question"]
    slot = model.network.get_input_embeddings().weight.detach()[model._template._slot]
    as_slot = F.cosine_similarity(tokens.features, slot[None], dim=1)
    assert not any(torch.allclose(word, as_slot) for word in cue.T)


def test_a_zero_vector_is_like_no_word_and_other_cues_stay(model, clip):
    tokens = model.encode(clip(frames=2))
    tokens = replace(
        tokens, features=tokens.features * 0, cues={"keys": torch.ones(len(tokens), 2)}
    )
    asked = model.with_question(tokens, TEXT)
    assert asked.cues["question"].abs().max() == 0
    assert torch.equal(asked.cues["keys"], tokens.cues["keys"])


def test_many_tokens_are_compared_in_parts_and_in_order(clip):
    dice = torch.Generator().manual_seed(0)
    features = torch.randn(2 * _AT_ONCE + 3, 2, generator=dice).half()
    embedding = torch.nn.Embedding.from_pretrained(torch.eye(2))
    count = len(features)
    tokens = VisualTokens(
        model="test",
        features=features,
        position=torch.cartesian_prod(torch.arange(count), torch.arange(1), torch.arange(1)),
        seconds=torch.zeros(count, dtype=torch.float64),
        grid=(count, 1, 1),
        weight=torch.ones(count),
    )
    cue = compared(tokens, torch.tensor([1, 0]), embedding).cues["question"]
    expected = F.normalize(features.float(), dim=1).flip(1)
    torch.testing.assert_close(cue, expected)
