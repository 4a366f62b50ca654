"""Side signals of a vision tower: what it looks at, and its keys, read while its fast kernel runs.

The cues, with the compressors that read them in their papers and codes:

- `attention` (N,): attention that a place receives, mean over heads and queries. HoliTom, HiPrune;
  FastVID, VisionZip and VisPruner where the tower has no summary of its own.
- `attention_middle` (N,): the same in a layer a third of the way up. HiPrune.
- `cls_attention` (N,): attention of the tower's own summary, the [CLS] token or the learned query
  of a pooling head, mean over heads. FasterVLM, VisionZip, VisPruner, VScan, FastVID.
- `keys` (N, d): keys, after any rotary turn, mean over heads. VisionZip.
- `frame_vector` (T, D): one vector a step. FastVID. Not from here: a family makes it from the
  tower's output.

A family pools them as it pools its tokens, so that each value stands at its token's place. They are
float32 whatever the tower runs in.

transformers lets any function stand in for its attention. Ours passes everything on to the sdpa
kernel unchanged, so that the tower's output stays equal to the last bit; beside it, and for watched
layers only, it computes the rows that a signal needs. Asking transformers for attentions instead
would turn off the fast kernel in every layer and keep the weights of all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from streamvlm.errors import ModelError

KERNEL = "streamvlm_tap"
"""The name under which transformers knows our attention function."""

_AT_ONCE = 2**24
"""Attention weights in memory at once: 64 MiB in float32."""

_Signal = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, float], torch.Tensor]
"""(B, h, P, d) queries and keys, (B or 1, h or 1, P or 1, P) bool mask, scale → (B, P, …)."""


@dataclass(frozen=True, slots=True, eq=False)
class Watcher:
    """One signal of one module, for as long as somebody watches."""

    module: Any
    signal: _Signal
    found: list[torch.Tensor] = field(default_factory=list)
    """(B, P, …) for each call: one for a whole batch, or one for each temporal unit."""
    only: bool = False
    """Leave out the kernel: only the signal is wanted, what the module gives means nothing."""


# A context variable, so that threads can look through one tower at once and see only their own.
_watchers: ContextVar[tuple[Watcher, ...]] = ContextVar("_watchers", default=())


@contextmanager
def watching(*watchers: Watcher) -> Iterator[None]:
    """Let some more look inside the `with` block, in this thread."""
    before = _watchers.set((*_watchers.get(), *watchers))
    try:
        yield
    finally:
        _watchers.reset(before)


@dataclass(frozen=True, eq=False)
class Taps:
    """Where to listen to a vision tower; made once, after its weights are loaded.

    The tower then calls our attention function for good, which computes nothing more outside
    `watch`.

    Raises:
        ModelError: the tower does not run the sdpa kernel, or has no such layer.
    """

    tower: Any
    """A `PreTrainedModel` of transformers; its attention is set to `KERNEL`."""
    attentions: Sequence[torch.nn.Module]
    """The attention module of each of its layers, in order."""
    layer: int = -1
    """Which to listen to; negative numbers count from the end."""
    middle: int | None = None
    """Which gives `attention_middle`; None for a third of the way up, where HiPrune has it."""
    prefix: int = 0
    """How many entries stand before the patches of a picture: 1 where there is a [CLS] token."""
    probe: torch.nn.MultiheadAttention | None = None
    """The attention of a pooling head with one learned query, as SigLIP's."""

    def __post_init__(self) -> None:
        depth, kernel = len(self.attentions), self.tower.config._attn_implementation
        if kernel not in ("sdpa", KERNEL):
            raise ModelError(
                f"cues cannot be read from a tower that runs {kernel} attention; choose sdpa, or a "
                "compressor that needs no cues"
            )
        for at in (self.layer, self._middle):
            if not -depth <= at < depth:
                raise ModelError(
                    f"there is no layer {at} to read cues from, the tower has {depth}; choose one "
                    f"from 0 to {depth - 1}, or from -1 to {-depth}"
                )
        register()
        self.tower.set_attn_implementation(KERNEL)
        # The hook stays with the module, which may have it from taps made earlier.
        if self.probe is not None and _on_probe not in self.probe._forward_hooks.values():
            self.probe.register_forward_hook(_on_probe)

    @property
    def offered(self) -> frozenset[str]:
        """The cues that `watch` can give."""
        summary = {"cls_attention"} if self.prefix or self.probe is not None else set[str]()
        return frozenset({"attention", "attention_middle", "keys"} | summary)

    @contextmanager
    def watch(self, cues: Iterable[str]) -> Iterator[dict[str, torch.Tensor]]:
        """Listen to the tower inside the `with` block, in this thread.

        Args:
            cues: what is wanted; names that are not `offered` are left to others.

        Yields:
            A dictionary that is empty until the block has ended, then {cue: (P, …) float32} of the
            patches of all pictures, in the order in which the tower holds them.
        """
        seen: dict[str, torch.Tensor] = {}
        watchers = {name: self._watcher(name) for name in sorted(self.offered & set(cues))}
        with watching(*watchers.values()):
            yield seen
        for name, watcher in watchers.items():
            prefix = 0 if watcher.module is self.probe else self.prefix
            seen[name] = torch.cat([call[:, prefix:].flatten(0, 1) for call in watcher.found])

    @property
    def _middle(self) -> int:
        return len(self.attentions) // 3 if self.middle is None else self.middle

    def _watcher(self, cue: str) -> Watcher:
        if cue == "cls_attention":
            return Watcher(self.probe or self.attentions[self.layer], _from_first)
        if cue == "keys":
            return Watcher(self.attentions[self.layer], _keys)
        at = self._middle if cue == "attention_middle" else self.layer
        return Watcher(self.attentions[at], _received)


def register() -> None:
    """Make our function known to transformers, and sdpa's masks under the same name.

    Without those transformers makes no masks for it, and what is causal would not be.
    """
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(KERNEL, _attend)
    AttentionMaskInterface.register(KERNEL, sdpa_mask)


def _attend(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> Any:
    """The attention function that transformers calls: sdpa's, and beside it what is watched."""
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    for watcher in _watchers.get():
        if watcher.module is module:
            scale = options.get("scaling") or query.shape[-1] ** -0.5
            watcher.found.append(watcher.signal(query, key, attention_mask, scale))
            if watcher.only:
                return query.transpose(1, 2), None
    return sdpa_attention_forward(module, query, key, value, attention_mask, **options)


def _on_probe(module: Any, _: Any, output: tuple[torch.Tensor, torch.Tensor]) -> None:
    """Called after a pooling head's attention, which computes its weights (B, 1, P) anyway."""
    for watcher in _watchers.get():
        if watcher.module is module:
            watcher.found.append(output[1][:, 0].float())


def _received(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """(B, P): attention to each entry, mean over heads and queries; each row sums to 1."""
    batch, heads, count = query.shape[:3]
    rows = max(1, _AT_ONCE // (batch * heads * key.shape[2]))
    total = query.new_zeros(batch, key.shape[2], dtype=torch.float32)
    for first in range(0, count, rows):
        some = slice(first, first + rows)
        part = None if mask is None else mask.expand(-1, -1, count, -1)[:, :, some]
        total += weights(query[:, :, some], key, part, scale).sum((1, 2))
    return total / (heads * count)


def _from_first(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """(B, P): attention from the first entry to each, mean over heads."""
    row = None if mask is None else mask[:, :, :1]
    return weights(query[:, :, :1], key, row, scale)[:, :, 0].mean(1)


def _keys(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """(B, P, d): keys, mean over heads."""
    return key.float().mean(1)


def weights(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """(B, h, Q, P) float32: attention weights as the eager kernel has them, in full precision."""
    scores = (query.float() * scale) @ key.float().mT
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1)
