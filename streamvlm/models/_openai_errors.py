"""Whatever a chat server or the way to it does wrong becomes one sentence that says what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from streamvlm.errors import ModelError
from streamvlm.plugins import nearest

_LONGEST = 300
"""Characters of a server's own words that are passed on."""
_MOST_NAMES = 12
_TOO_LONG = re.compile(
    r"context.{0,20}(length|window|size)|maximum.{0,30}(length|tokens)"
    r"|(prompt|input).{0,30}too long|exceeds?.{0,40}(tokens|context|length)"
    r"|too many (tokens|images)|at most \d+ image",
    re.IGNORECASE,
)
"""How vLLM, SGLang, llama.cpp and hosted servers say that a request does not fit."""


@dataclass(frozen=True, slots=True)
class Server:
    """Who was asked, for what; enough to explain a failure."""

    url: str
    """Where the API begins."""
    model: str
    """What was asked for."""
    key_env: str | None
    """Where the key comes from."""
    key: str | None = field(repr=False)
    """The key, to keep it out of messages."""
    timeout: float
    """Seconds that were waited."""

    def explain(
        self, error: Any, models: Callable[[], Sequence[str]], *, has_begun: bool, tries: int
    ) -> ModelError:
        """One sentence for an error of the client library.

        Args:
            error: an `openai.APIError`.
            models: asks the server for the names of its models.
            has_begun: whether a part of the answer had come.
            tries: how often the server was asked, n ≥ 1.
        """
        import openai

        if isinstance(error, openai.APITimeoutError):
            often = f", the last of {tries} tries" if tries > 1 else ""
            return ModelError(
                f"{self.url} said nothing for {self.timeout:g} s{often}; send less "
                "(answerer.max_images), or raise answerer.timeout"
            )
        if has_begun:
            return ModelError(
                f"{self.url} broke off in the middle of its answer ({self._words(error)}); ask "
                "again, and look into the server's log if it happens again"
            )
        if isinstance(error, openai.APIConnectionError):
            return ModelError(
                f"{self.url} cannot be reached ({self._words(error)}); start the server, or "
                "correct answerer.url"
            )
        status = getattr(error, "status_code", None)
        said = f"{self.url} answered {status or 'with an error'} ({self._words(error)})"
        return ModelError(f"{said}; {self._remedy(status, self._words(error), models)}")

    def _remedy(self, status: int | None, words: str, models: Callable[[], Sequence[str]]) -> str:
        if status in (401, 403):
            if self.key_env is None:
                return "put an API key into an environment variable and name it in answerer.key_env"
            return f"check the API key in the environment variable {self.key_env}"
        if status == 404:
            return self._what_there_is(models)
        if status == 413 or (status in (400, 422) and _TOO_LONG.search(words)):
            return (
                "send less (answerer.max_images, answerer.max_side, answer.max_records; with "
                "answerer.send tokens: answer.max_tokens), or give the server a longer context"
            )
        if status == 429:
            return "it is too busy, or your quota is used up: try again later"
        if status is None or status >= 500:
            return "look into the server's log, or try again later"
        return "change the options of the section answerer accordingly"

    def _what_there_is(self, models: Callable[[], Sequence[str]]) -> str:
        import openai

        try:
            names = models()
        # Not every server tells, and not every one in the form of the API.
        except (openai.APIError, ValueError, TypeError, AttributeError):
            names = ()
        if not names:
            return "check answerer.url, which usually ends in /v1, and answerer.model"
        if self.model in names:
            return "check answerer.url"
        near = difflib.get_close_matches(self.model, names, n=_MOST_NAMES, cutoff=0.0)
        return f"it has no model {self.model!r}{nearest(self.model, near)}"

    def _words(self, error: Any) -> str:
        """What the server said, or what broke, on one line and without the key."""
        body = getattr(error, "body", None)
        said = body.get("message") or body.get("detail") if isinstance(body, dict) else None
        text = " ".join(str(said or error.__cause__ or error).split())
        if self.key:
            text = text.replace(self.key, "…")
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def no_words(url: str, ending: str | None) -> ModelError:
    """The sentence for an answer without a word.

    Args:
        url: where the API begins.
        ending: the server's `finish_reason`, None if it gave none.
    """
    if ending == "length":
        remedy = "it thought until answerer.max_new_tokens was reached: raise that"
    elif ending is None:
        remedy = "check answerer.url, which usually ends in /v1"
    else:
        remedy = f"it stopped for the reason {ending!r}: put the question in another way"
    return ModelError(f"{url} answered without a word; {remedy}")
