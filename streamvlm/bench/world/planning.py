"""Makes up films from seeds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from streamvlm.bench.world import (
    BACKGROUNDS,
    COLOURS,
    HEADINGS,
    NUMBERS,
    SHAPES,
    SPLITS,
    TRAINED_TEXTURES,
    UNSEEN_PAIRS,
    UNSEEN_TEXTURES,
    Film,
    Scene,
    Split,
    Thing,
)
from streamvlm.errors import BadOption

SHORTEST, LONGEST = 4, 8
"""Of scenes, in seconds."""
_MOVES, _TURNS, _MEETS, _NUMBERED = 0.45, 0.45, 0.12, 0.3
"""How often a thing moves, a still one changes its colour, a scene has a meeting, a number."""
_LONGEST_MOVE = 5
"""In seconds."""
_FASTEST = 0.35
"""In units of the picture a second."""
_TRIES = 30
_CLEARANCE = 0.04
"""Between things that do not meet, in units of the picture."""


class Deck:
    """Names of coloured shapes that no thing of a film has yet, in random order."""

    def __init__(self, random: np.random.Generator, names: Iterable[str]) -> None:
        self._random, self._names = random, sorted(names)
        self._left: list[str] = []
        self._shuffle()

    def _shuffle(self) -> None:
        self._left = [str(name) for name in self._random.permutation(self._names)]

    def draw(self) -> str:
        """The next name; after the last one all are shuffled again."""
        if not self._left:
            self._shuffle()
        return self._left.pop()

    def take(self, name: str) -> bool:
        """Take a certain name out of the deck; False if it is not there."""
        if name not in self._left:
            return False
        self._left.remove(name)
        return True


def plan_film(seed: int, scenes: int, *, split: Split, start: int = 0) -> Film:
    """Make up a film of scenes of 4 to 8 seconds with one to three things each.

    No two things of a film of up to ten scenes ever look alike. The same arguments give the same
    film.

    Args:
        seed: of everything in it.
        scenes: how many.
        split: "training"; or what is new: only the "seeds", also the families of "backgrounds",
            or also the "pairs" of colour and shape: then each of the first six scenes shows one
            of the pairs that training never shows.
        start: the second at which the first scene starts.

    Raises:
        BadOption: there is no such split, or a number is out of range.
    """
    if split not in SPLITS:
        raise BadOption(f"no films of the split {split!r}; choose from: {', '.join(SPLITS)}")
    if scenes < 1 or seed < 0 or start < 0:
        raise BadOption(
            f"a film of {scenes} scenes from seed {seed} that starts at {start} s; give at least "
            "1 scene, and a seed and a start of at least 0"
        )
    random = np.random.default_rng((SPLITS.index(split), seed))
    deck = Deck(random, trained_pairs())
    unseen = list(random.permutation(sorted(UNSEEN_PAIRS))) if split == "pairs" else []
    planned: list[Scene] = []
    for _ in range(scenes):
        names = [deck.draw() for _ in range(int(random.integers(1, 4)))]
        if unseen:
            names[0] = str(unseen.pop())
        end = start + int(random.integers(SHORTEST, LONGEST + 1))
        planned.append(plan_scene(random, (start, end), names, deck, split))
        start = end
    return Film(seed, split, tuple(planned))


def trained_pairs() -> list[str]:
    """The coloured shapes that training may show."""
    names = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]
    return [name for name in names if name not in UNSEEN_PAIRS]


def plan_scene(
    random: np.random.Generator,
    span: tuple[int, int],
    names: Sequence[str],
    deck: Deck,
    split: Split,
    *,
    planned: Sequence[Thing] = (),
) -> Scene:
    """Make up one scene.

    Args:
        random: decides everything.
        span: its first second and its end, at least 4 seconds apart where there are names.
        names: coloured shapes for it; one that finds no room is left out.
        deck: where a thing that changes its colour takes its later name from.
        split: which families of backgrounds it may have.
        planned: things that it has anyway.
    """
    things = list(planned)
    for name in names:
        thing = _place(random, name, span, things)
        if thing and not thing.heading and random.random() < _TURNS:
            thing = _turn(random, thing, deck)
        if thing is not None:
            things.append(thing)
    number = None
    if random.random() < _NUMBERED:
        digit = NUMBERS[int(random.integers(len(NUMBERS)))]
        number = _stay(random, f"white {digit}", span, things)
    families = UNSEEN_TEXTURES if split == "backgrounds" else TRAINED_TEXTURES
    return Scene(
        *span,
        background=BACKGROUNDS[int(random.integers(len(BACKGROUNDS)))],
        texture=families[int(random.integers(len(families)))],
        seed=int(random.integers(2**31)),
        things=tuple(things),
        number=number,
    )


def _place(
    random: np.random.Generator, name: str, span: tuple[int, int], others: Sequence[Thing]
) -> Thing | None:
    """A thing that stays, moves, or meets one of the others; None if there is no room."""
    if others and random.random() < _MEETS:
        return _meet(random, name, others)
    if random.random() < _MOVES:
        return _move(random, name, span, others)
    return _stay(random, name, span, others)


def _stay(
    random: np.random.Generator, name: str, span: tuple[int, int], others: Sequence[Thing]
) -> Thing | None:
    (start, end), (colour, shape) = span, name.split()
    for _ in range(_TRIES):
        radius = float(random.uniform(0.11, 0.17))
        appears = start if random.random() < 0.5 else int(random.integers(start, end - 1))
        vanishes = end if random.random() < 0.7 else int(random.integers(appears + 1, end + 1))
        x, y = (float(place) for place in random.uniform(radius, 1 - radius, 2))
        thing = Thing(colour, shape, radius, x, y, None, 0.0, appears, vanishes)
        if _fits(thing, others):
            return thing
    return None


def _move(
    random: np.random.Generator, name: str, span: tuple[int, int], others: Sequence[Thing]
) -> Thing | None:
    (start, end), (colour, shape) = span, name.split()
    for _ in range(_TRIES):
        radius = float(random.uniform(0.11, 0.16))
        appears = int(random.integers(start, end - 1))
        vanishes = int(random.integers(appears + 2, min(appears + _LONGEST_MOVE, end) + 1))
        heading = list(HEADINGS)[int(random.integers(len(HEADINGS)))]
        speed = min(float(random.uniform(0.3, 0.6)) / (vanishes - appears - 1), _FASTEST)
        x, y = (float(place) for place in random.uniform(radius, 1 - radius, 2))
        thing = Thing(colour, shape, radius, x, y, heading, speed, appears, vanishes)
        if _fits(thing, others):
            return thing
    return None


def _meet(random: np.random.Generator, name: str, others: Sequence[Thing]) -> Thing | None:
    """A thing that moves up to one that stays, and touches it in the last second of both."""
    colour, shape = name.split()
    for _ in range(_TRIES):
        other = others[int(random.integers(len(others)))]
        if other.heading or other.vanishes - other.appears < 3:
            continue
        radius = float(random.uniform(0.11, 0.15))
        heading = list(HEADINGS)[int(random.integers(len(HEADINGS)))]
        seconds = int(random.integers(2, min(other.vanishes - other.appears, _LONGEST_MOVE)))
        appears = other.vanishes - seconds - 1
        travel = float(random.uniform(0.25, 0.45))
        # They overlap by a hundredth in the end, so that they truly touch.
        far = radius + other.radius - 0.01 + travel
        across, down = HEADINGS[heading]
        x, y = other.x - across * far, other.y - down * far
        speed = travel / seconds
        thing = Thing(colour, shape, radius, x, y, heading, speed, appears, other.vanishes)
        if _inside(thing) and _fits(thing, [one for one in others if one is not other]):
            return thing
    return None


def _turn(random: np.random.Generator, thing: Thing, deck: Deck) -> Thing:
    """The same thing with a change of colour, if the deck still has it in that colour."""
    colour = str(random.choice(list(COLOURS)))
    if thing.vanishes - thing.appears < 2 or colour == thing.colour:
        return thing
    if not deck.take(f"{colour} {thing.shape}"):
        return thing
    return replace(thing, turns=(int(random.integers(thing.appears + 1, thing.vanishes)), colour))


def _inside(thing: Thing) -> bool:
    margin = thing.radius
    ends = (thing.centre(thing.appears), thing.centre(thing.vanishes - 1))
    return all(margin <= place <= 1 - margin for centre in ends for place in centre)


def _fits(thing: Thing, others: Sequence[Thing]) -> bool:
    return _inside(thing) and not any(
        thing.gap(other, second) < _CLEARANCE
        for other in others
        for second in range(max(thing.appears, other.appears), min(thing.vanishes, other.vanishes))
    )
