"""Where the words and the tokens of a prompt stand."""

import pytest
import torch

from streamvlm.errors import ModelError
from streamvlm.models._prompt import Template, clock, steps
from streamvlm.types import VisualTokens


@pytest.fixture
def tokenizer(load):
    return load()._voice.tokenizer


@pytest.fixture
def tokens():
    def make(flat, seconds, grid=(2, 2, 2)):
        flat = torch.tensor(flat)
        each = grid[1] * grid[2]
        place = torch.stack([flat // each, flat % each // grid[2], flat % grid[2]], dim=1)
        return VisualTokens(
            model="m",
            features=torch.zeros(len(flat), 4),
            position=place,
            seconds=torch.tensor(seconds, dtype=torch.float64),
            grid=grid,
            weight=torch.ones(len(flat)),
        )

    return make


@pytest.fixture
def item(clip, evidence):
    def make(tokens, start=0.0, stream="/videos/a.mp4"):
        return evidence(tokens, clip(frames=2, start=start, stream=stream))

    return make


@pytest.mark.parametrize(
    ("seconds", "written"),
    [
        (0.0, "00:00"),
        (7.999, "00:07"),
        (61.0, "01:01"),
        (3599.5, "59:59"),
        (3600.0, "01:00:00"),
        (3723.0, "01:02:03"),
        (360_000.0, "100:00:00"),
    ],
)
def test_a_time_is_written_in_minutes_and_from_one_hour_on_in_hours(seconds, written):
    assert clock(seconds) == written


def test_every_step_with_tokens_gets_its_own_second(tokens, item):
    kept = tokens([1, 3, 6], [4.2, 4.2, 5.9])
    found = list(steps([item(kept)], timestamps=True))
    assert [caption for caption, _ in found] == ["00:04", "00:05"]
    assert [step.flat_index.tolist() for _, step in found] == [[1, 3], [6]]


def test_without_timestamps_nothing_is_written_not_even_stream_names(tokens, item):
    items = [item(tokens([0], [0.0])), item(tokens([0], [0.0]), stream="/videos/b.mp4")]
    assert [caption for caption, _ in steps(items, timestamps=False)] == ["", ""]


def test_each_of_several_streams_is_named_once_before_its_first_time(tokens, item):
    items = [
        item(tokens([0, 4], [0.0, 1.0]), stream="/videos/b.mp4"),
        item(tokens([0], [9.0]), start=9.0, stream="rtsp://host:554/cam"),
        item(tokens([0], [5.0]), start=5.0, stream="/videos/b.mp4"),
    ]
    captions = [caption for caption, _ in steps(items, timestamps=True)]
    assert captions == ["b.mp4\n00:00", "00:01", "00:05", "\ncam\n00:09"]


def test_streams_of_the_same_file_name_are_told_apart_by_their_whole_id(tokens, item):
    items = [item(tokens([0], [0.0]), stream=f"/{room}/a.mp4") for room in ("hall", "lab")]
    captions = [caption for caption, _ in steps(items, timestamps=True)]
    assert captions == ["/hall/a.mp4\n00:00", "\n/lab/a.mp4\n00:00"]


def test_full_positions_leave_a_hole_for_every_dropped_token(tokenizer, tokens):
    template = Template(tokenizer, 5, "tiny")
    blocks = [("00", tokens([1, 2], [0.0, 0.0])), ("01", tokens([7], [1.0]))]
    prompt = template.write(blocks, "what", positions="full")
    # <|im_start|> user | 00 _ x x _ | 01 _ _ _ x | newline | what <|im_end|> <|im_start|> assistant
    assert prompt.position_ids[0].tolist() == [0, 1, 2, 4, 5, 7, 11, 12, 13, 14, 15, 16]
    assert (prompt.input_ids[0] == 5).nonzero()[:, 0].tolist() == [3, 4, 6, 7]


def test_compact_positions_leave_none(tokenizer, tokens):
    blocks = [("00", tokens([1, 2], [0.0, 0.0])), ("01", tokens([7], [1.0]))]
    prompt = Template(tokenizer, 5, "tiny").write(blocks, "what", positions="compact")
    assert prompt.position_ids[0].tolist() == list(range(12))


def test_a_placeholder_in_a_stream_name_adds_no_slot(tokenizer, tokens):
    blocks = [("<video>.mp4\n00", tokens([0], [0.0]))]
    prompt = Template(tokenizer, 5, "tiny").write(blocks, "what", positions="full")
    assert (prompt.input_ids == 5).sum() == 2


TURN = "{% if add_generation_prompt %}A:{% endif %}"
STRING = "{% for m in messages %}U: {{ m['content'] + ' .' }}{% endfor %}" + TURN
TEXTS = (
    "{% for m in messages %}U: {% for p in m['content'] if p['type'] == 'text' %}"
    "{{ p['text'] + ' .' }}{% endfor %}{% endfor %}" + TURN
)


@pytest.mark.parametrize("template", [STRING, TEXTS], ids=["string", "texts"])
def test_templates_that_know_no_video_part_get_it_as_text(tokenizer, tokens, template):
    tokenizer.chat_template = template
    blocks = [("", tokens([0], [0.0]))]
    prompt = Template(tokenizer, 5, "tiny").write(blocks, "what", positions="full")
    expected = tokenizer.encode("U:<video><video>\nwhat .A:")
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
