"""Questions about a film of shapes, with their true answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from streamvlm.bench.world import COLOURS, SHAPES, Film, Thing

# The truth says times exactly as the prompt does, or the model could not copy them.
from streamvlm.models._prompt import clock as clock

PHRASINGS: dict[str, tuple[str, ...]] = {
    "exist": ("Is there a {thing}?", "Do you see a {thing}?"),
    "colour": ("What colour is the {shape}?", "Which colour does the {shape} have?"),
    "shape": ("What shape is the {colour} thing?", "Which shape is {colour}?"),
    "where": ("Where is the {thing}?", "In which part of the picture is the {thing}?"),
    "when": ("When does the {thing} appear?", "At what time does the {thing} appear?"),
    "direction": ("Which way does the {thing} move?", "In which direction does the {thing} go?"),
    "count": ("How many things are there?", "How many different things appear?"),
    "order": ("Which appears first, the {thing} or the {other}?",),
}
"""Type of question → ways to ask it."""

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its true answer."""

    kind: str
    """A key of `PHRASINGS`."""
    text: str
    """As it is asked."""
    answer: str
    """The one right answer, as the model should say it."""
    about: str
    """The thing it is about, e.g. `red square`; empty if it is about all."""


def normalise(answer: str) -> str:
    """An answer as it is compared: lower case, single spaces, no full stop at the end.

    >>> normalise(" The Red  square. ")
    'red square'
    """
    words = " ".join(answer.lower().split()).strip(" .")
    return re.sub(r"^(the|a|an) ", "", words)


def place(thing: Thing, seconds: float) -> str:
    """In which ninth of the picture a thing is: `top left`, `centre`, `right`, …"""
    x, y = thing.centre(seconds)
    words = (_ROWS[min(int(y * 3), 2)], _COLUMNS[min(int(x * 3), 2)])
    return " ".join(word for word in words if word) or "centre"


@dataclass(frozen=True, slots=True)
class View:
    """What of a film is shown: some of its moments, perhaps under other times."""

    film: Film
    """What the moments are taken from."""
    moments: tuple[int, ...]
    """Seconds of the film that are shown, increasing."""
    shift: int = 0
    """What is added to a second of the film to give the time that is shown with it."""

    @property
    def sightings(self) -> dict[Thing, list[int]]:
        """Each thing that is seen → the moments in which it is."""
        seen = {t: [m for m in self.moments if t.is_seen(m)] for t in self.film.things}
        return {thing: moments for thing, moments in seen.items() if moments}


def ask_all(views: Sequence[View], random: np.random.Generator) -> list[Question]:
    """Every question that has one right answer, in random phrasings.

    Yes/no questions come in pairs of one yes and one no.

    Args:
        views: what is shown, in order of the times shown; no thing in two of them.
        random: chooses phrasings and what is asked in vain.
    """
    seen = {t: (view, moments) for view in views for t, moments in view.sightings.items()}
    asked = _existence(list(seen), random)
    for thing, (view, moments) in seen.items():
        first = moments[0] + view.shift
        asked.append(_one("when", clock(first), random, thing))
        if sum(t.shape == thing.shape for t in seen) == 1:
            asked.append(_one("colour", thing.colour, random, thing))
        if sum(t.colour == thing.colour for t in seen) == 1:
            asked.append(_one("shape", thing.shape, random, thing))
        if thing.heading is None:
            asked.append(_one("where", place(thing, moments[0]), random, thing))
        elif len(moments) > 1:
            asked.append(_one("direction", thing.heading, random, thing))
        for other, (other_view, other_moments) in seen.items():
            if thing.name < other.name and first != other_moments[0] + other_view.shift:
                earlier = first < other_moments[0] + other_view.shift
                pair = (thing, other) if random.random() < 0.5 else (other, thing)
                answer = (thing if earlier else other).name
                asked.append(_one("order", answer, random, *pair))
    if len(seen) < len(NUMBERS):
        asked.append(_one("count", NUMBERS[len(seen)], random))
    return asked


def _one(kind: str, answer: str, random: np.random.Generator, *things: Thing) -> Question:
    phrasing = PHRASINGS[kind][int(random.integers(len(PHRASINGS[kind])))]
    words = {}
    if things:
        words = {"thing": things[0].name, "colour": things[0].colour, "shape": things[0].shape}
    if len(things) > 1:
        words["other"] = things[1].name
    about = things[0].name if things else ""
    return Question(kind, _spoken(phrasing.format(**words)), answer, about)


def _spoken(text: str) -> str:
    return text.replace(" a orange", " an orange")


def _existence(seen: Sequence[Thing], random: np.random.Generator) -> list[Question]:
    """As many questions to be answered no as yes; half of the absent things share a feature."""
    present = {thing.name for thing in seen}
    asked = []
    for thing in seen:
        asked.append(_one("exist", "yes", random, thing))
        while True:
            colour, shape = thing.colour, thing.shape
            change = random.random()
            if change < 0.7:
                colour = list(COLOURS)[int(random.integers(len(COLOURS)))]
            if change > 0.3:
                shape = SHAPES[int(random.integers(len(SHAPES)))]
            if f"{colour} {shape}" not in present:
                break
        phrasing = PHRASINGS["exist"][int(random.integers(2))]
        name = f"{colour} {shape}"
        asked.append(Question("exist", _spoken(phrasing.format(thing=name)), "no", name))
    return asked
