"""A language model speaks piece by piece; it works only as far as somebody listens.

A loop of our own over `forward` instead of transformers' `generate`, because it hands out each
piece with its probability before the next is computed, needs no thread, and stops the moment the
iterator is closed. Greedy words equal those of `generate` (held by a test).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from streamvlm.models._reading import Reader
from streamvlm.models._seats import Seats
from streamvlm.models._speech import Speech
from streamvlm.protocols import Reducer
from streamvlm.types import Word
from streamvlm.weights import enough_memory


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
    stop: tuple[str, ...] = ()
    """Words that end an answer; they are not said."""
    reducer: Reducer | None = None
    """What takes visual tokens out while a prompt is read; None for nothing."""
    _reader: Reader = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._reader = Reader(self.network, self.placeholders, self.reducer)

    @property
    def stops(self) -> frozenset[int]:
        """The ids that end an answer."""
        listed = self.network.generation_config.eos_token_id
        several = listed if isinstance(listed, list) else [listed]
        return frozenset({*several, self.tokenizer.eos_token_id} - {None})

    def speak(self, inputs: Mapping[str, Any], seats: Seats | None = None) -> Iterator[Word]:
        """Answer a prompt; evidence that was read for the last one is not read again.

        Sampling settings that a checkpoint ships (repetition penalty, top-p) are not used.

        Args:
            inputs: what `forward` takes for the whole prompt, a batch of one, with explicit
                `position_ids` (…, 1, S) and `attention_mask` (1, S).
            seats: what stands in its slots, for a reducer.

        Yields:
            Pieces whose texts join to the whole answer, each with the probability the model gave
            it at temperature 1. A character that takes several tokens comes in one piece, and what
            may be the beginning of a stop word comes when it is known not to be.

        Raises:
            ModelError: the device has not enough memory.
        """
        question, cache = self._reader.read(inputs, seats)
        dice = torch.Generator().manual_seed(0)
        speech = self._speech()
        following = question
        while not speech.ended:
            token, chance = self._choose(self._reader.go_on(following, cache, seats)[0], dice)
            if word := speech.hear(token, chance):
                yield word
            following = _after(question, [token], len(speech.said))
        if word := speech.rest():
            yield word

    def speak_all(
        self, prompts: Sequence[Mapping[str, Any]], seats: Seats | None = None
    ) -> list[str]:
        """Answer several questions about the same evidence at once.

        The evidence is read once. Its keys and values are held once for each question. With a
        reducer that asks the question, each reads for itself, one after the other.

        Args:
            prompts: what `speak` takes for each; all equal up to the last visual token. Only the
                first needs the visual features.
            seats: what stands in their slots, for a reducer.

        Returns:
            The answers, each as `speak` would give it, up to rounding.

        Raises:
            ModelError: the device has not enough memory.
        """
        if not prompts:
            return []
        if not self._reader.keeps_evidence:
            whole = ({**prompts[0], **inputs} for inputs in prompts)
            return ["".join(map(str, self.speak(inputs, seats))) for inputs in whole]
        _, cache = self._reader.read(prompts[0], seats)
        question = _side_by_side([self._reader.rest(inputs, cache) for inputs in prompts])
        with enough_memory("copying what was read", "ask fewer questions at once"):
            cache.batch_repeat_interleave(len(prompts))
        dice = [torch.Generator().manual_seed(0) for _ in prompts]
        speeches = [self._speech() for _ in prompts]
        following, count = question, 0
        while not all(speech.ended for speech in speeches):
            logits = self._reader.go_on(following, cache, seats)
            chosen = [self._choose(row, own) for row, own in zip(logits, dice, strict=True)]
            for speech, (token, chance) in zip(speeches, chosen, strict=True):
                speech.hear(token, chance)
            count += 1
            following = _after(question, [token for token, _ in chosen], count)
        for speech in speeches:
            speech.rest()
        return [speech.text for speech in speeches]

    def _speech(self) -> Speech:
        return Speech(self.tokenizer, self.stops, self.stop, self.max_new_tokens)

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


def _after(question: Mapping[str, Any], tokens: list[int], count: int) -> Mapping[str, Any]:
    """What `forward` takes for the tokens said last, `count` places behind each question."""
    ids, mask, places = (question[name] for name in ("input_ids", "attention_mask", "position_ids"))
    return {
        "input_ids": torch.tensor(tokens, device=ids.device, dtype=ids.dtype)[:, None],
        "attention_mask": torch.cat([mask, torch.ones_like(mask[:, :1]).expand(-1, count)], dim=1),
        "position_ids": places[..., -1:] + count,
    }


def _side_by_side(rests: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Rests of prompts as one batch; shorter ones are filled up on the left, and masked there."""
    width = max(rest["input_ids"].shape[1] for rest in rests)
    filled = [_fill(rest, width - rest["input_ids"].shape[1]) for rest in rests]
    return {
        # Places may have a row for each axis; texts are always the last dimension but one.
        name: torch.cat([rest[name] for rest in filled], dim=-2)
        for name in ("input_ids", "attention_mask", "position_ids")
    }


def _fill(rest: Mapping[str, Any], missing: int) -> Mapping[str, Any]:
    ids, mask, places = (rest[name] for name in ("input_ids", "attention_mask", "position_ids"))
    seen = mask.shape[1] - ids.shape[1]
    gap = mask.new_zeros(1, missing)
    return {
        "input_ids": torch.cat([ids[:, :1].expand(-1, missing), ids], dim=1),
        "attention_mask": torch.cat([mask[:, :seen], gap, mask[:, seen:]], dim=1),
        "position_ids": torch.cat(
            [places[..., :1].expand(*places.shape[:-1], missing), places], -1
        ),
    }
