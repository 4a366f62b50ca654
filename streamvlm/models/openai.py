"""Any server with OpenAI's chat API as the mouth: vLLM, SGLang, Ollama, llama.cpp, hosted ones."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import torch

from streamvlm.errors import MissingDependency, ModelError
from streamvlm.models._openai_errors import Server, no_words
from streamvlm.models._openai_parts import picture_parts, refusal, token_parts
from streamvlm.types import Evidence, Query, Word
from streamvlm.weights import Precision

logger = logging.getLogger(__name__)

_SYSTEM = (
    "You are shown pictures from video, each with the time at which it was taken. Where nothing "
    "changed, no picture is shown: what one shows goes on until the next. Answer the "
    "question from these pictures alone, in few words; write times as MM:SS. If they do not show "
    "it, say so."
)
_ACCOUNT = ("OpenAI-Organization", "OpenAI-Project")
"""Headers that the client library fills from the environment, whatever host it talks to."""


@dataclass(eq=False)
class OpenAIChat:
    """A model behind OpenAI's chat-completions API, told of the evidence in timestamped pictures.

    It only answers: name it in the section `answerer`; the section `model` goes on making the
    tokens that are stored. Before each picture stands its time, and with several streams the name
    of its file. With `send: tokens` the stored tokens themselves travel, which only vLLM takes, if
    started with `--enable-mm-embeds` and the weights that made them: any subset for LLaVA-OneVision
    and InternVL, whole time steps for the Qwen line.

    Too many requests, server errors and broken connections are tried again, with growing waits or
    as long as the server asks for. A word's probability is the server's own, NaN if it gives none.

    Raises:
        MissingDependency: the client library is not installed.
        ModelError: there is no key where `key_env` says.
        ValueError: an option is out of range.
    """

    url: str
    """Where the API begins, e.g. `http://localhost:8000/v1`; no key and no password in it."""
    model: str
    """What the server calls the model."""
    key_env: str | None = None
    """The environment variable that holds the API key; without one no key is sent."""
    send: Literal["images", "tokens"] = "images"
    """`images`: pictures; `tokens`: what is stored, see above."""
    max_images: int = 16
    """At most so many pictures a question."""
    max_side: int = 512
    """Longest side of a picture in pixels; never enlarged."""
    detail: Literal["auto", "low", "high"] = "auto"
    """How closely to look, where a server lets one choose."""
    system: str = _SYSTEM
    """What the model is told first; empty for nothing."""
    max_new_tokens: int | None = 256
    """Longest answer, sent as `max_tokens`; None leaves it to the server."""
    temperature: float | None = 0.0
    """0 asks for the likeliest words; None leaves it to the server."""
    logprobs: bool = True
    """Ask for the words' probabilities; some hosted models refuse that."""
    dtype: Precision = "bfloat16"
    """The precision of tokens that are sent; the server turns them into its own."""
    timeout: float = 120.0
    """Seconds to wait for a connection, and for each next piece of an answer."""
    retries: int = 2
    """How often to try again."""
    extra_body: Mapping[str, Any] | None = None
    """What else goes into each request, e.g. `{top_p: 0.8}`."""

    def __post_init__(self) -> None:
        self._check()
        key = self._key()
        try:
            from openai import Omit, OpenAI
        except ImportError:
            raise MissingDependency(
                'the answerer openai needs the client library; pip install "openai>=3"'
            ) from None
        self._client: Any = OpenAI(
            base_url=self.url,
            api_key=key or "none",
            timeout=self.timeout,
            max_retries=self.retries,
        )
        # What the environment holds for another server is not for this one.
        unsaid = _ACCOUNT if key else ("Authorization", *_ACCOUNT)
        self._headers = {name: Omit() for name in unsaid}
        self._server = Server(self.url, self.model, self.key_env, key, self.timeout)

    @property
    def num_pictures(self) -> int:
        """How many pictures of the evidence it wants to be given: 0 if it sends stored tokens."""
        return self.max_images if self.send == "images" else 0

    def refusal(self, family: str, keep: float) -> str:
        """Why it could not send some tokens, known before they are made.

        Args:
            family: the model that makes them, as their fingerprint begins.
            keep: share of them that the compressor keeps, 0–1.

        Returns:
            A sentence; empty if it could, or sends pictures.
        """
        return refusal(family, keep) if self.send == "tokens" else ""

    def answer(self, query: Query, evidence: Sequence[Evidence]) -> Iterator[Word]:
        """Answer from the evidence; the request is made when the first word is asked for.

        Args:
            query: the question.
            evidence: what to show, in any order; a record without `pictures` shows its thumbnail.

        Returns:
            The words; closing the iterator closes the connection, so that the server stops.

        Raises:
            ModelError: at the call, if the evidence cannot be sent; while iterating, if the server
                cannot be reached, refuses, or breaks off.
        """
        return self._speak(self.messages(query, evidence))

    def messages(self, query: Query, evidence: Sequence[Evidence]) -> list[dict[str, Any]]:
        """What the server is sent, in the form of the API.

        Args:
            query: the question; of its limits only those of time count here, for thumbnails.
            evidence: what to show, in any order; none leaves only the question.

        Raises:
            ModelError: there is no picture, or these tokens cannot be sent.
        """
        parts: list[dict[str, Any]] = []
        if evidence and self.send == "images":
            parts = picture_parts(
                query, evidence, most=self.max_images, side=self.max_side, detail=self.detail
            )
        elif evidence:
            parts = token_parts(evidence, getattr(torch, self.dtype))
        parts.append({"type": "text", "text": query.text})
        told = [{"role": "system", "content": self.system}] if self.system else []
        return [*told, {"role": "user", "content": parts}]

    def _speak(self, messages: list[dict[str, Any]]) -> Iterator[Word]:
        from openai import APIError

        wishes = {
            "max_tokens": self.max_new_tokens,
            "temperature": self.temperature,
            "logprobs": self.logprobs or None,
        }
        has_begun, ending, tries = False, None, self.retries + 1
        try:
            with self._client.chat.completions.create(
                model=self.model,
                messages=messages,
                stream=True,
                extra_headers=self._headers,
                extra_body=self.extra_body,
                **{name: wish for name, wish in wishes.items() if wish is not None},
            ) as chunks:
                tries = 1  # what is being heard cannot be asked for again
                for choice in _choices(chunks):
                    ending = choice.finish_reason or ending
                    if choice.delta.content:
                        yield Word(choice.delta.content, _probability(choice))
                        has_begun = True
        except APIError as error:
            # Not chained: the library's own error may hold what the server said about the key.
            raise self._server.explain(
                error, self._models, has_begun=has_begun, tries=tries
            ) from None
        except (json.JSONDecodeError, UnicodeDecodeError):
            raise ModelError(
                f"{self.url} did not answer in the form of the chat API; check answerer.url, which "
                "usually ends in /v1"
            ) from None
        if not has_begun:
            raise no_words(self.url, ending)
        if ending is None:
            logger.warning(
                "%s ended its answer without saying that it was finished; it may be cut off",
                self.url,
            )

    def _models(self) -> list[str]:
        """What the server offers."""
        listed = self._client.with_options(max_retries=0).models.list(extra_headers=self._headers)
        return [model.id for model in listed.data]

    def _check(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("url must be of the form http(s)://host[:port]/v1")
        if parts.username or parts.password or parts.query:
            raise ValueError("url may hold no password or key; name the key's variable in key_env")
        if self.max_images < 1 or self.max_side < 1 or self.timeout <= 0 or self.retries < 0:
            raise ValueError(
                "max_images and max_side must be at least 1, timeout above 0, retries at least 0"
            )
        if self.max_new_tokens == 0 or min(self.max_new_tokens or 0, self.temperature or 0) < 0:
            raise ValueError("max_new_tokens must be at least 1, temperature at least 0")
        if not isinstance(self.extra_body, Mapping | None):
            raise ValueError(f"extra_body must be options in braces, found {self.extra_body!r}")

    def _key(self) -> str | None:
        if self.key_env is None:
            return None
        if key := os.environ.get(self.key_env, "").strip():
            return key
        raise ModelError(
            f"the environment variable {self.key_env}, which answerer.key_env names, is not set; "
            "put the API key into it"
        )


def _choices(chunks: Iterable[Any]) -> Iterator[Any]:
    """The pieces of an answer; other things that servers stream, such as usage, have none."""
    for chunk in chunks:
        # The library does not check what a server sends, so anything may be missing.
        choices = getattr(chunk, "choices", None) or ()
        yield from (choice for choice in choices if getattr(choice, "delta", None))


def _probability(choice: Any) -> float:
    """What the model gave a piece of text, which may be several tokens; NaN if not told."""
    told = getattr(choice.logprobs, "content", None) or ()
    chances: list[Any] = [getattr(each, "logprob", None) for each in told]
    if not chances or not all(isinstance(chance, float | int) for chance in chances):
        return math.nan
    return math.exp(min(sum(chances), 0.0))
