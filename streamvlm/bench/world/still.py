"""One scene in which nothing ever happens, before a camera that stands still."""

from __future__ import annotations

import numpy as np

from streamvlm.bench.world import TRAINED_TEXTURES, Film, Scene, Thing
from streamvlm.bench.world.planning import trained_pairs
from streamvlm.bench.world.questions import NO_CHANGE, NO_MOTION, NO_THING, Question
from streamvlm.errors import BadOption

TIMELESS = ("exist", "colour", "shape", "where", "count")
"""Kinds of questions that any record of the scene answers alike."""
_MOST, _LEAST = 3, 2
"""Things in a scene."""
_CLEARANCE = 0.04
"""Between them, in units of the picture."""
_STREAM = 2000
"""Sets the random numbers apart from those of other films."""


def plan_still(seed: int, seconds: int) -> Film:
    """Make up a film of one scene: two or three things that never move, and a camera's noise.

    Args:
        seed: of everything in it; the same arguments give the same film.
        seconds: how long it is.

    Raises:
        BadOption: a number is out of range.
    """
    if seed < 0 or seconds < 1:
        raise BadOption(f"a film of {seconds} s from seed {seed}; give at least 1 s and a seed ≥ 0")
    random = np.random.default_rng((_STREAM, seed))
    names = [str(name) for name in random.permutation(trained_pairs())]
    wanted = int(random.integers(_LEAST, _MOST + 1))
    things: list[Thing] = []
    while len(things) < wanted:
        colour, shape = names[len(things)].split()
        radius = float(random.uniform(0.11, 0.15))
        x, y = (float(place) for place in random.uniform(radius, 1 - radius, 2))
        thing = Thing(colour, shape, radius, x, y, None, 0.0, 0, seconds)
        if all(thing.gap(other, 0) >= _CLEARANCE for other in things):
            things.append(thing)
    scene = Scene(
        0,
        seconds,
        background="noisy",
        texture=TRAINED_TEXTURES[int(random.integers(len(TRAINED_TEXTURES)))],
        seed=int(random.integers(2**31)),
        things=tuple(things),
    )
    return Film(seed, "seeds", (scene,))


def is_timeless(question: Question) -> bool:
    """Whether the answer is the same whichever moments of a still scene are shown.

    Args:
        question: about a scene of `plan_still`.
    """
    if question.kind == "absent":
        return question.answer in (NO_THING, NO_CHANGE, NO_MOTION)
    return question.kind in TIMELESS
