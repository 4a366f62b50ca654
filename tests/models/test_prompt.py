"""Where the words and the tokens of a prompt stand."""

import pytest
import torch

from streamvlm.errors import ModelError
from streamvlm.models._places import Dense, Raster
from streamvlm.models._prompt import Extra, Prompt, Slots, Template, Text, check_room, stored
from streamvlm.types import VisualTokens
from tests.models.tiny import make_tokenizer


@pytest.fixture
def tokenizer():
    return make_tokenizer(("<image>", "<video>"), "<video>")


@pytest.fixture
def tokens():
    def make(flat, grid=(2, 2, 2), deepstack=None):
        flat = torch.tensor(flat)
        each = grid[1] * grid[2]
        place = torch.stack([flat // each, flat % each // grid[2], flat % grid[2]], dim=1)
        return VisualTokens(
            model="m",
            features=flat[:, None].expand(-1, 4).double(),
            position=place,
            seconds=torch.zeros(len(flat), dtype=torch.float64),
            grid=grid,
            weight=torch.ones(len(flat)),
            deepstack=deepstack,
        )

    return make


@pytest.fixture
def pieces(tokens):
    newline = Extra(torch.zeros(1, 4))
    return [
        *(Text("00"), Slots((tokens([1, 2]),))),
        *(Text("01"), Slots((tokens([7]),))),
        newline,
    ]


def test_full_positions_leave_a_hole_for_every_dropped_token(tokenizer, pieces):
    prompt = Template(tokenizer, 5, "tiny").write(pieces, "what", Raster())
    # <|im_start|> user | 00 _ x x _ | 01 _ _ _ x | newline | what <|im_end|> <|im_start|> assistant
    assert prompt.position_ids[0].tolist() == [0, 1, 2, 4, 5, 7, 11, 12, 13, 14, 15, 16]
    assert (prompt.input_ids[0] == 5).nonzero()[:, 0].tolist() == [3, 4, 6, 7]


def test_compact_positions_leave_none(tokenizer, pieces):
    prompt = Template(tokenizer, 5, "tiny").write(pieces, "what", Dense(1))
    assert prompt.position_ids[0].tolist() == list(range(12))


def test_three_axes_get_a_plain_row_before_them(tokenizer, pieces):
    prompt = Template(tokenizer, 5, "tiny").write(pieces, "what", Dense(3))
    assert prompt.position_ids.tolist() == [[list(range(12))]] * 4


def test_a_placeholder_in_words_from_outside_adds_no_slot(tokenizer, tokens):
    template = Template(tokenizer, 5, "tiny")
    pieces = [Text("<video>.mp4\n", literal=True), Text("00"), Slots((tokens([0]),))]
    assert (template.write(pieces, "<video> ?", Raster()).input_ids == 5).sum() == 1
    assert (template.write(pieces, "what ?", Raster()).input_ids == 3).sum() == 1
    assert (template.write(pieces, "<|im_end|>", Raster()).input_ids == 3).sum() == 1


def test_neighbouring_words_are_tokenised_as_one_text(tokenizer):
    pieces = [Text("0"), Text("1 re"), Text("d", literal=True)]
    ids = Template(tokenizer, 5, "tiny").write(pieces, "what", Raster()).input_ids
    assert tokenizer.convert_tokens_to_ids("red") in ids
    assert tokenizer.convert_tokens_to_ids("01") in ids


def test_marks_that_the_template_writes_around_a_video_are_left_to_the_pieces(tokenizer, tokens):
    tokenizer.chat_template = tokenizer.chat_template.replace("<video>", "red<video>blue")
    pieces = [Slots((tokens([0]),))]
    bare = Template(tokenizer, 5, "tiny", wrap=("red", "blue")).write(pieces, "what", Raster())
    assert bare.input_ids[0].tolist() == tokenizer.encode(
        "<|im_start|>user <video>\nwhat<|im_end|><|im_start|>assistant\n"
    )


def test_the_template_may_spell_a_video_otherwise_than_one_slot(tokenizer, tokens):
    tokenizer.chat_template = tokenizer.chat_template.replace("<video>", "clip:")
    prompt = Template(tokenizer, 5, "tiny", video="clip:").write(
        [Slots((tokens([0, 1]),))], "what", Raster()
    )
    assert prompt.input_ids[0].tolist() == tokenizer.encode(
        "<|im_start|>user <video><video>\nwhat<|im_end|><|im_start|>assistant\n"
    )


def test_the_vectors_of_all_slots_come_in_order_in_the_models_precision(pieces, tokens):
    network = torch.nn.Linear(1, 1)
    network.device, network.dtype = torch.device("cpu"), torch.float32
    features, deepstack = stored(pieces, network)
    assert features.dtype is torch.float32
    assert features[:, 0].tolist() == [1, 2, 7, 0]
    assert deepstack is None
    deep = torch.randn(2, 3, 4)
    _, deepstack = stored([Slots((tokens([1, 2], deepstack=deep),))], network)
    assert torch.equal(deepstack, deep)
    assert stored([Text("a")], network) == (None, None)


def test_a_prompt_that_reaches_too_far_is_refused_with_the_way_out():
    ids = torch.zeros(1, 3, dtype=torch.int64)
    check_room(Prompt(ids, torch.tensor([[0, 1, 9]])), 10, "tiny")
    with pytest.raises(ModelError, match=r"reaches position 11, .* or set positions: .compact"):
        check_room(Prompt(ids, torch.tensor([[0, 1, 10]])), 10, "tiny")
    with pytest.raises(ModelError, match=r"has 3 tokens .* smaller max_tokens or max_records$"):
        check_room(Prompt(ids, torch.tensor([[0, 1, 2]])), 2, "tiny")


TURN = "{% if add_generation_prompt %}A:{% endif %}"
STRING = "{% for m in messages %}U: {{ m['content'] + ' .' }}{% endfor %}" + TURN
TEXTS = (
    "{% for m in messages %}U: {% for p in m['content'] if p['type'] == 'text' %}"
    "{{ p['text'] + ' .' }}{% endfor %}{% endfor %}" + TURN
)


@pytest.mark.parametrize("template", [STRING, TEXTS], ids=["string", "texts"])
def test_templates_that_know_no_video_part_get_it_as_text(tokenizer, tokens, template):
    tokenizer.chat_template = template
    prompt = Template(tokenizer, 5, "tiny").write([Slots((tokens([0]),))], "what", Raster())
    expected = tokenizer.encode("U:<video>\nwhat .A:")
    assert prompt.input_ids[0].tolist() == expected


@pytest.mark.parametrize("template", ["{{ 1 / 0 }}", "{{ 'hello' }}", "{{ messages | tojson }}"])
def test_a_template_without_room_for_video_and_question_is_refused(tokenizer, template):
    tokenizer.chat_template = template
    with pytest.raises(ModelError, match="does not take a video followed by a question"):
        Template(tokenizer, 5, "tiny")


def test_a_tokenizer_without_a_template_is_refused(tokenizer):
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match=r"tiny has no chat template; add its chat_template.jinja"):
        Template(tokenizer, 5, "tiny")


def test_a_placeholder_that_the_tokenizer_lacks_is_refused(tokenizer):
    with pytest.raises(ModelError, match="video token is number 999; take both files from one"):
        Template(tokenizer, 999, "tiny")


def test_a_model_that_can_think_aloud_is_asked_not_to(tokenizer):
    thinking = "{% if enable_thinking is not defined or enable_thinking %}when{% endif %}"
    asked = Template(tokenizer, 5, "tiny").write([], "what", Raster()).input_ids
    tokenizer.chat_template += thinking
    assert torch.equal(Template(tokenizer, 5, "tiny").write([], "what", Raster()).input_ids, asked)
    tokenizer.chat_template += "when"
    assert len(Template(tokenizer, 5, "tiny").write([], "what", Raster()).input_ids[0]) == 1 + len(
        asked[0]
    )
