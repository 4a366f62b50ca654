"""Features that change like those of a video, made of numbers: what compressors are timed on.

They are no substitute for a model's features where quality is measured: their places are
independent of one another, and their scenes share nothing.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from streamvlm.types import VisualTokens

SCENE, MOVING = 12, 20
"""Steps of a scene, and how many of a step's tokens move."""
CUES = frozenset({"attention", "attention_middle", "cls_attention", "keys", "question"})
"""Cues of each token."""
FRAME_CUES = frozenset({"frame_vector"})
"""Cues of each step."""
_KEY, _WORDS = 64, 8
_NOISE, _DRIFT = 0.15, 0.04
"""Of a token, in units of its scene's look: anew at each step, and added up from step to step."""
_PACE = 3
"""Steps in which a moving token goes on to the next place."""


def video_like(steps: int, side: int = 14, width: int = 1024, seed: int = 0) -> VisualTokens:
    """Dense tokens of a made-up video, with every cue that an encoder or a question can give.

    Every 12 steps a new scene begins. Within one, places drift slowly and carry some noise, and 20
    tokens wander through the places of their row. Neighbouring steps have a mean cosine of about
    0.87, cuts included.

    Args:
        steps: T.
        side: rows and columns of a step, so N = side² tokens each.
        width: D.
        seed: of everything.

    Returns:
        T·N float32 tokens with `CUES` and `FRAME_CUES`; keys have 64 numbers, a question 8 words.
    """
    dice = torch.Generator().manual_seed(seed)
    places = side * side
    scene = torch.arange(steps) // SCENE
    scenes = _scenes(steps)
    looks = torch.randn(scenes, places, width, generator=dice)
    drift = _DRIFT * torch.randn(scenes, places, width, generator=dice)
    age = (torch.arange(steps) % SCENE)[:, None, None]
    features = looks[scene].addcmul_(drift[scene], age.float())
    features.add_(torch.randn(steps, places, width, generator=dice), alpha=_NOISE)
    _move(features, side, dice)
    position = torch.cartesian_prod(*(torch.arange(size) for size in (steps, side, side)))
    return VisualTokens(
        model="made up",
        features=features.view(-1, width),
        position=position.view(-1, 3),
        seconds=position.view(-1, 3)[:, 0].double(),
        grid=(steps, side, side),
        weight=torch.ones(steps * places),
        cues=_cues(features, scene, dice),
        frame_cues={"frame_vector": _frame_vectors(scene, width, dice)},
    )


def _scenes(steps: int) -> int:
    return -(-steps // SCENE)


def _move(features: torch.Tensor, side: int, dice: torch.Generator) -> None:
    """Let tokens wander over (T, N, D) features, in place."""
    steps, places, width = features.shape
    # All go at one pace from different places, so that they never meet.
    start = torch.randperm(places, generator=dice)[:MOVING]
    row, column = start // side, start % side
    things = torch.randn(len(start), width, generator=dice)
    for step in range(steps):
        place = row * side + (column + step // _PACE) % side
        noise = torch.randn(len(start), width, generator=dice)
        features[step, place] = things.add(noise, alpha=_NOISE)


def _cues(
    features: torch.Tensor, scene: torch.Tensor, dice: torch.Generator
) -> dict[str, torch.Tensor]:
    """{name: (T·N, …)} from (T, N, D) features: a scene is looked at in much the same places."""
    steps, places, width = features.shape
    cues: dict[str, torch.Tensor] = {}
    for name in ("attention", "attention_middle", "cls_attention"):
        lasting = torch.randn(_scenes(steps), places, generator=dice)[scene]
        noise = torch.randn(steps, places, generator=dice)
        cues[name] = (lasting + 0.3 * noise).softmax(1).flatten()
    tokens = features.view(-1, width)
    cues["keys"] = tokens @ torch.randn(width, _KEY, generator=dice) / width**0.5
    words = F.normalize(torch.randn(_WORDS, width, generator=dice), dim=1)
    cues["question"] = F.normalize(tokens, dim=1) @ words.T
    return cues


def _frame_vectors(scene: torch.Tensor, width: int, dice: torch.Generator) -> torch.Tensor:
    """(T, D) vectors that are much alike in a scene, and less so beyond it."""
    scenes = torch.randn(_scenes(len(scene)), width, generator=dice)[scene]
    common = torch.randn(width, generator=dice)
    return common + scenes + 0.15 * torch.randn(len(scene), width, generator=dice)
