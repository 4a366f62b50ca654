"""Every rule of the contract broken on purpose: the checks of test_contract.py can fail."""

from __future__ import annotations

import runpy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from streamvlm.types import VisualTokens

CHECKS = runpy.run_path(str(Path(__file__).with_name("test_contract.py")))["CHECKS"]


@dataclass(frozen=True)
class Honest:
    """Keeps the first tokens (baseline): a compressor that follows the rules, to break them in."""

    keep: float = 0.25
    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if not 0 < self.keep <= 1:
            raise ValueError("keep must be a share")

    def __call__(self, tokens: VisualTokens, previous: VisualTokens | None = None) -> VisualTokens:
        count = max(1, round(self.keep * len(tokens)))
        return tokens if count >= len(tokens) else self.choose(tokens, count)

    def choose(self, tokens: VisualTokens, count: int) -> VisualTokens:
        return tokens.select(torch.arange(count))


def merge_all(tokens: VisualTokens, count: int, weight: torch.Tensor) -> VisualTokens:
    """Every kept token becomes the mean of the whole clip, standing for `weight` each."""
    share = tokens.weight / tokens.weight.sum()
    return replace(
        tokens.select(torch.arange(count)),
        features=(share @ tokens.features).repeat(count, 1),
        deepstack=(share @ tokens.deepstack[:, 0]).repeat(count, 1, 1),
        weight=weight.repeat(count),
    )


def merge_last(tokens: VisualTokens, count: int) -> VisualTokens:
    """Every kept token becomes its mean with the last token of the clip."""
    out, last = tokens.select(torch.arange(count)), tokens.select(torch.tensor([-1]))
    features, stack = out.features.lerp(last.features, 0.5), out.deepstack.lerp(last.deepstack, 0.5)
    return replace(out, features=features, deepstack=stack, weight=out.weight + last.weight)


def scaled(tokens: VisualTokens, factor: torch.Tensor | float) -> VisualTokens:
    return replace(tokens, features=tokens.features * factor)


def first(tokens: VisualTokens, count: int) -> VisualTokens:
    return tokens.select(torch.arange(count))


BROKEN = {
    "one too many": ("any_clip_any_keep", "allowed are", lambda t, n: first(t, n + 1)),
    "none at all": ("any_clip_any_keep", "allowed are", lambda t, n: first(t, 0)),
    "backwards": (
        "any_clip_any_keep",
        "not in time",
        lambda t, n: t.select(torch.arange(n).flip(0)),
    ),
    "positions packed anew": (
        "any_clip_any_keep",
        "(seconds|cue .*) is not that of",
        lambda t, n: replace(t.select(torch.arange(-n, 0)), position=t.position[:n]),
    ),
    "input written": (
        "input_unchanged",
        "features differs",
        lambda t, n: (t.features.mul_(2), first(t, n))[1],
    ),
    "sums, not means": ("weighted_means", "close", lambda t, n: scaled(first(t, n), 2)),
    "weights too heavy": (
        "weighted_means",
        "too much",
        lambda t, n: merge_all(t, n, t.weight.sum()),
    ),
    "head too light": (
        "weighted_means",
        "a head counts less",
        lambda t, n: merge_all(t, n, t.weight.sum() / n),
    ),
    "one token in many": ("weighted_means", "twice", merge_last),
    "drawn without a seed": (
        "same_input_same_output",
        "differs",
        lambda t, n: t.select(torch.randperm(len(t))[:n].sort().values),
    ),
    "not a number": (
        "constant_input",
        "not finite",
        lambda t, n: scaled(first(t, n), 1 / t.features.std(0)),
    ),
    "always float32": (
        "other_precisions",
        "changed its dtype",
        lambda t, n: replace(first(t, n), features=t.features[:n].float()),
    ),
    "dense only": (
        "already_compressed",
        "shape",
        lambda t, n: (t.features.view(*t.grid, -1), first(t, n))[1],
    ),
    "all pairs": (
        "linear_memory",
        "times the memory",
        lambda t, n: t.select((t.features @ t.features.T).argmax(0).argsort()[:n].sort().values),
    ),
}
BROKEN = {
    defect: (check, match, {"choose": lambda self, t, n, rule=rule: rule(t, n)})
    for defect, (check, match, rule) in BROKEN.items()
} | {
    "no paper": ("names_its_paper", "no paper", {"__doc__": "Keep the best."}),
    "any keep": ("options", "DID NOT RAISE", {"__post_init__": lambda self: None}),
    "all but one": (
        "keeping_all_changes_nothing",
        "9 tokens, expected",
        {"__call__": lambda self, t: first(t, 9)},
    ),
    "previous mixed in": (
        "previous_clip",
        "another model or grid",
        {"__call__": lambda self, t, previous=None: first(previous or t, 9)},
    ),
    "empty clip": (
        "empty_clip",
        "out of bounds|out of range",
        {"__call__": lambda self, t: t.select(torch.arange(1))},
    ),
}


@pytest.mark.parametrize("check", CHECKS)
def test_a_compressor_that_follows_the_rules_passes(check, clip):
    CHECKS[check](Honest, clip)


@pytest.mark.parametrize("defect", BROKEN)
def test_the_contract_notices_a_compressor_with(defect, clip):
    check, match, attributes = BROKEN[defect]
    plugin = type("Broken", (Honest,), {"__doc__": Honest.__doc__, **attributes})
    errors = (AssertionError, RuntimeError, IndexError, pytest.fail.Exception)
    with pytest.raises(errors, match=match):
        CHECKS[f"check_{check}"](dataclass(frozen=True)(plugin), clip)


def test_every_check_has_a_defect_that_it_notices():
    assert {f"check_{check}" for check, _, _ in BROKEN.values()} == set(CHECKS)
