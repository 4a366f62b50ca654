"""A real HTTP server with OpenAI's chat API: it keeps what it got, and answers by a script."""

import json
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

PATIENCE = 20.0
"""Seconds after which a test that hangs gives up."""


@dataclass
class Got:
    """One request."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def parts(self) -> list[dict[str, Any]]:
        """The content of the user's turn."""
        return self.body["messages"][-1]["content"]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "Listener"

    def do_GET(self):
        known = [{"id": name, "object": "model"} for name in self.server.owner.models]
        self.whole(200 if known else 404, {"object": "list", "data": known})

    def do_POST(self):
        owner = self.server.owner
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        owner.got.append(Got(self.path, {k.lower(): v for k, v in self.headers.items()}, body))
        script = owner.script
        reply = script.popleft() if len(script) > 1 else script[0]  # the last one is repeated
        reply(self)

    def whole(self, status: int, body: Any, **headers: str) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def begin(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def event(self, data: str) -> None:
        line = f"data: {data}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        self.wfile.flush()

    def end(self) -> None:
        self.event("[DONE]")
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_: object) -> None:
        pass


Reply = Callable[[Handler], None]


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    owner: "ChatServer"

    def handle_error(self, *_: object) -> None:
        """Clients that hang up are part of the tests."""


@dataclass
class ChatServer:
    """Use as a context manager; `script` is what it answers, one after the other."""

    script: deque[Reply] = field(default_factory=deque)
    models: tuple[str, ...] = ("seer",)
    got: list[Got] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._listener = Listener(("127.0.0.1", 0), Handler)
        self._listener.owner = self
        self._thread = threading.Thread(target=self._listener.serve_forever, args=(0.01,))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown()
        self._listener.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.server_address[1]}/v1"

    def will(self, *replies: Reply) -> None:
        self.script = deque(replies)


def chunk(word: str | None, logprobs: Iterable[float] | None = None, finish: str | None = None):
    """One piece of a streamed answer, as servers write it."""
    told = None if logprobs is None else [{"token": "?", "logprob": p} for p in logprobs]
    choice = {
        "index": 0,
        "delta": {} if word is None else {"content": word},
        "logprobs": told and {"content": told},
        "finish_reason": finish,
    }
    return json.dumps({"id": "1", "object": "chat.completion.chunk", "choices": [choice]})


def says(*words: str, logprobs: Iterable[Iterable[float]] | None = None, finish: str = "stop"):
    """Stream an answer."""

    def reply(handler: Handler) -> None:
        handler.begin()
        handler.event(json.dumps({"choices": [{"delta": {"role": "assistant"}, "index": 0}]}))
        for word, chance in zip(words, logprobs or [None] * len(words), strict=True):
            handler.event(chunk(word, chance))
        handler.event(chunk(None, finish=finish))
        handler.event(json.dumps({"choices": [], "usage": {"completion_tokens": len(words)}}))
        handler.end()

    return reply


def says_when(gate: threading.Event, first: str, second: str) -> Reply:
    """Stream one word, and the other only once the gate is open."""

    def reply(handler: Handler) -> None:
        handler.begin()
        handler.event(chunk(first))
        gate.wait(PATIENCE)
        handler.event(chunk(second))
        handler.end()

    return reply


def says_until_hung_up(noticed: threading.Event) -> Reply:
    """Stream words until the client has gone."""

    def reply(handler: Handler) -> None:
        handler.begin()
        try:
            while True:
                handler.event(chunk(" and"))
        except OSError:
            noticed.set()

    return reply


def refuses(status: int, message: str, **headers: str) -> Reply:
    """Answer with an error, as vLLM writes it; ask not to wait before the next try."""
    body = {"error": {"message": message, "type": "BadRequestError", "code": status}}
    return lambda handler: handler.whole(status, body, **{"retry-after-ms": "1", **headers})


def breaks_off(*words: str) -> Reply:
    """Stream some words, then close the connection in the middle."""

    def reply(handler: Handler) -> None:
        handler.begin()
        for word in words:
            handler.event(chunk(word))
        handler.close_connection = True

    return reply


def sends(*events: str) -> Reply:
    """Stream whatever events."""

    def reply(handler: Handler) -> None:
        handler.begin()
        for each in events:
            handler.event(each)
        handler.end()

    return reply
