"""Visual tokens leave inside the language model, while it reads a prompt from its beginning.

Hooks before its decoder layers do it. At a layer that a reducer chose, rows leave the hidden
states; that layer and all above it are given the turns, places and masks of what is left. Words
spoken later need nothing more: each layer goes on from its own keys and values, and a mask, made by
transformers for the first layer, is cut to each layer's length. Attention that a reducer wants is
computed row by row beside the sdpa kernel, which goes on as ever.

S rows of the sequence, V of them visual, M kept, D features.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

from streamvlm.errors import ModelError
from streamvlm.models._looking import attention_to
from streamvlm.models._merging import merged
from streamvlm.models._seats import Seats
from streamvlm.models._taps import KERNEL, Watcher, register, watching
from streamvlm.protocols import Reducer
from streamvlm.reduction import QUESTION_FREE, Plan, VisualRows


@dataclass(frozen=True, eq=False)
class Reduction:
    """A reducer at work in a language model, whose layers then call our hook for good.

    Raises:
        ModelError: the model cannot let go of rows between its layers.
    """

    network: Any
    """A Hugging Face model with a language-modelling head."""
    placeholders: tuple[int, ...]
    """The ids that stand for visual tokens."""
    reducer: Reducer
    """What decides."""
    _at: tuple[int, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        decoder, name = self._decoder, type(self.reducer).__name__
        _check_layers(decoder, name)
        if (kernel := decoder.config._attn_implementation) not in ("sdpa", KERNEL):
            raise ModelError(
                f"{name} reads attention beside the sdpa kernel, but the model runs {kernel}; set "
                "attention: sdpa, or leave the reducer out"
            )
        depth, lowest = len(decoder.layers), self._lowest
        at = self.reducer.layers(depth, lowest)
        if wrong := [layer for layer in at if not lowest <= layer < depth]:
            raise ModelError(
                f"{name} cannot take rows out at layer {wrong[0]}: this model has {depth}, and "
                f"rows may leave from {lowest} on; choose other layers, or leave the reducer out"
            )
        object.__setattr__(self, "_at", at)
        register()
        decoder.set_attn_implementation(KERNEL)
        for layer in decoder.layers:
            if _on_layer not in layer._forward_pre_hooks.values():
                layer.register_forward_pre_hook(_on_layer, with_kwargs=True)

    @property
    def is_question_free(self) -> bool:
        """Whether it decides alike whatever is asked."""
        return self.reducer.wants in QUESTION_FREE

    @contextmanager
    def applied(self, inputs: Mapping[str, Any], seats: Seats | None) -> Iterator[None]:
        """Let rows leave in a pass that starts from an empty cache, inside the `with` block.

        Args:
            inputs: what `forward` takes, a batch of one.
            seats: what stands in the slots of the whole prompt.

        Raises:
            ValueError: these are not the seats of these inputs.
        """
        ids = inputs["input_ids"][0]
        slots = torch.isin(ids, torch.tensor(self.placeholders, device=ids.device)).nonzero()[:, 0]
        place = torch.empty(0, 4) if seats is None else seats.place
        if len(place) != len(slots):
            raise ValueError(f"{len(slots)} slots, but {len(place)} seats")
        is_token = place[:, 0].to(ids.device) >= 0
        if seats is None or not is_token.any():
            yield
            return
        running = _Pass(
            self,
            slots[is_token],
            seats.place.to(ids.device)[is_token],
            seats.weight.to(ids.device)[is_token],
            torch.arange(len(ids), device=ids.device),
        )
        before = _running.set(running)
        try:
            with watching(*running.watchers.values()):
                yield
        finally:
            _running.reset(before)

    @property
    def _decoder(self) -> Any:
        model = self.network.model
        return model.language_model if hasattr(model, "language_model") else model.text_model

    @property
    def _lowest(self) -> int:
        """Up to here the model adds deeper features to all visual rows."""
        vision = self.network.config.vision_config
        return len(getattr(vision, "deepstack_visual_indexes", ()))


def _check_layers(decoder: Any, name: str) -> None:
    from transformers import DynamicCache
    from transformers.cache_utils import DynamicLayer

    kinds = {type(layer) for layer in DynamicCache(config=decoder.config).layers}
    if kinds - {DynamicLayer}:
        raise ModelError(
            f"{name} takes visual tokens out between layers, which needs keys and values of every "
            f"token in every layer, but {decoder.config.model_type} has layers that keep a running "
            "state or a window; use another model, or leave the reducer out"
        )


# A context variable, so that threads can read at once and each sees only its own pass.
_running: ContextVar[_Pass | None] = ContextVar("_running", default=None)


@dataclass(slots=True, eq=False)
class _Pass:
    """One pass over a prompt, from the first layer to the last."""

    reduction: Reduction
    visual: torch.Tensor
    """(V,) int64: where the visual rows stand among those alive."""
    place: torch.Tensor
    """(V, 4) int64: their seats."""
    weight: torch.Tensor
    """(V,) float32: how many source tokens each stands for by now."""
    alive: torch.Tensor
    """(S',) int64: which rows of the whole sequence are alive."""
    watchers: dict[int, Watcher] = field(default_factory=dict)
    """What looks at the layer below each that is in the plan."""
    read: list[torch.Tensor] = field(default_factory=list)
    """Which rows of the whole sequence each layer below has read."""
    counts: list[int] = field(default_factory=list)
    """And how many of them were visual."""
    note: str = ""
    """What the reducer noted last."""
    total: int = field(init=False)
    """How many were visual at first."""

    def __post_init__(self) -> None:
        self.total = len(self.visual)
        reduction = self.reduction
        if reduction.reducer.wants not in ("none", "last_query_ahead"):
            layers = reduction._decoder.layers
            self.watchers = {
                at: Watcher(layers[at - 1].self_attn, self.look) for at in reduction._at if at
            }

    def look(
        self, query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor | None, scale: float
    ) -> torch.Tensor:
        """(V,): the signal that the reducer wants, from the queries and keys of one layer."""
        seen = None if mask is None else mask[0, 0]
        return attention_to(self.visual, self.reduction.reducer.wants)(query, key, seen, scale)

    def enter(self, layer: Any, hidden: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
        """Before a layer: let rows leave if it is one to plan for, and cut its options to the rest.

        Args:
            layer: the decoder layer.
            hidden: (1, S', D) what the layer below gave.
            options: its keyword arguments, for all S rows; changed in place.

        Returns:
            (1, S'', D).
        """
        index, whole = layer.self_attn.layer_idx, dict(options)
        _cut(options, whole, self.alive)
        if index in self.reduction._at:
            plan = self._plan(index, layer, hidden, options)
            if len(plan.keep) < len(self.visual):
                hidden = self._leave(hidden, plan)
                _cut(options, whole, self.alive)
                if plan.cut_caches:
                    self._forget(options["past_key_values"])
        self.read.append(self.alive)
        self.counts.append(len(self.visual))
        return hidden

    def _plan(
        self, index: int, layer: Any, hidden: torch.Tensor, options: Mapping[str, Any]
    ) -> Plan:
        reduction = self.reduction
        signal = None
        if index in self.watchers:
            signal = self.watchers[index].found[-1]
        elif reduction.reducer.wants == "last_query_ahead":
            watcher = Watcher(layer.self_attn, self.look, only=True)
            with watching(watcher):
                states = layer.input_layernorm(hidden)
                layer.self_attn(hidden_states=states, **{**options, "past_key_values": None})
            (signal,) = watcher.found
        rows = VisualRows(
            hidden[0, self.visual],
            self.place,
            self.weight,
            layer=index,
            depth=len(reduction._decoder.layers),
            lowest=reduction._lowest,
            total=self.total,
            alive=tuple(self.counts),
            note=self.note,
        )
        plan = reduction.reducer.plan(rows, signal)
        self.note = plan.note
        return plan

    def _leave(self, hidden: torch.Tensor, plan: Plan) -> torch.Tensor:
        """Carry out a plan: (1, S', D) → (1, S'', D)."""
        stays = torch.ones(hidden.shape[1], dtype=torch.bool, device=hidden.device)
        stays[self.visual] = False
        stays[self.visual[plan.keep]] = True
        mixed = merged(hidden[0, self.visual], plan)
        if plan.source is not None and plan.target is not None:
            self.weight = self.weight.index_add(0, plan.target, self.weight[plan.source])
        self.visual = stays.cumsum(0)[self.visual[plan.keep]] - 1
        self.place, self.weight = self.place[plan.keep], self.weight[plan.keep]
        self.alive = self.alive[stays]
        return hidden[:, stays].index_copy(1, self.visual, mixed[None])

    def _forget(self, cache: Any) -> None:
        """Cut what the layers below have read to what is alive."""
        for number, rows in enumerate(self.read):
            stays = torch.isin(rows, self.alive)
            layer = cache.layers[number]
            layer.keys, layer.values = layer.keys[:, :, stays], layer.values[:, :, stays]
            self.read[number] = rows[stays]


def _cut(options: dict[str, Any], whole: Mapping[str, Any], alive: torch.Tensor) -> None:
    """Put the rows of turns, places and mask that are alive in place of all."""
    cos, sin = whole["position_embeddings"]
    if len(alive) == cos.shape[-2]:
        return
    options["position_embeddings"] = (cos[..., alive, :], sin[..., alive, :])
    if (places := whole.get("position_ids")) is not None:
        options["position_ids"] = places[..., alive]
    if (mask := whole.get("attention_mask")) is not None:
        options["attention_mask"] = mask[:, :, alive][..., alive]


def _on_layer(layer: Any, given: tuple[Any, ...], options: dict[str, Any]) -> Any:
    """Called before every decoder layer: reduce, or cut a mask to this layer's own keys.

    All that left stood in the evidence, which every later word may see: so of the mask's columns
    for it any will do, and the first ones go.
    """
    hidden, *rest = given
    if (running := _running.get()) is not None:
        return (running.enter(layer, hidden, options), *rest), options
    mask, cache = options.get("attention_mask"), options.get("past_key_values")
    if mask is not None and cache is not None:
        length = cache.get_seq_length(layer.self_attn.layer_idx) + hidden.shape[1]
        if mask.shape[-1] > length:
            options["attention_mask"] = mask[..., -length:]
    return given, options
