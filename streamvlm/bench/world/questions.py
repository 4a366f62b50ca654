"""Questions about a film of shapes, with their true answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from streamvlm.bench.world import COLOURS, NUMBERS, SHAPES, UNSEEN_PAIRS, Thing
from streamvlm.bench.world.views import View

# The truth says times exactly as the prompt does, or the model could not copy them.
from streamvlm.models._evidence import clock as clock

PHRASINGS: dict[str, tuple[str, ...]] = {
    "exist": ("Is there a {thing}?", "Do you see a {thing}?"),
    "colour": ("What colour is the {shape}?", "Which colour does the {shape} have?"),
    "shape": ("What shape is the {colour} thing?", "Which shape is {colour}?"),
    "where": ("Where is the {thing}?", "In which part of the picture is the {thing}?"),
    "when": ("When does the {thing} appear?", "At what time does the {thing} appear?"),
    "direction": ("Which way does the {thing} move?", "In which direction does the {thing} go?"),
    "count": ("How many things are there?", "How many different things appear?"),
    "order": (
        "Which appears first, the {thing} or the {other}?",
        "Which comes first, the {thing} or the {other}?",
    ),
    "change": ("Which colour does the {thing} turn?", "What colour does the {thing} become?"),
    "at": ("What is there at {time}?", "What do you see at {time}?"),
    "where at": ("Where is the {thing} at {time}?", "In which part is the {thing} at {time}?"),
    "number": ("What number is shown?", "Which number do you see?"),
}
"""Kind of question → ways to ask it. Questions of the kind "absent" borrow the ways of others."""
KINDS = (*PHRASINGS, "absent")
"""All kinds of questions."""

NO_THING, NOT_VISIBLE, NO_CHANGE, NO_MOTION = (
    "no such thing",
    "not visible",
    "no change",
    "no motion",
)
ABSTENTIONS = frozenset({NO_THING, NOT_VISIBLE, NO_CHANGE, NO_MOTION})
"""True answers to questions about what is not there or does not happen: the kind "absent"."""
NOTHING = "nothing"
"""What there is in an empty picture."""
VISIBLE_TRAVEL = 0.15
"""Units of the picture that a thing must move, as shown, for its direction to be asked about."""
CLEAR = 0.03
"""How far from the border of a ninth a centre must be for its place to be asked about."""
_ROWS, _COLUMNS = ("top", "", "bottom"), ("left", "", "right")


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its true answer."""

    kind: str
    """One of `KINDS`."""
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


def spoken(text: str) -> str:
    """A text with the right article: an orange ring."""
    return re.sub(r"\ba orange", "an orange", text)


def place(thing: Thing, seconds: float) -> str:
    """In which ninth of the picture a thing is: `top left`, `centre`, `right`, …"""
    x, y = thing.centre(seconds)
    words = (_ROWS[min(int(y * 3), 2)], _COLUMNS[min(int(x * 3), 2)])
    return " ".join(word for word in words if word) or "centre"


def has_clear_place(thing: Thing, seconds: float) -> bool:
    """Whether the centre of a thing is plainly in one ninth of the picture."""
    return all(
        abs(place - border) >= CLEAR for place in thing.centre(seconds) for border in (1 / 3, 2 / 3)
    )


def ask_all(views: Sequence[View], random: np.random.Generator) -> list[Question]:
    """Every question that has one right answer, in random phrasings.

    Yes/no questions come in pairs of one yes and one no; and of what is absent, no more is asked
    than of what is there.

    Args:
        views: what is shown, in order of the times shown; no thing in two of them.
        random: chooses phrasings and what is asked in vain.
    """
    shown = _Shown.of(views)
    kinds: tuple[Callable[[_Shown, np.random.Generator], Iterator[Question]], ...]
    kinds = (_exist, _features, _motion, _change, _order, _at, _where_at, _whole)
    return [question for kind in kinds for question in kind(shown, random)]


@dataclass(frozen=True, slots=True)
class _Shown:
    """What there is to ask about."""

    views: tuple[View, ...]
    seen: dict[Thing, tuple[View, list[int]]] = field(default_factory=dict)

    @classmethod
    def of(cls, views: Sequence[View]) -> _Shown:
        seen = {t: (view, moments) for view in views for t, moments in view.sightings.items()}
        return cls(tuple(views), seen)

    def first(self, thing: Thing) -> int:
        """The time shown at its first sighting."""
        view, moments = self.seen[thing]
        return moments[0] + view.shift

    def looks(self, thing: Thing) -> set[str]:
        """The colours in which it is seen."""
        _, moments = self.seen[thing]
        return {thing.colour_at(moment) for moment in moments}

    def absent(self, like: Thing, random: np.random.Generator) -> str:
        """The name of no thing that is shown; most often it shares a feature with one that is."""
        present = {f"{colour} {thing.shape}" for thing in self.seen for colour in self.looks(thing)}
        present |= {thing.name for thing in self.seen}
        unshown = sorted(UNSEEN_PAIRS - present)
        # Or else hearing the name of an unseen pair would give away that it is there.
        if like.name in UNSEEN_PAIRS and unshown:
            return unshown[int(random.integers(len(unshown)))]
        while True:
            colour, shape = like.colour, like.shape
            change = random.random()
            if change < 0.7:
                colour = list(COLOURS)[int(random.integers(len(COLOURS)))]
            if change > 0.3:
                shape = SHAPES[int(random.integers(len(SHAPES)))]
            name = f"{colour} {shape}"
            # Names of unseen pairs stay unread in training.
            if name not in present | UNSEEN_PAIRS:
                return name


def _one(
    kind: str,
    answer: str,
    random: np.random.Generator,
    *,
    phrased: str | None = None,
    **words: str,
) -> Question:
    """A question in one of the ways of its kind, or of the kind `phrased`."""
    ways = PHRASINGS[phrased or kind]
    text = ways[int(random.integers(len(ways)))].format(**words)
    return Question(kind, spoken(text), answer, words.get("thing", ""))


def _exist(shown: _Shown, random: np.random.Generator) -> Iterator[Question]:
    for thing in shown.seen:
        if thing.colour in shown.looks(thing):
            yield _one("exist", "yes", random, thing=thing.name)
            yield _one("exist", "no", random, thing=shown.absent(thing, random))


def _features(shown: _Shown, random: np.random.Generator) -> Iterator[Question]:
    for thing in shown.seen:
        _, moments = shown.seen[thing]
        one_look = shown.looks(thing) == {thing.colour}
        if one_look and sum(t.shape == thing.shape for t in shown.seen) == 1:
            question = _one("colour", thing.colour, random, shape=thing.shape)
            yield replace(question, about=thing.name)
        if one_look and sum(thing.colour in shown.looks(t) for t in shown.seen) == 1:
            question = _one("shape", thing.shape, random, colour=thing.colour)
            yield replace(question, about=thing.name)
        if thing.colour in shown.looks(thing):
            yield _one("when", clock(shown.first(thing)), random, thing=thing.name)
            if thing.heading is None and has_clear_place(thing, moments[0]):
                yield _one("where", place(thing, moments[0]), random, thing=thing.name)
            if random.random() < 0.3:
                phrased = ("when", "where", "direction")[int(random.integers(3))]
                name = shown.absent(thing, random)
                yield _one("absent", NO_THING, random, phrased=phrased, thing=name)


def _motion(shown: _Shown, random: np.random.Generator) -> Iterator[Question]:
    for thing, (_, moments) in shown.seen.items():
        if len(moments) < 2 or thing.colour not in shown.looks(thing):
            continue
        if thing.heading is None and random.random() < 0.3:
            yield _one("absent", NO_MOTION, random, phrased="direction", thing=thing.name)
        if thing.heading and thing.speed * (moments[-1] - moments[0]) >= VISIBLE_TRAVEL:
            yield _one("direction", thing.heading, random, thing=thing.name)


def _change(shown: _Shown, random: np.random.Generator) -> Iterator[Question]:
    for thing, (_, moments) in shown.seen.items():
        if len(moments) < 2 or thing.colour not in shown.looks(thing):
            continue
        if len(shown.looks(thing)) == 2 and thing.turns:
            yield _one("change", thing.turns[1], random, thing=thing.name)
        elif random.random() < 0.06:
            yield _one("absent", NO_CHANGE, random, phrased="change", thing=thing.name)


def _order(shown: _Shown, random: np.random.Generator) -> Iterator[Question]:
    things = [thing for thing in shown.seen if thing.colour in shown.looks(thing)]
    for index, thing in enumerate(things):
        for other in things[index + 1 :]:
            if shown.first(thing) != shown.first(other):
                earlier = min(thing, other, key=shown.first)
                one, two = (thing, other) if random.random() < 0.5 else (other, thing)
                yield _one("order", earlier.name, random, thing=one.name, other=two.name)


def _at(shown: _Shown, random: np.random.Generator) -> Iterator[Question]:
    """What is seen at a moment that shows at most one thing; and at times that are not shown."""
    for view in shown.views:
        moment = int(random.choice(view.moments))
        there = [
            thing for thing, (of, moments) in shown.seen.items() if of is view and moment in moments
        ]
        time = clock(moment + view.shift)
        if len(there) == 1:
            name = f"{there[0].colour_at(moment)} {there[0].shape}"
            yield replace(_one("at", name, random, time=time), about=name)
        elif not there and view.film.scene_at(moment).number is None:
            yield _one("at", NOTHING, random, time=time)
        if random.random() < 0.3:
            never = clock(_unshown(shown.views, random))
            yield _one("absent", NOT_VISIBLE, random, phrased="at", time=never)


def _unshown(views: Sequence[View], random: np.random.Generator) -> int:
    """A time before, between or after all that is shown, ten minutes from it at the most."""
    begins = [view.moments[0] + view.shift for view in views]
    ends = [view.moments[-1] + view.shift for view in views]
    gaps = list(zip([-1, *ends], [*begins, ends[-1] + 600], strict=True))
    open_gaps = [(end, begin) for end, begin in gaps if begin - end > 2]
    end, begin = open_gaps[int(random.integers(len(open_gaps)))]
    return int(random.integers(max(end + 2, begin - 600), begin))


def _where_at(shown: _Shown, random: np.random.Generator) -> Iterator[Question]:
    for thing, (view, moments) in shown.seen.items():
        if thing.colour not in shown.looks(thing):
            continue
        unseen = [moment for moment in view.moments if moment not in moments]
        if unseen and random.random() < 0.4:
            time = clock(int(random.choice(unseen)) + view.shift)
            words = {"thing": thing.name, "time": time}
            yield _one("absent", NOT_VISIBLE, random, phrased="where at", **words)
        moment = int(random.choice(moments))
        if len(view.moments) > 1 and has_clear_place(thing, moment):
            time = clock(moment + view.shift)
            yield _one("where at", place(thing, moment), random, thing=thing.name, time=time)


def _whole(shown: _Shown, random: np.random.Generator) -> Iterator[Question]:
    """Questions about all that is shown."""
    if len(shown.seen) < len(NUMBERS):
        yield _one("count", NUMBERS[len(shown.seen)], random)
    numbers = {
        scene.number.shape
        for view in shown.views
        for scene in view.scenes
        if scene.number and any(scene.number.is_seen(moment) for moment in view.moments)
    }
    if len(numbers) == 1:
        yield _one("number", numbers.pop(), random)
