"""The next question about the same evidence, as the one who asks sees it."""

import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch

from streamvlm.models._speak import Voice
from streamvlm.types import Query

QUESTIONS = [
    Query("what colour is the star ?"),
    Query("where is the red square ?"),
    Query("when"),
    Query("what is red : the star . the square . a b"),
]


@pytest.fixture
def asked(load, clip, evidence):
    """A model, evidence of three frames, and the number of tokens in every forward pass."""

    def make(**options):
        model, video = load(**{"max_new_tokens": 8, **options}), clip()
        return model, evidence(model.encode(video), video), counting(model)

    return make


def counting(model):
    counts = []
    model.network.register_forward_pre_hook(
        lambda _network, _args, inputs: counts.append(inputs["input_ids"].shape[1]),
        with_kwargs=True,
    )
    return counts


def edited(item, **changes):
    return replace(item, record=replace(item.record, tokens=replace(item.record.tokens, **changes)))


def own_words(model, item, question):
    """Tokens of a prompt behind its last visual one."""
    ids = model.prompt(question, [item])["input_ids"][0]
    return len(ids) - int((ids == model.network.config.video_token_id).nonzero()[-1]) - 1


def alone(model, *items, question=QUESTIONS[0]):
    """What the model says if it was never asked anything before."""
    used = model._voice
    voice = Voice(
        used.network, used.tokenizer, used.placeholders, used.max_new_tokens, used.temperature
    )
    return list(voice.speak(model.prompt(question, items)))


def test_the_second_question_feeds_only_its_own_tokens(asked):
    model, item, counts = asked()
    list(model.answer(QUESTIONS[0], [item]))
    for question in QUESTIONS:
        counts.clear()
        words = list(model.answer(question, [item]))
        assert counts[0] == own_words(model, item, question)
        assert set(counts[1:]) <= {1}
        assert len(words) <= len(counts)


def test_the_first_question_feeds_every_token_once(asked):
    model, item, counts = asked()
    next(model.answer(QUESTIONS[0], [item]))
    assert sum(counts) == model.prompt(QUESTIONS[0], [item])["input_ids"].shape[1]


@pytest.mark.parametrize("temperature", [0.0, 2.0])
@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 2, 0, 2, 1, 3)])
def test_words_and_probabilities_are_the_same_to_the_last_bit_whatever_was_asked_before(
    asked, order, temperature
):
    model, item, _ = asked(temperature=temperature)
    expected = [alone(model, item, question=question) for question in QUESTIONS]
    for number in order:
        assert list(model.answer(QUESTIONS[number], [item])) == expected[number]
    assert len({str(words) for words in expected}) > 1


def test_interleaved_answers_are_those_given_alone(asked, clip, evidence):
    model, item, _ = asked()
    video = clip(seed=7)
    other = evidence(model.encode(video), video)
    pairs = [(q, i) for i in (item, other) for q in QUESTIONS]
    expected = [alone(model, i, question=q) for q, i in pairs]
    running = [model.answer(question, [i]) for question, i in pairs]
    found = [[] for _ in pairs]
    for _ in range(9):
        for words, said in zip(running, found, strict=True):
            said.extend(word for word in [next(words, None)] if word)
    assert found == expected
    assert expected[: len(QUESTIONS)] != expected[len(QUESTIONS) :]


def test_answers_in_several_threads_are_those_given_alone(asked):
    model, item, _ = asked()
    expected = [alone(model, item, question=question) for question in QUESTIONS]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda q: list(model.answer(q, [item])), QUESTIONS * 3))
    assert found == expected * 3


def test_an_answer_closed_half_way_leaves_no_trace_in_the_next(asked):
    model, item, counts = asked()
    expected = alone(model, item)
    words = model.answer(QUESTIONS[3], [item])
    next(words)
    next(words)
    words.close()
    counts.clear()
    assert list(model.answer(QUESTIONS[0], [item])) == expected
    assert counts[0] == own_words(model, item, QUESTIONS[0])


@pytest.mark.parametrize("at", [1, 2, 3])  # while it reads the evidence, the question, a word
def test_ctrl_c_in_the_middle_of_a_pass_leaves_no_trace_in_the_next(asked, at):
    model, item, counts = asked()
    expected = alone(model, item)
    counts.clear()

    def interrupt(*_):
        if len(counts) == at:
            raise KeyboardInterrupt

    hook = model.network.model.language_model.layers[1].register_forward_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(model.answer(QUESTIONS[3], [item]))
    hook.remove()
    assert list(model.answer(QUESTIONS[0], [item])) == expected


def one_value_more(item):
    features = item.record.tokens.features.clone()
    features[13, 5] = torch.nextafter(features[13, 5], torch.tensor(torch.inf))
    return edited(item, features=features)


def one_token_elsewhere(item):
    """The token at column 1 of the last row goes to column 0, which is free."""
    tokens = item.record.tokens
    position = tokens.position.clone()
    position[-1, 2] = 0
    return edited(item, position=position)


def one_second_later(item):
    return edited(item, seconds=item.record.tokens.seconds + 1)


@pytest.mark.parametrize("change", [one_value_more, one_token_elsewhere, one_second_later])
def test_evidence_that_differs_in_the_least_is_read_anew(asked, change):
    model, item, counts = asked()
    keep = torch.ones(27, dtype=torch.bool)
    keep[[24, 26]] = False
    item = replace(item, record=replace(item.record, tokens=item.record.tokens.select(keep)))
    list(model.answer(QUESTIONS[0], [item]))
    counts.clear()
    other = change(item)
    found = list(model.answer(QUESTIONS[0], [other]))
    assert sum(counts[:2]) == model.prompt(QUESTIONS[0], [other])["input_ids"].shape[1]
    assert found == alone(model, other)


def test_only_the_evidence_read_last_is_kept(asked, clip, evidence):
    model, item, counts = asked()
    video = clip(seed=7)
    other = evidence(model.encode(video), video)
    for each in (item, other, item):
        counts.clear()
        list(model.answer(QUESTIONS[0], [each]))
        assert counts[0] > 27


def test_old_keys_and_values_are_let_go_before_other_evidence_is_read(asked, clip, evidence):
    model, item, _ = asked()
    video = clip(seed=7)
    other, made, living = evidence(model.encode(video), video), [], []

    def after(_network, _args, inputs, _out):
        layers = inputs["past_key_values"].layers
        made.append([weakref.ref(part) for layer in layers for part in (layer.keys, layer.values)])

    network = model.network
    hook = network.register_forward_hook(after, with_kwargs=True)
    list(model.answer(QUESTIONS[0], [item]))
    hook.remove()
    network.register_forward_pre_hook(lambda *_: living.append([part() for part in made[0]]))
    list(model.answer(QUESTIONS[1], [item]))
    assert all(part is not None for part in living[0])
    living.clear()
    list(model.answer(QUESTIONS[0], [other]))
    assert all(part is None for part in living[0])


def test_more_evidence_of_the_same_stream_is_read_anew(asked, clip, evidence):
    model, item, counts = asked()
    later = clip(start=3.0, seed=1)
    both = [item, evidence(model.encode(later), later)]
    list(model.answer(QUESTIONS[0], [item]))
    counts.clear()
    found = list(model.answer(QUESTIONS[1], both))
    assert counts[0] > 54
    assert found == alone(model, *both, question=QUESTIONS[1])


ENGLISH = [Query("What colour is the star?"), Query("Where is the red square?"), Query("When?")]


def test_the_demo_model_says_the_same_and_reads_its_evidence_once(demo):
    model, item = demo
    expected = [alone(model, item, question=question) for question in ENGLISH]
    counts = counting(model)
    found = [list(model.answer(question, [item])) for question in ENGLISH]
    assert found == expected
    assert sum(count > len(item.record.tokens) for count in counts) == 1
