"""Clips made of numbers: what every compressor test feeds on."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
import torch

from streamvlm.types import VisualTokens

SECONDS_PER_STEP = 0.5


def _features(kind: str, grid: tuple[int, int, int], width: int, dice: torch.Generator):
    """(T, H·W, width) features and (T, 8) vectors of the steps."""
    steps, places = grid[0], grid[1] * grid[2]
    if kind == "constant":
        return torch.ones(steps, places, width), torch.ones(steps, 8)
    if kind == "noise":
        return (
            torch.randn(steps, places, width, generator=dice),
            torch.randn(steps, 8, generator=dice),
        )
    scene = torch.arange(steps) // (steps if kind == "still" else 6)
    looks = torch.randn(steps, places, width, generator=dice)[scene]
    vectors = torch.randn(steps, 8, generator=dice)[scene]
    drift = torch.randn(steps, places, width, generator=dice)
    return looks + 0.3 * drift, vectors + 0.01 * torch.randn(steps, 8, generator=dice)


def _question(share: torch.Tensor, dice: torch.Generator) -> torch.Tensor:
    """(N, 5) cosines with the words of a question."""
    words = torch.rand(5, generator=dice)
    return (share[:, None] * words).cos() - 0.5


def _make(
    grid: tuple[int, int, int] = (8, 5, 7),
    kind: str = "noise",
    *,
    width: int = 16,
    cues: Iterable[str] = (),
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
) -> VisualTokens:
    dice = torch.Generator().manual_seed(seed)
    features, vectors = _features(kind, grid, width, dice)
    axes = [torch.arange(size) for size in grid]
    position = torch.cartesian_prod(*axes).view(-1, 3)
    share = torch.rand(len(position), generator=dice)
    if kind == "constant":
        share = torch.ones_like(share)
    # What is not a number for each token; features of one kind have keys of the same kind.
    wide = {"keys": features.view(-1, width)[:, :8], "question": _question(share, dice)}
    return VisualTokens(
        model="test",
        features=features.view(-1, width).to(dtype),
        position=position,
        seconds=position[:, 0].double() * SECONDS_PER_STEP,
        grid=grid,
        weight=torch.ones(len(position)),
        cues={name: wide.get(name, share) for name in cues if not name.startswith("frame_")},
        frame_cues={name: vectors for name in cues if name.startswith("frame_")},
    )


@pytest.fixture(scope="session")
def clip() -> Callable[..., VisualTokens]:
    """Makes dense tokens: `clip(grid, kind, width=, cues=, dtype=, seed=)`.

    Kinds: `noise` (every step new), `scenes` (a new one each 6 steps), `still`, `constant`.
    A cue called `frame_…` becomes a vector per step, `keys` 8 numbers a token, `question` 5 cosines
    a token, any other a positive number per token.
    """
    return _make
