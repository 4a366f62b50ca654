"""A seeded world of coloured shapes, in which it is known what happens, when and where.

A film is a plan: a tree of frozen dataclasses, made from a seed or by hand; `drawing.py` makes
pictures and real H.264 files of it. Places are in units of the picture: x from left to right and y
from top to bottom, both 0 to 1. Times are whole seconds, so one frame a second sees each event.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 35, 35),
    "green": (40, 165, 55),
    "blue": (45, 80, 225),
    "yellow": (240, 215, 45),
    "purple": (150, 55, 190),
    "orange": (245, 135, 25),
    "cyan": (60, 205, 215),
    "white": (240, 240, 240),
}
"""Name → RGB."""
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
"""The shapes that things have."""
HEADINGS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
"""Direction → step in x and y."""

Background = Literal["still", "noisy", "panning"]
BACKGROUNDS: tuple[Background, ...] = ("still", "noisy", "panning")
"""What a background may do."""
HELD_OUT = 1_000_000_000
"""Seeds from here on are never trained on; their backgrounds are of families of their own."""
HELD_OUT_TEXTURES = 2**31
"""Seeds of backgrounds from here on are never trained on; such backgrounds are finer."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A coloured shape, from when it appears until it vanishes."""

    colour: str
    """A key of `COLOURS`."""
    shape: str
    """One of `SHAPES`."""
    radius: float
    """Half its size, in units of the picture."""
    x: float
    """Centre when it appears, from the left."""
    y: float
    """Centre when it appears, from the top."""
    heading: str | None
    """Where it moves, a key of `HEADINGS`; None if it stays."""
    speed: float
    """Units of the picture a second."""
    appears: int
    """First second in which it is seen."""
    vanishes: int
    """First second in which it is seen no more."""

    @property
    def name(self) -> str:
        """`red square`."""
        return f"{self.colour} {self.shape}"

    def centre(self, seconds: float) -> tuple[float, float]:
        """(x, y) at a time."""
        step = HEADINGS[self.heading] if self.heading else (0, 0)
        moved = self.speed * (seconds - self.appears)
        return self.x + step[0] * moved, self.y + step[1] * moved

    def is_seen(self, seconds: float) -> bool:
        """Whether it is in the picture at a time."""
        return self.appears <= seconds < self.vanishes


@dataclass(frozen=True, slots=True)
class Scene:
    """A stretch of film on one background."""

    start: int
    """First second."""
    end: int
    """End in seconds, exclusive."""
    background: Background
    """Whether it is still, noisy like a camera, or pans."""
    seed: int
    """Of the background's texture."""
    things: tuple[Thing, ...]
    """What is seen at some time of the scene; no two ever touch."""


@dataclass(frozen=True, slots=True)
class Film:
    """Scenes that follow one another, with a cut between."""

    seed: int
    """What it was made from; see `plan_film`."""
    scenes: tuple[Scene, ...]
    """In order of time, each starting where the one before ends."""

    @property
    def seconds(self) -> int:
        """The length."""
        return self.scenes[-1].end

    @property
    def things(self) -> tuple[Thing, ...]:
        """All things of all scenes, in the order of the scenes."""
        return tuple(thing for scene in self.scenes for thing in scene.things)

    def scene_at(self, seconds: float) -> Scene:
        """The scene that is on at a time."""
        return next(scene for scene in self.scenes if seconds < scene.end)


def plan_film(seed: int, scenes: int, *, start: int = 0) -> Film:
    """Make up a film.

    No two things of a film share colour and shape. The same seed gives the same film.

    Args:
        seed: of everything in it; from `HELD_OUT` on it is none that training has seen.
        scenes: how many, each 4 to 8 seconds long.
        start: the second at which the first scene starts.
    """
    random = np.random.default_rng(seed)
    kinds = random.permutation(len(COLOURS) * len(SHAPES))
    planned: list[Scene] = []
    used = 0
    for _ in range(scenes):
        length, count = int(random.integers(4, 9)), int(random.integers(1, 4))
        scene = _plan_scene(random, (start, start + length), kinds[used : used + count], seed)
        planned.append(scene)
        start, used = scene.end, (used + count) % (len(kinds) - 3)
    return Film(seed, tuple(planned))


def _plan_scene(
    random: np.random.Generator, span: tuple[int, int], kinds: NDArray[np.int64], seed: int
) -> Scene:
    start, end = span
    things: list[Thing] = []
    for kind in kinds:
        colour = list(COLOURS)[kind % len(COLOURS)]
        shape = SHAPES[kind // len(COLOURS)]
        thing = _place(random, colour, shape, span, things)
        if thing is not None:
            things.append(thing)
    texture = int(random.integers(0, HELD_OUT_TEXTURES)) + (
        HELD_OUT_TEXTURES if seed >= HELD_OUT else 0
    )
    background = BACKGROUNDS[int(random.integers(0, len(BACKGROUNDS)))]
    return Scene(start, end, background, texture, tuple(things))


def _place(
    random: np.random.Generator,
    colour: str,
    shape: str,
    span: tuple[int, int],
    others: list[Thing],
) -> Thing | None:
    """A thing that never touches the others or the border, or None if there is no room."""
    start, end = span
    for _ in range(30):
        radius = random.uniform(0.11, 0.17)
        appears = start if random.random() < 0.5 else int(random.integers(start, end - 1))
        vanishes = end if random.random() < 0.7 else int(random.integers(appears + 1, end + 1))
        heading, speed = None, 0.0
        x, y = (float(place) for place in random.uniform(radius, 1 - radius, 2))
        if random.random() < 0.4 and vanishes - appears >= 2:
            heading = list(HEADINGS)[int(random.integers(0, 4))]
            travel = random.uniform(0.3, 0.6)
            speed = travel / (vanishes - appears - 1)
        found = Thing(colour, shape, radius, x, y, heading, speed, appears, vanishes)
        if _fits(found, others):
            return found
    return None


def _fits(thing: Thing, others: list[Thing]) -> bool:
    for second in range(thing.appears, thing.vanishes):
        x, y = thing.centre(second)
        if not (thing.radius <= x <= 1 - thing.radius and thing.radius <= y <= 1 - thing.radius):
            return False
        for other in others:
            if other.is_seen(second):
                there_x, there_y = other.centre(second)
                reach = 1.15 * (thing.radius + other.radius)
                if (x - there_x) ** 2 + (y - there_y) ** 2 < reach**2:
                    return False
    return True
