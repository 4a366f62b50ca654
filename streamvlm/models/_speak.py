"""A language model speaks piece by piece; it works only as far as somebody listens.

A loop of our own over `forward` instead of transformers' `generate`, because it hands out each
piece with its probability before the next is computed, needs no thread, and stops the moment the
iterator is closed. Greedy words equal those of `generate` (held by a test).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from streamvlm.models._reading import Reader, forward
from streamvlm.types import Word


@dataclass(slots=True, eq=False)
class Voice:
    """The speaking half of a model."""

    network: Any
    """A Hugging Face model with a language-modelling head."""
    tokenizer: Any
    """Its tokenizer."""
    placeholders: tuple[int, ...]
    """The ids that stand for visual tokens; they are never said."""
    max_new_tokens: int
    """Stop after this many tokens."""
    temperature: float
    """0 takes the likeliest token; above, tokens are drawn with a fixed seed."""
    _reader: Reader = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._reader = Reader(self.network, self.placeholders)

    @property
    def stops(self) -> frozenset[int]:
        """The ids that end an answer."""
        listed = self.network.generation_config.eos_token_id
        several = listed if isinstance(listed, list) else [listed]
        return frozenset({*several, self.tokenizer.eos_token_id} - {None})

    def speak(self, inputs: Mapping[str, Any]) -> Iterator[Word]:
        """Answer a prompt; evidence that was read for the last one is not read again.

        Sampling settings that a checkpoint ships (repetition penalty, top-p) are not used.

        Args:
            inputs: what `forward` takes for the whole prompt, a batch of one, with explicit
                `position_ids` (…, S) and `attention_mask` (1, S).

        Yields:
            Pieces whose texts join to the whole answer, each with the probability the model gave
            it at temperature 1. A character that takes several tokens comes in one piece.
        """
        question, cache = self._reader.read(inputs)
        dice = torch.Generator().manual_seed(0)
        stops = self.stops
        said: list[int] = []
        spoken, probability = "", 1.0
        while len(said) < self.max_new_tokens:
            following = _after(question, said) if said else question
            logits = forward(self.network, following, cache)
            token, chance = self._choose(logits, dice)
            if token in stops:
                break
            said.append(token)
            probability *= chance
            text = self._text(said)
            # Half a character decodes to U+FFFD; hold it back until the rest has come.
            if len(text) > len(spoken) and not text.endswith("\ufffd"):
                yield Word(text[len(spoken) :], probability)
                spoken, probability = text, 1.0
        if len(rest := self._text(said)) > len(spoken):
            yield Word(rest[len(spoken) :], probability)

    def _choose(self, logits: torch.Tensor, dice: torch.Generator) -> tuple[int, float]:
        logits = logits.cpu().index_fill(
            0, torch.tensor(self.placeholders, dtype=torch.int64), -torch.inf
        )
        chances = logits.softmax(0)
        if self.temperature:
            drawn = torch.multinomial((logits / self.temperature).softmax(0), 1, generator=dice)
            token = int(drawn)
        else:
            token = int(chances.argmax())
        return token, float(chances[token])

    def _text(self, ids: list[int]) -> str:
        text: str = self.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text


def _after(question: Mapping[str, Any], said: list[int]) -> Mapping[str, Any]:
    """What `forward` takes for the token said last."""
    ids, mask, places = (question[name] for name in ("input_ids", "attention_mask", "position_ids"))
    seen = torch.ones_like(mask[:, :1]).expand(-1, len(said))
    return {
        "input_ids": torch.full_like(ids[:, :1], said[-1]),
        "attention_mask": torch.cat([mask, seen], dim=1),
        "position_ids": places[..., -1:] + len(said),
    }
