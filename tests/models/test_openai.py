"""The answerer that asks a chat server, against a real one on this machine."""

import base64
import io
import json
import logging
import math
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from streamvlm.errors import BadOption, ModelError
from streamvlm.models.openai import OpenAIChat
from streamvlm.plugins import Recipe
from streamvlm.protocols import Answerer, Encoder, Onlooker
from streamvlm.types import Evidence, MemoryRecord, Query, VisualTokens
from tests.models.chat_server import (
    PATIENCE,
    ChatServer,
    says,
    says_until_hung_up,
    says_when,
    sends,
)

ROWS, COLUMNS, WIDTH = 2, 3, 8
QUESTION = Query("what colour is the star?")
COLOURS = {0.0: (200, 30, 30), 1.0: (30, 200, 30), 2.0: (30, 30, 200), 3.0: (200, 200, 30)}


@pytest.fixture
def server():
    with ChatServer() as running:
        running.will(says("yes"))
        yield running


@pytest.fixture
def answerer(server):
    def make(**options):
        return OpenAIChat(**{"url": server.url, "model": "seer", **options})

    return make


def dense(steps: int, family="llava_onevision", seed=0, levels=0, start=0.0) -> VisualTokens:
    generator = torch.Generator().manual_seed(seed)
    grid = (steps, ROWS, COLUMNS)
    position = torch.cartesian_prod(*map(torch.arange, grid))
    count = len(position)
    return VisualTokens(
        model=f"{family}/tiny 0123 float32 96px",
        features=torch.randn(count, WIDTH, generator=generator),
        position=position,
        seconds=position[:, 0].double() + start,
        grid=grid,
        weight=torch.ones(count),
        deepstack=torch.randn(count, levels, WIDTH, generator=generator) if levels else None,
    )


def jpeg(colour) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (160, 90), colour).save(buffer, format="JPEG")
    return buffer.getvalue()


def found(tokens, *, stream="/videos/a.mp4", pictures=None, score=0.5, thumbnail=b"") -> Evidence:
    seconds = np.unique(tokens.seconds.numpy())
    record = MemoryRecord(
        id=f"{stream}{seconds[0]}",
        stream=stream,
        start=float(seconds[0]),
        end=float(seconds[-1]) + 1,
        keys=np.eye(1, 4, dtype=np.float32),
        tokens=tokens,
        frame_seconds=seconds,
        frame_hash=np.zeros(len(seconds), np.uint64),
        thumbnail=thumbnail,
    )
    return Evidence(record, score, pictures or {})


def painted(*seconds: float, size=(90, 160)) -> dict[float, np.ndarray]:
    return {s: np.full((*size, 3), COLOURS[s % 4], np.uint8) for s in seconds}


def sent_pictures(got) -> list[tuple[str, Image.Image]]:
    """Caption and picture of each image that the server got, in order."""
    shown = []
    for caption, part in zip(got.parts[:-1:2], got.parts[1:-1:2], strict=True):
        head, _, data = part["image_url"]["url"].partition(",")
        assert head == "data:image/jpeg;base64"
        shown.append((caption["text"], Image.open(io.BytesIO(base64.b64decode(data)))))
    return shown


def colour_of(picture: Image.Image) -> tuple[float, ...]:
    return tuple(np.asarray(picture).mean(axis=(0, 1)))


def loaded(text: str) -> torch.Tensor:
    """A tensor as a server reads it: weights only, nothing else may be in it."""
    return torch.load(io.BytesIO(base64.b64decode(text)), weights_only=True)


def ask(answerer, *evidence, query=QUESTION) -> str:
    return "".join(word.text for word in answerer.answer(query, evidence))


def test_it_is_an_answerer_that_looks_and_no_encoder(answerer):
    built = answerer()
    assert isinstance(built, Answerer)
    assert isinstance(built, Onlooker)
    assert not isinstance(built, Encoder)
    assert built.num_pictures == 16
    assert answerer(send="tokens").num_pictures == 0


def test_the_words_make_up_the_answer(answerer, server):
    server.will(says("It", " is", " red", "."))
    assert ask(answerer(), found(dense(1), pictures=painted(0))) == "It is red."


def test_the_first_word_comes_before_the_answer_ends(answerer, server):
    gate = threading.Event()
    server.will(says_when(gate, "It", " is"))
    words = answerer().answer(QUESTION, [found(dense(1), pictures=painted(0))])
    assert next(words).text == "It"  # the server says no more until the gate opens
    gate.set()
    assert [word.text for word in words] == [" is"]


def test_an_answer_that_may_be_cut_off_is_warned_about(answerer, server, caplog):
    item, gate = found(dense(1), pictures=painted(0)), threading.Event()
    gate.set()
    server.will(says("It", " is"))
    ask(answerer(), item)
    assert "cut off" not in caplog.text
    server.will(says_when(gate, "It", " is"))
    ask(answerer(), item)
    assert "without saying that it was finished; it may be cut off" in caplog.text


def test_closing_the_words_hangs_up(answerer, server):
    noticed = threading.Event()
    server.will(says_until_hung_up(noticed))
    words = answerer().answer(QUESTION, [found(dense(1), pictures=painted(0))])
    assert next(words).text == " and"
    assert not noticed.is_set()
    words.close()
    assert noticed.wait(PATIENCE)


def test_nothing_is_sent_before_the_first_word_is_wanted(answerer, server):
    words = answerer().answer(QUESTION, [found(dense(1), pictures=painted(0))])
    assert not server.got
    next(words)
    assert len(server.got) == 1


def test_a_probability_is_that_of_all_tokens_of_a_piece(answerer, server):
    server.will(says("It", " is", logprobs=[[math.log(0.5)], [math.log(0.5), math.log(0.4)]]))
    words = list(answerer().answer(QUESTION, []))
    assert [word.probability for word in words] == pytest.approx([0.5, 0.2])
    assert server.got[0].body["logprobs"] is True


def test_a_probability_that_is_not_told_is_not_a_number(answerer, server):
    (word,) = answerer(logprobs=False).answer(QUESTION, [])
    assert math.isnan(word.probability)
    assert "logprobs" not in server.got[0].body


@pytest.mark.parametrize(
    "told",
    [
        {"content": [{"token": "yes", "logprob": None}]},
        {"content": [{"token": "yes"}]},
        {"content": [{"token": "y", "logprob": -0.1}, {"token": "es", "logprob": "?"}]},
        {"content": []},
        {"tokens": ["yes"]},
        ["yes"],
    ],
)
def test_a_probability_in_another_form_is_not_a_number(answerer, server, told):
    choice = {"index": 0, "delta": {"content": "yes"}, "logprobs": told, "finish_reason": "stop"}
    server.will(sends(json.dumps({"choices": [choice]})))
    (word,) = answerer().answer(QUESTION, [])
    assert word.text == "yes"
    assert math.isnan(word.probability)


def test_pictures_go_in_order_of_time_each_after_its_time(answerer, server):
    late = found(dense(2, start=62.0), pictures=painted(62.0, 63.0), score=0.9)
    early = found(dense(2), pictures=painted(1.0, 0.0), score=0.1)
    ask(answerer(), late, early)
    shown = sent_pictures(server.got[0])
    assert [caption for caption, _ in shown] == [
        "Picture 1 at 00:00:",
        "Picture 2 at 00:01:",
        "Picture 3 at 01:02:",
        "Picture 4 at 01:03:",
    ]
    for (_, picture), seconds in zip(shown, (0, 1, 2, 3), strict=True):
        assert colour_of(picture) == pytest.approx(COLOURS[float(seconds)], abs=4)
    assert server.got[0].parts[-1] == {"type": "text", "text": QUESTION.text}


def test_with_several_streams_each_picture_names_its_file(answerer, server):
    ask(
        answerer(),
        found(dense(1), stream="/videos/b.mp4", pictures=painted(0)),
        found(dense(1), stream="/videos/a.mp4", pictures=painted(0)),
    )
    captions = [caption for caption, _ in sent_pictures(server.got[0])]
    assert captions == ["Picture 1 of a.mp4 at 00:00:", "Picture 2 of b.mp4 at 00:00:"]


def test_no_more_pictures_than_allowed_and_the_best_ones(answerer, server):
    ask(
        answerer(max_images=2),
        found(dense(2), pictures=painted(0, 1), score=0.1),
        found(dense(2, start=2.0), pictures=painted(2, 3), score=0.9),
    )
    captions = [caption for caption, _ in sent_pictures(server.got[0])]
    assert captions == ["Picture 1 at 00:02:", "Picture 2 at 00:03:"]


@pytest.mark.parametrize(("side", "size"), [(80, (80, 45)), (500, (160, 90))])
def test_pictures_are_made_small_and_never_enlarged(answerer, server, side, size):
    ask(answerer(max_side=side), found(dense(1), pictures=painted(0)))
    ((_, picture),) = sent_pictures(server.got[0])
    assert picture.size == size


def test_without_pictures_the_thumbnail_is_shown_with_a_warning(answerer, server, caplog):
    item = found(dense(3), thumbnail=jpeg(COLOURS[1.0]))
    with caplog.at_level(logging.WARNING):
        ask(answerer(), item)
    ((caption, picture),) = sent_pictures(server.got[0])
    assert caption == "Picture 1 at 00:01:"
    assert colour_of(picture) == pytest.approx(COLOURS[1.0], abs=4)
    assert "only its thumbnail is shown" in caplog.text


def with_tokens(item: Evidence, tokens: VisualTokens) -> Evidence:
    """The same record with other tokens left; its frames and thumbnail stay."""
    return replace(item, record=replace(item.record, tokens=tokens))


def between(since=None, until=None) -> Query:
    return replace(QUESTION, since=since, until=until)


def shown_thumbnail(answerer, server, query: Query, item: Evidence) -> str | None:
    """The caption under which the only thumbnail is shown; None if it is not."""
    try:
        ask(answerer(), item, query=query)
    except ModelError:
        return None
    ((caption, _),) = sent_pictures(server.got[-1])
    return caption


def test_evidence_without_a_picture_of_the_time_asked_about_cannot_be_sent(answerer):
    item = found(dense(3), thumbnail=jpeg(COLOURS[1.0]))
    with pytest.raises(ModelError, match="no picture of the evidence to send; put the video back"):
        answerer().answer(between(until=1.0), [item])


@pytest.mark.parametrize(
    ("since", "until", "left", "shown"),
    [
        (None, None, [0], True),  # a compressor kept nothing of the middle frame
        (0.5, 1.5, [1], True),
        (None, 1.0, [0], False),
        (1.5, None, [1, 2], True),  # still to be seen when that time began
        (2.0, None, [2], False),
        (1.5, 1.8, [], False),
    ],
)
def test_a_thumbnail_is_shown_if_its_frame_is_of_the_time_asked_about(
    answerer, server, since, until, left, shown
):
    item = found(dense(3), thumbnail=jpeg(COLOURS[1.0]))
    tokens = item.record.tokens
    item = with_tokens(item, tokens.select(torch.isin(tokens.position[:, 0], torch.tensor(left))))
    caption = shown_thumbnail(answerer, server, between(since, until), item)
    assert caption == ("Picture 1 at 00:01:" if shown else None)


@pytest.mark.parametrize(
    ("since", "until", "shown"),
    [(None, None, True), (0.7, None, True), (9.0, None, True), (None, 0.8, False)],
)
def test_a_thumbnail_may_lie_beside_the_time_of_a_step_of_two_frames(
    answerer, server, since, until, shown
):
    item = found(dense(2, "qwen3_vl"), thumbnail=jpeg(COLOURS[1.0]))
    item = with_tokens(item, dense(1, "qwen3_vl", start=0.5))
    caption = shown_thumbnail(answerer, server, between(since, until), item)
    assert caption == ("Picture 1 at 00:01:" if shown else None)


def test_without_evidence_only_the_question_goes(answerer, server):
    assert ask(answerer()) == "yes"
    assert server.got[0].parts == [{"type": "text", "text": QUESTION.text}]


def test_what_is_asked_of_the_server(answerer, server):
    ask(
        answerer(
            detail="low",
            system="Be brief.",
            max_new_tokens=7,
            temperature=0.5,
            extra_body={"top_p": 0.8},
        ),
        found(dense(1), pictures=painted(0)),
    )
    (got,) = server.got
    assert got.path == "/v1/chat/completions"
    assert got.body["messages"][0] == {"role": "system", "content": "Be brief."}
    assert got.parts[1]["image_url"]["detail"] == "low"
    wanted = {
        "model": "seer",
        "stream": True,
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.8,
        "logprobs": True,
    }
    assert {name: got.body[name] for name in wanted} == wanted


def test_what_is_left_to_the_server_is_not_sent(answerer, server):
    ask(
        answerer(system="", max_new_tokens=None, temperature=None, logprobs=False),
        found(dense(1), pictures=painted(0)),
    )
    assert set(server.got[0].body) == {"model", "messages", "stream"}
    assert [turn["role"] for turn in server.got[0].body["messages"]] == ["user"]
    assert "detail" not in server.got[0].parts[1]["image_url"]


def test_any_subset_of_tokens_travels_exactly(answerer, server):
    """Two records of which some tokens were kept; from the first step of one, none."""
    kept = dense(3, seed=1).select(torch.tensor([6, 8, 9, 12]))
    other = dense(1, seed=2, start=8.0).select(torch.tensor([5]))
    ask(answerer(send="tokens", dtype="float32"), found(other), found(kept))
    texts, parts = server.got[0].parts[:-1:2], server.got[0].parts[1:-1:2]
    assert [part["type"] for part in parts] == ["image_embeds"] * 3
    expected = [kept.features[:3], kept.features[3:], other.features]
    for part, features in zip(parts, expected, strict=True):
        assert torch.equal(loaded(part["image_embeds"]), features)
    assert [text["text"][-6:] for text in texts] == ["00:01:", "00:02:", "00:08:"]


def test_a_sent_tensor_holds_nothing_but_its_rows(answerer, server):
    big = dense(100)
    ask(answerer(send="tokens", dtype="float32"), found(big.select(torch.arange(0, 6))))
    part = server.got[0].parts[1]
    assert len(base64.b64decode(part["image_embeds"])) < big.features.nbytes / 4
    assert len(loaded(part["image_embeds"]).untyped_storage()) == 6 * WIDTH * 4


def test_tokens_are_sent_in_the_precision_asked_for(answerer, server):
    tokens = dense(1)
    ask(answerer(send="tokens"), found(tokens))
    sent = loaded(server.got[0].parts[1]["image_embeds"])
    assert sent.dtype == torch.bfloat16
    assert torch.equal(sent, tokens.features.bfloat16())


def test_whole_steps_of_the_qwen_line_travel_as_videos_of_one_unit(answerer, server):
    tokens = dense(3, "qwen2_5_vl").select(torch.arange(6, 18))
    ask(answerer(send="tokens", dtype="float32"), found(tokens))
    parts = server.got[0].parts[1:-1:2]
    assert [part["type"] for part in parts] == ["video_embeds"] * 2
    for place, part in enumerate(parts):
        video = part["video_embeds"]
        assert set(video) == {"video_embeds", "video_grid_thw"}
        rows = tokens.features[6 * place : 6 * place + 6]
        assert torch.equal(loaded(video["video_embeds"]), rows)
        assert loaded(video["video_grid_thw"]).tolist() == [1, 2 * ROWS, 2 * COLUMNS]


def test_deepstack_rows_stand_side_by_side_with_the_time_of_their_unit(answerer, server):
    tokens = dense(1, "qwen3_vl", levels=3, start=5.0)
    ask(answerer(send="tokens", dtype="float32"), found(tokens))
    video = server.got[0].parts[1]["video_embeds"]
    sent = loaded(video["video_embeds"])
    assert sent.shape == (6, 4 * WIDTH)
    assert torch.equal(sent[:, :WIDTH], tokens.features)
    assert torch.equal(sent[:, 3 * WIDTH :], tokens.deepstack[:, 2])
    assert video["timestamps"] == [5.0]


def test_a_scattered_subset_of_the_qwen_line_is_refused(answerer, server):
    scattered = dense(2, "qwen3_vl").select(torch.tensor([0, 1, 2, 3, 4, 5, 7]))
    with pytest.raises(
        ModelError, match=r"step at 00:01, 1 of 6 tokens are left, .* set answerer.send to images"
    ):
        answerer(send="tokens").answer(QUESTION, [found(scattered)])


def test_tokens_of_a_family_that_no_server_takes_are_refused(answerer):
    with pytest.raises(ModelError, match=r"of video_llama_3 cannot go .*internvl.*send to images"):
        answerer(send="tokens").answer(QUESTION, [found(dense(1, "video_llama_3"))])


def test_tokens_too_large_for_a_precision_are_refused(answerer):
    tokens = dense(1)
    tokens.features[0, 0] = 1e6
    with pytest.raises(ModelError, match=r"do not fit into torch.float16; set answerer.dtype"):
        answerer(send="tokens", dtype="float16").answer(QUESTION, [found(tokens)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "localhost:8000"}, "url must be of the form"),
        ({"url": "http://me:secret@host/v1"}, "no password or key"),
        ({"url": "http://host/v1?key=secret"}, "no password or key"),
        ({"max_images": 0}, "max_images"),
        ({"timeout": 0}, "timeout"),
        ({"retries": -1}, "retries"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": -1.0}, "temperature"),
        ({"extra_body": "top_p"}, "options in braces"),
        ({"send": "video"}, "send must be"),
    ],
)
def test_an_option_out_of_range_is_refused(options, message):
    sound = {"url": "http://localhost:8000/v1", "model": "seer"}
    with pytest.raises(BadOption, match=message) as caught:
        Recipe("models", "openai", {**sound, **options}).build()
    assert "secret" not in str(caught.value)
