"""A question and any subset of visual tokens become one prompt, each token at its own place.

The visual block opens the user's turn: before the tokens of each time step stands its time, after
the last step one slot more, which the family fills. A step from which nothing was kept vanishes
with its time.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal
from urllib.parse import urlsplit

import torch

from streamvlm.errors import ModelError
from streamvlm.types import Evidence, VisualTokens

Positions = Literal["full", "compact"]

_QUESTION = "\u2402question\u2403"
"""Stands for the question while the chat template is applied; no real text holds it."""


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What a language model is given, a batch of one."""

    input_ids: torch.Tensor
    """(1, S) int64; every visual token is a placeholder id."""
    position_ids: torch.Tensor
    """(1, S) int64, increasing; holes where tokens were dropped."""


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """A stretch of a prompt: some text, or the slots of one time step."""

    ids: torch.Tensor
    offset: torch.Tensor
    length: int


class Template:
    """The chat template of a checkpoint, cut at the video and at the question.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        placeholder: id of the token that stands for one visual token.
        source: what to call the checkpoint in messages.

    Raises:
        ModelError: there is no chat template, or it does not take a video and a question.
    """

    def __init__(self, tokenizer: Any, placeholder: int, source: str) -> None:
        self._tokenizer = tokenizer
        self._placeholder = placeholder
        # A fast tokenizer keeps the switch for special tokens as state.
        self._lock = threading.Lock()
        if tokenizer.chat_template is None:
            raise ModelError(f"{source} has no chat template; add its chat_template.jinja")
        if placeholder >= len(tokenizer):
            raise ModelError(
                f"{source}: the tokenizer has {len(tokenizer)} tokens, but the configuration's "
                f"video token is number {placeholder}; take both files from one checkpoint"
            )
        video = tokenizer.convert_ids_to_tokens(placeholder)
        before, between, after = _cut(tokenizer, video, source)
        self._between = between
        self._start, self._end = self._trusted(before), self._trusted(after)

    def write(
        self,
        blocks: Sequence[tuple[str, VisualTokens]],
        question: str,
        *,
        positions: Positions,
    ) -> Prompt:
        """Lay out a prompt.

        Args:
            blocks: for each time step in order, the text before it and its tokens (n ≥ 1).
            question: the user's words. Like the texts before the steps, they are only ever text: a
                placeholder's name in them adds no slot.
            positions: `full` gives every step its whole grid of positions, so a token keeps its
                distance to all others whatever was dropped; `compact` closes the holes.

        Returns:
            A prompt whose placeholders are the blocks' tokens in order and one more.
        """
        pieces = [_text(self._start)]
        for caption, tokens in blocks:
            if caption:
                pieces.append(_text(self._words(caption)))
            pieces.append(self._slots(tokens, positions))
        closing = torch.tensor([self._placeholder])
        pieces += [_text(closing), _text(self._words(self._between + question)), _text(self._end)]
        starts = torch.tensor([0, *(piece.length for piece in pieces)]).cumsum(0)
        places = [piece.offset + start for piece, start in zip(pieces, starts[:-1], strict=True)]
        ids = torch.cat([piece.ids for piece in pieces])
        return Prompt(input_ids=ids[None], position_ids=torch.cat(places)[None])

    def _slots(self, tokens: VisualTokens, positions: Positions) -> _Piece:
        ids = torch.full((len(tokens),), self._placeholder)
        if positions == "compact":
            return _text(ids)
        _, rows, columns = tokens.grid
        place = (tokens.flat_index % (rows * columns)).cpu()
        return _Piece(ids=ids, offset=place, length=rows * columns)

    def _trusted(self, text: str) -> torch.Tensor:
        return self._ids(text, literal=False)

    def _words(self, text: str) -> torch.Tensor:
        return self._ids(text, literal=True)

    def _ids(self, text: str, *, literal: bool) -> torch.Tensor:
        if not text:
            return torch.empty(0, dtype=torch.int64)
        with self._lock:
            ids = self._tokenizer.encode(
                text, add_special_tokens=False, split_special_tokens=literal
            )
        return torch.tensor(ids, dtype=torch.int64)


def _text(ids: torch.Tensor) -> _Piece:
    return _Piece(ids=ids, offset=torch.arange(len(ids)), length=len(ids))


def _cut(tokenizer: Any, video: str, source: str) -> tuple[str, str, str]:
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
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
        # A template may fail in any way on a spelling that is not its own.
        except Exception:
            continue
        before, _, rest = turn.partition(video)
        between, found, after = rest.partition(_QUESTION)
        if found and not between.strip() and video not in after and _QUESTION not in after:
            return before, between, after
    raise ModelError(
        f"{source}: the chat template does not take a video followed by a question; "
        "use the template that came with the checkpoint"
    )


def steps(evidence: Sequence[Evidence], *, timestamps: bool) -> Iterator[tuple[str, VisualTokens]]:
    """The time steps of some evidence, each with the text that comes before its tokens.

    Streams come one after the other, each in time order. With several streams, each one's file name
    stands on a line of its own before its first time.

    Args:
        evidence: records in any order.
        timestamps: whether to write times and names at all.

    Yields:
        The text and the step's tokens (n ≥ 1).
    """
    ordered = sorted(evidence, key=lambda item: (item.record.stream, item.record.start))
    labels = _labels([item.record.stream for item in ordered])
    last = None
    for item in ordered:
        tokens, stream = item.record.tokens, item.record.stream
        # Tokens are in time order, so each step is one run of rows.
        _, counts = torch.unique_consecutive(tokens.position[:, 0], return_counts=True)
        ends = counts.cumsum(0).tolist()
        for first, end in zip([0, *ends[:-1]], ends, strict=True):
            step = tokens.select(torch.arange(first, end, device=tokens.features.device))
            caption = clock(float(step.seconds[0])) if timestamps else ""
            if timestamps and len(labels) > 1 and stream != last:
                caption = f"{'' if last is None else chr(10)}{labels[stream]}\n{caption}"
            last = stream
            yield caption, step


def check_room(prompt: Prompt, room: int, source: str) -> None:
    """Refuse a prompt that the model was not made for.

    Args:
        prompt: the whole prompt.
        room: positions that the model has for it.
        source: what to call the checkpoint in the message.

    Raises:
        ModelError: the prompt reaches further.
    """
    length, reach = prompt.input_ids.shape[1], int(prompt.position_ids[0, -1]) + 1
    if reach <= room:
        return
    wish = "ask with a smaller max_tokens or max_records"
    if length <= room:
        wish += ', or set positions: "compact"'
    raise ModelError(
        f"the prompt has {length} tokens and reaches position {reach}, but {source} has room for "
        f"{room} before its answer; {wish}"
    )


def clock(seconds: float) -> str:
    """Seconds as the prompt writes them: `01:05`, from one hour on `01:00:05`; rounded down."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours:02}:{minute:02}:{second:02}" if hours else f"{minute:02}:{second:02}"


def _labels(streams: Sequence[str]) -> dict[str, str]:
    """A short name for each stream; its whole id where short names would clash."""
    short = {stream: PurePosixPath(urlsplit(stream).path).name or stream for stream in streams}
    taken = list(short.values())
    return {stream: name if taken.count(name) == 1 else stream for stream, name in short.items()}
