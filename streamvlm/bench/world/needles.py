"""Hours of film with short events planted in it, each to be found again by its name alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from streamvlm.bench.world import HEADINGS, Film, Scene, Thing
from streamvlm.bench.world.planning import LONGEST, SHORTEST, Deck, plan_scene, trained_pairs
from streamvlm.bench.world.questions import Question, ask_all
from streamvlm.bench.world.views import View
from streamvlm.errors import BadOption

NEEDLE_KINDS = ("when", "where", "direction")
"""Kinds of questions about needles."""
NEEDLE_SECONDS = 3
"""How long a needle is seen."""
MOST_NEEDLES = 30
"""In one film: each has a name of its own, and twelve names are left to all that lies around."""
_MARGIN = 3
"""A needle's scene begins and ends at most so many seconds around it."""
_ACCOMPANIED = 0.5
"""How often a needle's scene shows another thing too."""
_STREAM = 1000
"""Sets the random numbers apart from those of `plan_film`."""


@dataclass(frozen=True, slots=True)
class Needle:
    """A short event in a long film."""

    thing: Thing
    """What is seen; no other thing of the film ever looks like it."""
    question: Question
    """About it, by its name, with the true answer."""
    span: tuple[int, int]
    """When it is seen: its first second, and the end, exclusive."""
    age: int
    """Seconds from its first second to the end of the film."""


def plan_needles(
    seed: int, seconds: int, count: int, *, ages: Sequence[float] | None = None
) -> tuple[Film, tuple[Needle, ...]]:
    """Make up a long film of ordinary scenes, and needles in it. The same arguments, the same film.

    Args:
        seed: of everything in it.
        seconds: how long the film is, exactly.
        count: how many needles, 1 to `MOST_NEEDLES`.
        ages: how old each needle is at the end of the film, in whole seconds, at least
            `NEEDLE_SECONDS` apart. Without them, the film is cut into as many equal stretches as
            there are needles, and each needle is anywhere in its stretch.

    Returns:
        The film, and its needles in order of time.

    Raises:
        BadOption: so many needles, or needles of these ages, do not fit.
    """
    if not 1 <= count <= MOST_NEEDLES:
        raise BadOption(
            f"{count} needles in one film, expected 1 to {MOST_NEEDLES}; plan several films"
        )
    if seed < 0:
        raise BadOption(f"seed {seed} of a film; give one of at least 0")
    random = np.random.default_rng((_STREAM, seed))
    starts = _anywhere(random, seconds, count) if ages is None else _aged(seconds, count, ages)
    names = [str(name) for name in random.permutation(trained_pairs())]
    kinds = [str(kind) for kind in random.permutation(np.resize(NEEDLE_KINDS, count))]
    deck = Deck(random, names[count:])
    scenes: list[Scene] = []
    needles: list[Needle] = []
    now = 0
    for start, after, name, kind in zip(
        starts, [*starts[1:], seconds], names[:count], kinds, strict=True
    ):
        begin = start - _margin(random, start - now)
        end = start + NEEDLE_SECONDS + _margin(random, after - start - NEEDLE_SECONDS)
        scenes += _haystack(random, now, begin, deck)
        scene, question = _plant(random, (begin, end), deck, (name, kind, start))
        scenes.append(scene)
        span = (start, start + NEEDLE_SECONDS)
        needles.append(Needle(scene.things[0], question, span, seconds - start))
        now = end
    scenes += _haystack(random, now, seconds, deck)
    return Film(seed, "seeds", tuple(scenes)), tuple(needles)


def _anywhere(random: np.random.Generator, seconds: int, count: int) -> list[int]:
    """First seconds of needles, one in each of so many equal stretches of the film."""
    borders = [seconds * index // count for index in range(count + 1)]
    if seconds // count < NEEDLE_SECONDS:
        raise BadOption(
            f"{count} needles in {seconds} s of film, expected at least {NEEDLE_SECONDS} s for "
            "each; plan a longer film or fewer needles"
        )
    return [
        int(random.integers(first, last - NEEDLE_SECONDS + 1)) for first, last in pairwise(borders)
    ]


def _aged(seconds: int, count: int, ages: Sequence[float]) -> list[int]:
    """First seconds of needles of certain ages."""
    if len(ages) != count:
        raise BadOption(f"{len(ages)} ages for {count} needles; give one for each")
    for age in ages:
        if age != int(age) or not NEEDLE_SECONDS <= age <= seconds:
            raise BadOption(
                f"a needle {age:g} s old, expected a whole number from {NEEDLE_SECONDS} to the "
                f"film's {seconds} s; round the ages or plan a longer film"
            )
    starts = sorted(seconds - int(age) for age in ages)
    for one, other in pairwise(starts):
        if other - one < NEEDLE_SECONDS:
            raise BadOption(
                f"needles of {seconds - one} s and {seconds - other} s of age, expected at least "
                f"{NEEDLE_SECONDS} s between; choose other ages"
            )
    return starts


def _margin(random: np.random.Generator, room: int) -> int:
    """How much of the room beside a needle is its scene's; the rest must be enough for others."""
    enough = [part for part in range(_MARGIN + 1) if part == room or room - part >= SHORTEST]
    return enough[int(random.integers(len(enough)))]


def _haystack(random: np.random.Generator, start: int, end: int, deck: Deck) -> Iterator[Scene]:
    """Ordinary scenes, from a time to exactly another."""
    while start < end:
        left = end - start
        fitting = [
            length
            for length in range(SHORTEST, LONGEST + 1)
            if length == left or left - length >= SHORTEST
        ]
        length = fitting[int(random.integers(len(fitting)))]
        # The deck may be shuffled between two of them.
        names = list(dict.fromkeys(deck.draw() for _ in range(int(random.integers(1, 4)))))
        yield plan_scene(random, (start, start + length), names, deck, "seeds")
        start += length


def _plant(
    random: np.random.Generator,
    span: tuple[int, int],
    deck: Deck,
    event: tuple[str, str, int],
) -> tuple[Scene, Question]:
    """A scene whose first thing is a needle, and the question about it.

    Args:
        random: decides what is left open.
        span: of the scene.
        deck: where the name of another thing in the scene comes from.
        event: the needle's name, the kind of its question and its first second.
    """
    name, kind, start = event
    accompanied = span[1] - span[0] >= SHORTEST and random.random() < _ACCOMPANIED
    names = [deck.draw()] if accompanied else []
    while True:
        moves = kind == "direction" or (kind == "when" and random.random() < 0.5)
        thing = (_moving if moves else _still)(random, name, start)
        scene = plan_scene(random, span, names, deck, "seeds", planned=(thing,))
        scene = replace(scene, number=None)
        view = View(Film(0, "seeds", (scene,)), tuple(range(*span)))
        # Near the border of two ninths of the picture, no place is asked about.
        for question in ask_all([view], random):
            if question.kind == kind and question.about == name:
                return scene, question


def _still(random: np.random.Generator, name: str, start: int) -> Thing:
    colour, shape = name.split()
    radius = float(random.uniform(0.11, 0.17))
    x, y = (float(place) for place in random.uniform(radius, 1 - radius, 2))
    return Thing(colour, shape, radius, x, y, None, 0.0, start, start + NEEDLE_SECONDS)


def _moving(random: np.random.Generator, name: str, start: int) -> Thing:
    colour, shape = name.split()
    radius = float(random.uniform(0.11, 0.16))
    heading = list(HEADINGS)[int(random.integers(len(HEADINGS)))]
    travel = float(random.uniform(0.3, 0.6))
    x, y = (
        float(random.uniform(radius + travel * (step < 0), 1 - radius - travel * (step > 0)))
        for step in HEADINGS[heading]
    )
    speed = travel / (NEEDLE_SECONDS - 1)
    return Thing(colour, shape, radius, x, y, heading, speed, start, start + NEEDLE_SECONDS)
