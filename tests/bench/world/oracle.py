"""Answers questions about a film from their words and its plan, without the code that asks them."""

import re
from dataclasses import dataclass

from streamvlm.bench.world import HEADINGS

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
SAID = {
    "exist": r"(?:Is there|Do you see) an? (\w+ \w+)\?",
    "colour": r"(?:What|Which) colour (?:is|does) the (\w+)(?: have)?\?",
    "shape": r"(?:What shape is the|Which shape is) (\w+)(?: thing)?\?",
    "where": r"(?:Where|In which part of the picture) is the (\w+ \w+)\?",
    "when": r"(?:When|At what time) does the (\w+ \w+) appear\?",
    "direction": r"(?:Which way does|In which direction does) the (\w+ \w+) (?:move|go)\?",
    "count": r"How many (?:different )?things (?:are there|appear)\?",
    "order": r"Which (?:appears|comes) first, the (\w+ \w+) or the (\w+ \w+)\?",
    "change": r"(?:Which|What) colour does the (\w+ \w+) (?:turn|become)\?",
    "at": r"What (?:is there|do you see) at ([\d:]+)\?",
    "where at": r"(?:Where|In which part) is the (\w+ \w+) at ([\d:]+)\?",
    "number": r"(?:What number is shown|Which number do you see)\?",
}
"""Kind → how it is asked, with what it is asked about."""


@dataclass(frozen=True)
class Sight:
    """One thing at one moment that is shown."""

    time: int
    name: str
    look: str
    x: float
    y: float


def shown(views):
    """Time shown → all that is seen then, in order; from the plan alone."""
    moments = {}
    for view in views:
        for second in view.moments:
            there = moments.setdefault(second + view.shift, [])
            for scene in view.film.scenes:
                if scene.start <= second < scene.end:
                    for thing in scene.things:
                        if thing.appears <= second < thing.vanishes:
                            gone = (second - thing.appears) * thing.speed
                            across, down = HEADINGS.get(thing.heading, (0, 0))
                            turned = thing.turns and thing.turns[0] <= second
                            colour = thing.turns[1] if turned else thing.colour
                            there.append(
                                Sight(
                                    second + view.shift,
                                    f"{thing.colour} {thing.shape}",
                                    f"{colour} {thing.shape}",
                                    thing.x + across * gone,
                                    thing.y + down * gone,
                                )
                            )
    return moments


def ninth(sight):
    row = "top" if sight.y < 1 / 3 else "bottom" if sight.y >= 2 / 3 else ""
    column = "left" if sight.x < 1 / 3 else "right" if sight.x >= 2 / 3 else ""
    return f"{row} {column}".strip() or "centre"


def spoken(time):
    """Seconds of a time in words such as 01:02:03 or 02:03."""
    parts = [int(part) for part in time.split(":")]
    return sum(part * 60**power for power, part in enumerate(reversed(parts)))


def asked_kind(text):
    """The kind that a question is of by its words, and what it names."""
    fits = {kind: re.fullmatch(pattern, text) for kind, pattern in SAID.items()}
    ((kind, found),) = [(kind, found) for kind, found in fits.items() if found]
    return kind, found.groups()


def only(answers):
    (answer,) = set(answers)
    return answer


def truth(views, text):
    """The right answer to a question; an error if there is more than one."""
    moments = shown(views)
    sights = [sight for there in moments.values() for sight in there]
    kind, named = asked_kind(text)
    seen = [sight for sight in sights if named and sight.name == named[0]]
    if kind == "exist":
        return "yes" if any(sight.look == named[0] for sight in sights) else "no"
    if kind == "count":
        return DIGITS[len({sight.name for sight in sights})]
    if kind == "number":
        return only(
            scene.number.shape
            for view in views
            for scene in view.film.scenes
            for second in view.moments
            if scene.number and scene.start <= second < scene.end and scene.number.is_seen(second)
        )
    if kind == "colour":
        return only(s.look.split()[0] for s in sights if s.look.split()[1] == named[0])
    if kind == "shape":
        return only(s.look.split()[1] for s in sights if s.look.split()[0] == named[0])
    if kind == "at":
        there = moments.get(spoken(named[0]))
        if there is None:
            return "not visible"
        return only(sight.look for sight in there) if there else "nothing"
    if kind == "order":
        firsts = {name: min(s.time for s in sights if s.name == name) for name in named}
        assert len(set(firsts.values())) == 2
        return min(firsts, key=firsts.get)
    if not seen:
        return "no such thing"
    if kind == "where at":
        then = [sight for sight in seen if sight.time == spoken(named[1])]
        return only(ninth(sight) for sight in then) if then else "not visible"
    return about_one(kind, seen)


def about_one(kind, seen):
    """The right answer about one thing, from all times at which it is seen."""
    if kind == "where":
        return only(ninth(sight) for sight in seen)
    if kind == "when":
        return min(sight.time for sight in seen)
    if kind == "change":
        return "no change" if seen[0].look == seen[-1].look else seen[-1].look.split()[0]
    across, down = seen[-1].x - seen[0].x, seen[-1].y - seen[0].y
    if not across and not down:
        return "no motion"
    assert max(abs(across), abs(down)) >= 0.14
    return max(
        ("left", -across),
        ("right", across),
        ("up", -down),
        ("down", down),
        key=lambda pair: pair[1],
    )[0]
