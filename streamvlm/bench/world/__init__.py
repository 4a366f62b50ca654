"""A world of coloured shapes, in which it is known what happens, when and where.

A film is a plan: a tree of frozen dataclasses, made up from a seed (`planning.py`, `needles.py`) or
by hand; `drawing.py` makes pictures and real H.264 files of it. Places are in units of the picture:
x from left to right and y from top to bottom, both 0 to 1. Times are whole seconds, so one frame a
second sees each event.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import Literal, get_args

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
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
"""Digits as they are said; a digit on screen is a thing whose shape is one of these."""
HEADINGS: dict[str, tuple[int, int]] = {
    "left": (-1, 0),
    "right": (1, 0),
    "up": (0, -1),
    "down": (0, 1),
}
"""Direction → step in x and y."""

Background = Literal["still", "noisy", "flickering", "panning"]
BACKGROUNDS: tuple[Background, ...] = get_args(Background)
"""What a background may do."""
Texture = Literal["clouds", "stripes", "checks", "grain"]
TRAINED_TEXTURES: tuple[Texture, ...] = ("clouds", "stripes")
"""Families of backgrounds that training sees."""
UNSEEN_TEXTURES: tuple[Texture, ...] = ("checks", "grain")
"""Families of backgrounds that training never sees."""
UNSEEN_PAIRS = frozenset(
    {"red star", "blue ring", "green cross", "yellow square", "purple circle", "orange triangle"}
)
"""Coloured shapes that training never sees or asks about; each colour and shape comes otherwise."""
Split = Literal["training", "seeds", "backgrounds", "pairs"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""Where films come from: what is trained on, then what is new in each held-out split."""


@dataclass(frozen=True, slots=True)
class Thing:
    """A coloured shape, from when it appears until it vanishes."""

    colour: str
    """A key of `COLOURS`, when it appears."""
    shape: str
    """One of `SHAPES`, or of `NUMBERS` for a digit on screen."""
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
    turns: tuple[int, str] | None = None
    """First second in another colour, and that colour; None if it keeps its own."""

    @property
    def name(self) -> str:
        """`red square`: what it is called, also after it has changed its colour."""
        return f"{self.colour} {self.shape}"

    def centre(self, seconds: float) -> tuple[float, float]:
        """(x, y) at a time."""
        step = HEADINGS[self.heading] if self.heading else (0, 0)
        moved = self.speed * (seconds - self.appears)
        return self.x + step[0] * moved, self.y + step[1] * moved

    def colour_at(self, seconds: float) -> str:
        """Its colour at a time."""
        return self.turns[1] if self.turns and seconds >= self.turns[0] else self.colour

    def is_seen(self, seconds: float) -> bool:
        """Whether it is in the picture at a time."""
        return self.appears <= seconds < self.vanishes

    def gap(self, other: Thing, seconds: float) -> float:
        """How far apart the two are at a time; 0 or less if they touch."""
        (x, y), (there_x, there_y) = self.centre(seconds), other.centre(seconds)
        between: float = ((x - there_x) ** 2 + (y - there_y) ** 2) ** 0.5
        return between - self.radius - other.radius


@dataclass(frozen=True, slots=True)
class Scene:
    """A stretch of film on one background."""

    start: int
    """First second."""
    end: int
    """End in seconds, exclusive."""
    background: Background
    """What the background does."""
    texture: Texture
    """What it looks like."""
    seed: int
    """Of its details."""
    things: tuple[Thing, ...]
    """What is seen at some time of the scene; two touch only where they meet."""
    number: Thing | None = None
    """A digit on screen."""

    @property
    def drawn(self) -> tuple[Thing, ...]:
        """All that is drawn: the things, and the number if there is one."""
        return self.things if self.number is None else (*self.things, self.number)

    @property
    def meetings(self) -> tuple[tuple[int, Thing, Thing], ...]:
        """(first second in which they touch, one, other) of all that meet."""
        met = []
        for index, one in enumerate(self.things):
            for other in self.things[index + 1 :]:
                together = range(max(one.appears, other.appears), min(one.vanishes, other.vanishes))
                touching = [second for second in together if one.gap(other, second) <= 0]
                if touching:
                    met.append((touching[0], one, other))
        return tuple(met)


@dataclass(frozen=True, slots=True)
class Film:
    """Scenes that follow one another, with a cut between."""

    seed: int
    """What it was made from."""
    split: Split
    """What is new in it to the model."""
    scenes: tuple[Scene, ...]
    """In order of time, each starting where the one before ends."""

    @property
    def seconds(self) -> int:
        """The length."""
        return self.scenes[-1].end

    @property
    def things(self) -> tuple[Thing, ...]:
        """All things of all scenes, in the order of the scenes; numbers are not among them."""
        return tuple(thing for scene in self.scenes for thing in scene.things)

    def scene_at(self, seconds: float) -> Scene:
        """The scene that is on at a time."""
        return self.scenes[bisect_right(self.scenes, seconds, key=lambda scene: scene.end)]
