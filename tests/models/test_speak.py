"""How an answer is spoken: piece by piece, and no further than somebody listens."""

from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import DynamicCache, PreTrainedTokenizerFast, Qwen2Config

from streamvlm.errors import ModelError
from streamvlm.models._speak import Voice
from streamvlm.types import Query


@pytest.fixture
def asked(load, clip, evidence, question):
    """A model that has read its evidence, and a list that grows with every forward pass."""

    def make(**options):
        model, video = load(**options), clip()
        items = [evidence(model.encode(video), video)]
        list(model.answer(question, items))
        passes = []
        model.network.register_forward_hook(lambda *_: passes.append(1))
        return model, items, passes

    return make


def test_the_first_word_comes_before_the_second_is_computed(asked, question):
    model, items, passes = asked()
    words = model.answer(question, items)
    assert passes == []
    next(words)
    assert len(passes) == 1
    next(words)
    assert len(passes) == 2


def test_closing_the_iterator_stops_the_model(asked, question):
    model, items, passes = asked()
    words = model.answer(question, items)
    next(words)
    words.close()
    assert list(words) == []
    assert len(passes) == 1


def test_listening_leaves_gradients_as_they_were(asked, question):
    model, items, _ = asked()
    next(model.answer(question, items))
    assert torch.is_grad_enabled()


def test_two_answers_at_once_do_not_disturb_each_other(asked, question):
    model, items, _ = asked(max_new_tokens=6)
    alone = list(model.answer(question, items))
    both = zip(model.answer(question, items), model.answer(question, items), strict=True)
    assert list(both) == list(zip(alone, alone, strict=True))


def test_the_probability_is_what_the_model_gave_the_word(asked, question):
    model, items, _ = asked()
    with torch.no_grad():
        logits = model.network(**model.prompt(question, items)).logits[0, -1]
    logits[[4, 5]] = -torch.inf
    words = list(model.answer(question, items))
    assert words[0].probability == pytest.approx(float(logits.softmax(0).max()), abs=1e-6)
    assert all(0 < word.probability <= 1 for word in words)


def test_placeholders_are_never_said(asked, question):
    model, items, _ = asked(max_new_tokens=30)
    said = model._voice.tokenizer.convert_tokens_to_ids(str(next(model.answer(question, items))))
    head = model.network.lm_head.weight
    head[4:6] = 2 * head[said]  # now the placeholders are likelier than the first word
    assert "<video>" not in "".join(str(word) for word in model.answer(question, items))


def test_an_answer_ends_at_the_end_token_and_does_not_say_it(asked, question):
    model, items, passes = asked()
    spoken = [str(word) for word in model.answer(question, items)]
    last = next(i for i in range(2, len(spoken)) if spoken[i] not in spoken[:i])
    end = model._voice.tokenizer.convert_tokens_to_ids(spoken[last].strip())
    passes.clear()
    model.network.generation_config.eos_token_id = [3, end]
    assert [str(word) for word in model.answer(question, items)] == spoken[:last]
    assert len(passes) == last + 1


def test_an_answer_is_at_most_as_long_as_allowed(asked, question):
    model, items, passes = asked(max_new_tokens=4)
    assert len(list(model.answer(question, items))) == 4
    assert len(passes) == 4


def test_a_temperature_draws_other_words_the_same_each_time(asked, question):
    greedy, items, _ = asked(max_new_tokens=12)
    drawn, _, _ = asked(max_new_tokens=12, temperature=2.0)
    first, second = list(drawn.answer(question, items)), list(drawn.answer(question, items))
    assert first == second
    assert [str(w) for w in first] != [str(w) for w in greedy.answer(question, items)]


def test_more_questions_at_once_than_the_device_can_hold_are_one_sentence(
    asked, question, monkeypatch
):
    model, items, _ = asked()

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(DynamicCache, "batch_repeat_interleave", fail)
    with pytest.raises(ModelError, match="out of memory on the device; ask fewer questions at"):
        model.answer_all([question, Query("when")], items)


class Scripted:
    """A network that says given ids, each with probability one half."""

    def __init__(self, ids, size):
        self.config = Qwen2Config(num_hidden_layers=1)
        self.generation_config = SimpleNamespace(eos_token_id=None)
        self._ids, self._size = list(ids), size

    def __call__(self, **_):
        logits = torch.full((1, 1, self._size), -torch.inf)
        logits[0, 0, [self._ids.pop(0), self._size - 1]] = 0.0
        return SimpleNamespace(logits=logits)


@pytest.fixture
def bytewise():
    """A tokenizer with one token for each byte, as the rare characters of real ones have."""
    vocabulary = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


INPUTS = {name: torch.ones(1, 3) for name in ("input_ids", "attention_mask", "position_ids")}


def test_a_character_of_several_tokens_comes_in_one_piece(bytewise):
    ids = bytewise.encode("a é")
    voice = Voice(Scripted(ids, 257), bytewise, (), len(ids), 0.0)
    words = list(voice.speak(INPUTS))
    assert [word.text for word in words] == ["a", " ", "é"]
    assert [word.probability for word in words] == pytest.approx([0.5, 0.5, 0.25])


def test_half_a_character_at_the_end_is_still_handed_out(bytewise):
    ids = bytewise.encode("aé")[:2]
    voice = Voice(Scripted(ids, 257), bytewise, (), len(ids), 0.0)
    assert "".join(word.text for word in voice.speak(INPUTS)) == bytewise.decode(ids)
