"""Whatever goes wrong between us and a chat server is one sentence that says what to do."""

import logging
import socket
import threading
import traceback

import pytest

from streamvlm.errors import ModelError
from streamvlm.models.openai import OpenAIChat
from streamvlm.types import Query
from tests.models.chat_server import (
    PATIENCE,
    ChatServer,
    breaks_off,
    refuses,
    says,
    says_when,
    sends,
)

KEY = "sk-very-secret-0123456789"
TOO_LONG = (
    "This model's maximum context length is 4096 tokens. However, you requested 9000 tokens "
    "in the messages. Please reduce the length of the messages."
)


@pytest.fixture
def server():
    with ChatServer() as running:
        yield running


def ask(url: str, **options) -> str:
    answerer = OpenAIChat(url=url, **{"model": "seer", **options})
    return "".join(word.text for word in answerer.answer(Query("what is it?"), []))


def failure(url: str, **options) -> str:
    with pytest.raises(ModelError) as caught:
        ask(url, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert "; " in text  # what was found; what to do
    return text


def test_a_busy_server_is_asked_again(server):
    server.will(refuses(429, "slow down"), says("yes"))
    assert ask(server.url) == "yes"
    assert len(server.got) == 2


def test_a_server_that_stays_busy_is_an_error(server):
    server.will(refuses(429, "quota exceeded"))
    assert "answered 429 (quota exceeded); it is too busy" in failure(server.url)
    assert len(server.got) == 3


def test_a_server_that_fails_is_asked_again_and_then_an_error(server):
    server.will(refuses(500, "CUDA out of memory"))
    text = failure(server.url, retries=1)
    assert "answered 500 (CUDA out of memory); look into the server's log" in text
    assert len(server.got) == 2


def test_a_server_that_is_not_there(server):
    with socket.socket() as taken:  # bound but not listening: refuses whoever comes
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        text = failure(url, retries=0)
    assert f"{url} cannot be reached" in text
    assert "start the server, or correct answerer.url" in text


def test_a_server_that_says_nothing(server):
    gate = threading.Event()
    server.will(says_when(gate, "", ""))
    text = failure(server.url, retries=0, timeout=0.3)
    gate.set()
    assert "said nothing for 0.3 s; send less (answerer.max_images), or raise" in text


def test_a_server_that_never_replies_was_tried_as_often_as_is_said(server):
    gate = threading.Event()
    server.will(lambda handler: gate.wait(PATIENCE))
    text = failure(server.url, retries=1, timeout=0.2)
    gate.set()
    assert "said nothing for 0.2 s, the last of 2 tries; send less" in text


def test_what_has_begun_is_not_tried_again(server):
    gate = threading.Event()
    server.will(says_when(gate, "", ""))
    text = failure(server.url, retries=1, timeout=0.3)
    gate.set()
    assert "said nothing for 0.3 s; send less" in text
    assert len(server.got) == 1


def test_a_server_that_falls_silent_in_the_middle(server):
    gate = threading.Event()
    server.will(says_when(gate, "It", " is"))
    words = OpenAIChat(server.url, "seer", timeout=2.0).answer(Query("what is it?"), [])
    assert next(words).text == "It"
    with pytest.raises(ModelError, match="said nothing for"):
        next(words)
    gate.set()


def test_a_wrong_key_names_the_variable_and_not_the_key(server, monkeypatch):
    monkeypatch.setenv("SEER_KEY", KEY)
    server.will(refuses(401, f"Incorrect API key provided: {KEY}."))
    text = failure(server.url, key_env="SEER_KEY")
    assert "answered 401 (Incorrect API key provided: ….)" in text
    assert "check the API key in the environment variable SEER_KEY" in text


def test_a_server_that_wants_a_key_and_gets_none(server):
    server.will(refuses(401, "Unauthorized"))
    assert "name it in answerer.key_env" in failure(server.url)


def test_a_key_that_is_not_set(server, monkeypatch):
    monkeypatch.delenv("SEER_KEY", raising=False)
    with pytest.raises(
        ModelError, match=r"SEER_KEY, which answerer.key_env names, is not set; put"
    ):
        OpenAIChat(server.url, "seer", key_env="SEER_KEY")


def test_the_key_goes_to_the_server(server, monkeypatch):
    monkeypatch.setenv("SEER_KEY", f"{KEY}\n")
    server.will(says("yes"))
    ask(server.url, key_env="SEER_KEY")
    assert server.got[0].headers["authorization"] == f"Bearer {KEY}"


def test_without_a_key_of_its_own_a_server_learns_nothing_about_others(server, monkeypatch):
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, KEY)
    server.will(says("yes"))
    ask(server.url)
    assert KEY not in str(server.got[0].headers)
    assert "authorization" not in server.got[0].headers


def test_a_key_of_its_own_says_nothing_about_other_accounts(server, monkeypatch):
    monkeypatch.setenv("SEER_KEY", KEY)
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID"):
        monkeypatch.setenv(name, "ours-elsewhere")
    server.will(says("yes"))
    ask(server.url, key_env="SEER_KEY")
    assert server.got[0].headers["authorization"] == f"Bearer {KEY}"
    assert "ours-elsewhere" not in str(server.got[0].headers)


@pytest.mark.parametrize(
    "reply",
    [
        refuses(401, f"no such key: {KEY}"),
        refuses(400, f"bad {KEY}"),
        breaks_off("It"),
        sends('{"error": {"message": "' + KEY + ' is bad"}}'),
        says("yes"),
    ],
)
def test_the_key_is_in_no_error_and_no_log(server, monkeypatch, caplog, reply):
    monkeypatch.setenv("SEER_KEY", KEY)
    server.will(reply)
    told = ""
    answerer = OpenAIChat(server.url, "seer", key_env="SEER_KEY", retries=1)
    with caplog.at_level(logging.DEBUG):
        try:
            list(answerer.answer(Query("what is it?"), []))
        except ModelError:
            told = traceback.format_exc()
    assert server.got[0].headers["authorization"] == f"Bearer {KEY}"
    assert caplog.text  # something was logged that could have held it
    assert KEY not in told + caplog.text + repr(answerer) + repr(answerer._server)


def test_an_unknown_model_is_answered_with_the_nearest(server):
    server.models = ("seer-7b", "llama")
    server.will(refuses(404, "The model `seer-7` does not exist."))
    text = failure(server.url, model="seer-7")
    assert "it has no model 'seer-7'; did you mean 'seer-7b'?" in text


def test_a_wrong_address_is_told_from_an_unknown_model(server):
    server.models = ()
    server.will(lambda handler: handler.whole(404, {"detail": "Not Found"}))
    text = failure(server.url)
    assert "answered 404 (Not Found); check answerer.url, which usually ends in /v1" in text


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, TOO_LONG),
        (400, "The decoder prompt (length 9000) is longer than the maximum model length of 4096."),
        (400, "Input length (9000 tokens) exceeds the maximum allowed length (4096 tokens)."),
        (400, "the request exceeds the available context size. try increasing the context size"),
        (400, "At most 1 image(s) may be provided in one prompt."),
        (413, "Request Entity Too Large"),
    ],
)
def test_more_than_the_server_takes(server, status, message):
    server.will(refuses(status, message))
    text = failure(server.url)
    assert message in text
    assert "send less (answerer.max_images, answerer.max_side, answer.max_records" in text


def test_any_other_refusal_is_passed_on_in_the_servers_words(server):
    server.will(refuses(400, "Unsupported parameter: 'logprobs'"))
    text = failure(server.url)
    assert "(Unsupported parameter: 'logprobs'); change the options of the section ans" in text
    assert len(server.got) == 1


def test_a_long_page_of_an_error_is_cut(server):
    server.will(refuses(400, "x" * 5000))
    assert len(failure(server.url)) < 600


def test_an_answer_that_breaks_off(server):
    server.will(breaks_off("It", " is"))
    words = OpenAIChat(server.url, "seer").answer(Query("what is it?"), [])
    assert [next(words).text, next(words).text] == ["It", " is"]
    with pytest.raises(ModelError, match=r"broke off in the middle of its answer .*; ask again"):
        next(words)


def test_an_error_in_the_middle_of_the_stream(server):
    server.will(sends('{"error": {"message": "engine died", "code": 500}}'))
    assert "(engine died); look into the server's log" in failure(server.url)


@pytest.mark.parametrize("reply", [sends("<html>hello</html>"), sends('["hello"]'), sends("7")])
def test_an_answer_in_another_form(server, reply):
    server.will(reply)
    assert "check answerer.url, which usually ends in /v1" in failure(server.url)


def test_a_page_instead_of_a_stream(server):
    server.will(lambda handler: handler.whole(200, {"hello": "world"}))
    assert "answered without a word; check answerer.url" in failure(server.url)


def test_a_model_that_only_thinks(server):
    server.will(says(finish="length"))
    text = failure(server.url)
    assert "answered without a word; it thought until answerer.max_new_tokens was" in text


def test_a_model_that_will_not_answer(server):
    server.will(says(finish="content_filter"))
    assert "for the reason 'content_filter': put the question" in failure(server.url)
