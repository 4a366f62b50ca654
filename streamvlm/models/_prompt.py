"""A question and any subset of visual tokens become one prompt, each token at its own place.

The visual part opens the user's turn. What stands in it is the family's business: a sequence of
pieces, each some text, a run of slots for stored tokens, or slots for vectors of the model's own.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from streamvlm.errors import ModelError
from streamvlm.models._places import Rule
from streamvlm.types import VisualTokens

_QUESTION = "\u2402question\u2403"
"""Stands for the question while the chat template is applied; no real text holds it."""


@dataclass(frozen=True, slots=True)
class Text:
    """Words of a prompt."""

    text: str
    literal: bool = False
    """True for words from outside: the name of a special token in them is only ever text."""


@dataclass(frozen=True, slots=True, eq=False)
class Slots:
    """A run of placeholders without text between, for the tokens of one or more time steps."""

    steps: tuple[VisualTokens, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Extra:
    """Placeholders for vectors that are not stored because the model holds them."""

    features: torch.Tensor
    """(n, D)."""


Piece = Text | Slots | Extra


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What a language model is given, a batch of one."""

    input_ids: torch.Tensor
    """(1, S) int64; every visual token is a placeholder id."""
    position_ids: torch.Tensor
    """(1, S) int64 for one axis; (4, 1, S) for three, the first row being plain 0 … S-1."""


class Template:
    """The chat template of a checkpoint, cut at the video and at the question.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        slot: id of the token that stands for one visual token.
        source: what to call the checkpoint in messages.
        video: how the chat template spells a video; by default, as one slot.
        wrap: what the template may write right before and behind a video, and the family's own
            pieces write anew.

    Raises:
        ModelError: there is no chat template, or it does not take a video and a question.
    """

    def __init__(
        self,
        tokenizer: Any,
        slot: int,
        source: str,
        *,
        video: str = "",
        wrap: tuple[str, str] = ("", ""),
    ) -> None:
        self._tokenizer = tokenizer
        self._slot = slot
        # A fast tokenizer keeps the switch for special tokens as state.
        self._lock = threading.Lock()
        if tokenizer.chat_template is None:
            raise ModelError(f"{source} has no chat template; add its chat_template.jinja")
        if slot >= len(tokenizer):
            raise ModelError(
                f"{source}: the tokenizer has {len(tokenizer)} tokens, but the configuration's "
                f"video token is number {slot}; take both files from one checkpoint"
            )
        self._special = tuple(tokenizer.get_added_vocab())
        video = video or tokenizer.convert_ids_to_tokens(slot)
        cut = _cut(tokenizer, video, wrap)
        if cut is None:
            raise ModelError(
                f"{source}: the chat template does not take a video followed by a question; "
                "use the template that came with the checkpoint"
            )
        self._before, self._between, self._after = cut

    def write(self, pieces: Sequence[Piece], question: str, rule: Rule) -> Prompt:
        """Lay out a prompt.

        Args:
            pieces: what stands between the beginning of the user's turn and the question.
            question: the user's words; they are only ever text.
            rule: where the tokens of `Slots` go; all else takes one place each.

        Returns:
            A prompt whose placeholders are the pieces' vectors in order.
        """
        turn = [
            Text(self._before),
            *pieces,
            Text(self._between),
            Text(question, literal=True),
            Text(self._after),
        ]
        ids, places, start = [], [], 0
        for piece in self._joined(turn):
            if isinstance(piece, Slots):
                where, start = rule.place(piece.steps, start)
                ids.append(torch.full((where.shape[1],), self._slot))
            else:
                ids.append(self._plain(piece))
                where = torch.arange(start, start + len(ids[-1])).expand(rule.axes, -1)
                start += len(ids[-1])
            places.append(where)
        return _prompt(torch.cat(ids), torch.cat(places, dim=1))

    def ids(self, question: str) -> torch.Tensor:
        """(L,) int64: a user's words as the tokenizer cuts them, without the turn around them."""
        return self._plain(Text(question, literal=True))

    def _joined(self, pieces: Sequence[Piece]) -> Iterator[Piece]:
        """Neighbouring words as one text, so that they become the tokens of stock transformers.

        Words from outside that hold the name of a special token stay apart.
        """
        words = ""
        for piece in pieces:
            if isinstance(piece, Text) and not (piece.literal and self._spells(piece.text)):
                words += piece.text
                continue
            if words:
                yield Text(words)
            words = ""
            yield piece
        if words:
            yield Text(words)

    def _spells(self, text: str) -> bool:
        return any(name in text for name in self._special)

    def _plain(self, piece: Text | Extra) -> torch.Tensor:
        """(n,) ids of a piece whose places follow one another."""
        if isinstance(piece, Extra):
            return torch.full((len(piece.features),), self._slot)
        with self._lock:
            ids = self._tokenizer.encode(
                piece.text, add_special_tokens=False, split_special_tokens=piece.literal
            )
        return torch.tensor(ids, dtype=torch.int64)


def _prompt(ids: torch.Tensor, places: torch.Tensor) -> Prompt:
    """Ids (S,) and places (A, S) as a batch of one."""
    if len(places) > 1:
        # Masks are made from the first row: holes on the others are not the seams of packed texts.
        places = torch.cat([torch.arange(len(ids))[None], places])[:, None]
    return Prompt(input_ids=ids[None], position_ids=places)


def _cut(tokenizer: Any, video: str, wrap: tuple[str, str]) -> tuple[str, str, str] | None:
    """The chat template's text before the video, between it and the question, and after."""
    both = f"{video}\n{_QUESTION}"
    # Processors' templates take a list of parts; plain tokenizers' ones a string.
    spellings: tuple[Any, ...] = (
        [{"type": "video"}, {"type": "text", "text": _QUESTION}],
        both,
        [{"type": "text", "text": both}],
    )
    for content in spellings:
        try:
            turn = tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=False,
                add_generation_prompt=True,
                # Answers are short: a model that would think aloud first never came to its own.
                # Templates that do not know the name ignore it.
                enable_thinking=False,
            )
        # A template may fail in any way on a spelling that is not its own.
        except Exception:
            continue
        before, _, rest = turn.partition(video)
        between, found, after = rest.partition(_QUESTION)
        between = between.removeprefix(wrap[1])
        if found and not between.strip() and video not in after and _QUESTION not in after:
            return before.removesuffix(wrap[0]), between, after
    return None


def stored(
    pieces: Sequence[Piece], network: Any
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """The vectors that fill the slots of a prompt.

    Args:
        pieces: all pieces of the prompt.
        network: the model that will read it.

    Returns:
        (n, D) features of all slots in order, and (n, L, D) of the deeper layers, both on the
        model's device and in its precision; None where there are none.
    """
    features = [part for piece in pieces for part in _features(piece)]
    steps = [step for piece in pieces if isinstance(piece, Slots) for step in piece.steps]
    deeper = [step.deepstack for step in steps if step.deepstack is not None]
    features, deeper = (
        [part.to(network.device, network.dtype) for part in parts] for parts in (features, deeper)
    )
    return torch.cat(features) if features else None, torch.cat(deeper) if deeper else None


def _features(piece: Piece) -> list[torch.Tensor]:
    if isinstance(piece, Slots):
        return [tokens.features for tokens in piece.steps]
    return [piece.features] if isinstance(piece, Extra) else []


def check_room(prompt: Prompt, room: int, source: str) -> None:
    """Refuse a prompt that the model was not made for.

    Args:
        prompt: the whole prompt.
        room: positions that the model has for it.
        source: what to call the checkpoint in the message.

    Raises:
        ModelError: the prompt reaches further.
    """
    length, reach = prompt.input_ids.shape[1], int(prompt.position_ids.max()) + 1
    if reach <= room:
        return
    wish = "ask with a smaller max_tokens or max_records"
    if length <= room:
        wish += ', or set positions: "compact"'
    raise ModelError(
        f"the prompt has {length} tokens and reaches position {reach}, but {source} has room for "
        f"{room} before its answer; {wish}"
    )
