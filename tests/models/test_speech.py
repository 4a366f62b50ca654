"""What of an answer may be said, and when."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from streamvlm.models._speech import Speech


@pytest.fixture(scope="module")
def letters():
    """A tokenizer with one token for each byte."""
    vocabulary = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.fixture
def tell(letters):
    """Pieces that come out letter by letter, the rest, and the speech."""

    def make(text, stop=(), end_ids=(), max_tokens=99):
        speech = Speech(letters, frozenset(end_ids), tuple(stop), max_tokens)
        words = [speech.hear(token, 0.5) for token in letters.encode(text)]
        return [word and word.text for word in words], speech.rest(), speech

    return make


def test_every_letter_is_said_at_once_without_stop_words(tell):
    said, rest, speech = tell("abc")
    assert (said, rest, speech.text, speech.ended) == (["a", "b", "c"], None, "abc", False)


def test_what_may_begin_a_stop_word_is_held_back_until_it_does_not(tell):
    said, rest, speech = tell("a END", stop=("ENDING",))
    assert said == ["a", " ", None, None, None]
    assert (rest.text, rest.probability, speech.text) == ("END", 0.125, "a END")
    said, _, speech = tell("a ENd", stop=("ENDING",))
    assert said == ["a", " ", None, None, "ENd"]


def test_a_stop_word_ends_the_answer_and_is_not_said(tell):
    said, rest, speech = tell("ab END more", stop=("END", "zzz"))
    assert [word for word in said if word] == ["a", "b", " "]
    assert (rest, speech.text, speech.ended) == (None, "ab ", True)


def test_words_before_a_stop_word_that_were_held_back_are_said(tell):
    said, _, speech = tell("EEND", stop=("END",))
    assert [word for word in said if word] == ["E"]
    assert (speech.text, speech.ended) == ("E", True)


def test_an_end_token_ends_the_answer_and_nothing_more_is_heard(tell, letters):
    end = letters.encode(".")[0]
    said, rest, speech = tell("ab.cd", end_ids=(end,))
    assert (said, rest, speech.text) == (["a", "b", None, None, None], None, "ab")


def test_it_ends_after_so_many_tokens(tell):
    assert tell("abcd", max_tokens=3)[2].text == "abc"


def test_half_a_character_is_held_back(tell):
    said, rest, speech = tell("é", max_tokens=1)
    assert said == [None, None]
    assert (rest.text, speech.ended) == ("\ufffd", True)
