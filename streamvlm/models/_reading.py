"""Evidence is read once; its keys and values wait for the next question about it.

A prompt is always read in two passes, cut right behind its last visual token, even when nothing
waits. So the same question gets the same numbers to the last bit, whatever was asked before it. The
price is one more short pass for the first question.

With a reducer that asks no question, visual tokens leave in the first pass, and what is left waits.
With one that does, the whole prompt is read in one pass, and nothing waits.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import torch

from streamvlm.models._reduce import Reduction
from streamvlm.models._seats import Seats
from streamvlm.protocols import Reducer
from streamvlm.weights import enough_memory

_PER_TOKEN = ("input_ids", "attention_mask", "position_ids")


@dataclass(frozen=True, slots=True, eq=False)
class _Read:
    """The part of a prompt up to its last visual token, and what the network made of it."""

    evidence: Mapping[str, Any]
    cache: Any


@dataclass(slots=True, eq=False)
class Reader:
    """Reads prompts, and keeps the keys and values of the evidence it read last.

    They are used again only if ids, places, mask and every visual feature are equal. Answers at
    once are safe: what is kept is never written to, each answer goes on from a copy of its own. The
    kept evidence costs its keys and values once more while an answer is spoken, and is let go when
    other evidence comes. The weights must not change while a reader lives.
    """

    network: Any
    """A Hugging Face model with a language-modelling head and causal attention."""
    placeholders: tuple[int, ...]
    """The ids that stand for visual tokens."""
    reducer: Reducer | None = None
    """What takes visual tokens out on the way."""
    _reduction: Reduction | None = field(default=None, init=False, repr=False)
    _last: _Read | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.reducer is not None:
            self._reduction = Reduction(self.network, self.placeholders, self.reducer)

    @property
    def keeps_evidence(self) -> bool:
        """Whether the next question about the same evidence goes on from what was read."""
        return self._reduction is None or self._reduction.is_question_free

    def read(
        self, inputs: Mapping[str, Any], seats: Seats | None = None
    ) -> tuple[Mapping[str, Any], Any]:
        """Read a prompt as far as its evidence goes, if it was not read just before.

        Args:
            inputs: what `forward` takes for the whole prompt, a batch of one: `input_ids` (1, S),
                `attention_mask` (1, S), `position_ids` (…, 1, S), and whatever the visual tokens
                need.
            seats: what stands in its slots, for a reducer.

        Returns:
            What `go_on` takes for the rest, at least one token, and the cache to go on from, which
            is the caller's own. Without visual tokens, with nothing behind them, or with a reducer
            that asks the question, the rest is the whole prompt.
        """
        from transformers import DynamicCache

        cut = self._cut(inputs)
        if not cut:
            return inputs, DynamicCache(config=self.network.config)
        evidence = {
            name: value[..., :cut] if name in _PER_TOKEN else value
            for name, value in inputs.items()
        }
        last = self._last
        if last is None or not _same(last.evidence, evidence):
            # Let go of the old keys and values before the new ones need room.
            last = self._last = None
            cache = DynamicCache(config=self.network.config)
            self.go_on(evidence, cache, seats)
            last = self._last = _Read(evidence, cache)
        with enough_memory("copying what was read", "ask with a smaller max_tokens"):
            return self.rest(inputs, last.cache), deepcopy(last.cache)

    def rest(self, inputs: Mapping[str, Any], cache: Any) -> Mapping[str, Any]:
        """The part of a prompt behind its evidence, as `read` gives it; reads nothing.

        Args:
            inputs: see `read`.
            cache: what `read` made of the evidence.
        """
        cut = self._cut(inputs)
        if not cut:
            return inputs
        # With a reducer, the first layer may have forgotten some of the evidence.
        forgotten = cut - cache.get_seq_length() if self._reduction else 0
        return {
            "input_ids": inputs["input_ids"][..., cut:],
            "attention_mask": inputs["attention_mask"][:, forgotten:],
            "position_ids": inputs["position_ids"][..., cut:],
        }

    def go_on(
        self, inputs: Mapping[str, Any], cache: Any, seats: Seats | None = None
    ) -> torch.Tensor:
        """One pass over what comes next; visual tokens leave if it is the first.

        Args:
            inputs: see `forward`.
            cache: what came before; the tokens are added to it.
            seats: what stands in the slots of the whole prompt, for a reducer.

        Returns:
            (B, V) float32 logits of the token that follows, on the model's device.

        Raises:
            ModelError: the device has not enough memory.
        """
        if self._reduction is None or cache.get_seq_length():
            return forward(self.network, inputs, cache)
        with self._reduction.applied(inputs, seats):
            return forward(self.network, inputs, cache)

    def _cut(self, inputs: Mapping[str, Any]) -> int:
        """Where the evidence ends; 0 if there is none, nothing behind it, or no use in knowing."""
        if not self.keeps_evidence:
            return 0
        ids = inputs["input_ids"][0]
        seen = torch.isin(ids, torch.tensor(self.placeholders, device=ids.device)).nonzero()
        cut = int(seen[-1]) + 1 if len(seen) else 0
        return cut if cut < len(ids) else 0


@torch.inference_mode()
def forward(network: Any, inputs: Mapping[str, Any], cache: Any) -> torch.Tensor:
    """One pass over what comes next.

    Args:
        network: a Hugging Face model with a language-modelling head.
        inputs: what its `forward` takes for the next n ≥ 1 tokens of B texts, with the mask of all
            tokens so far.
        cache: what came before; the n tokens are added to it.

    Returns:
        (B, V) float32 logits of the token that follows, on the model's device.

    Raises:
        ModelError: the device has not enough memory.
    """
    with enough_memory("reading and answering", "ask with a smaller max_tokens"):
        out = network(**inputs, past_key_values=cache, use_cache=True, logits_to_keep=1)
    return out.logits[:, -1].float()  # type: ignore[no-any-return]


def _same(one: Any, other: Any) -> bool:
    """Whether two nests of mappings, sequences and tensors hold equal values of equal types."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        alike = (one.dtype, one.device) == (other.dtype, other.device)
        return alike and torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)
