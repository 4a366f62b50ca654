"""The times that a question names: "at 00:40", "between 1:00 and 1:30", "in the last 5 minutes".

What is read as a time of the stream, in any case of letters:

- clocks: `00:40`, `1:02:05`; two parts are minutes and seconds, as the prompt writes them;
- amounts behind "at": `at 40 s`, `at about 2 minutes 30 seconds`, `at the 40-second mark`, and
  before "into the video"; units are s, sec, second, min, minute, h, hr, hour and their plurals,
  numbers are digits or the words one to ten;
- numbered units behind "at", "in" or "during": `at minute 3` is the minute that begins at 03:00;
- stretches between any two of these: `between 10 and 20 seconds`, `from 1:00 to 1:30`, `1:00-1:30`;
- what comes before or after one of these: `until 00:30`, `after 2 minutes`; with "just" or "right"
  only the second next to it;
- the ends: `in the first minute`, `the last 5 minutes`.

Everything else is not, above all bare numbers, lengths of time (`for 5 seconds`), times of day
(`12:30 pm`), times in quotes, and what a picture shows (`the clock shows 12:30`). A clock time that
is none of these is taken for one of the stream, even if a wall clock is meant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

_NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_UNITS = {"s": 1, "m": 60, "h": 3600}
"""Seconds by the first letter of a unit."""

_DIGITS = r"[0-9]+(?:\.[0-9]+)?"
_WORDS = "|".join(_NUMBERS)
_UNIT = r"(?:seconds?|secs?|s|minutes?|mins?|hours?|hrs?|h)"
_FILM = r"(?:video|film|movie|clip|stream|recording|footage)"
# What makes an amount of time a length or a distance from something else.
_ALONE = (
    r"(?![\w'’/]|[\s-]+(?:later|earlier|ago|apart|long|old|each|every|per|intervals?|before|after|"
    rf"from|of(?!\s+(?:(?:the|this)\s+)?{_FILM}))\b)"
)
_QUANTITY = rf"\b(?:{_DIGITS}[\s-]?|(?:{_WORDS})[\s-]){_UNIT}\b"
_AMOUNT = rf"{_QUANTITY}(?:\s+(?:and\s+)?{_QUANTITY}){{0,2}}{_ALONE}"
_NUMBERED = r"\b(?:second|minute|hour)\s+[0-9]+(?![\w:]|\.[0-9])"
_CLOCK = (
    r"(?<![\w:.,+/\"'“‘«])(?:[0-9]{1,2}:[0-5][0-9]|[0-9]{1,2}):[0-5][0-9]"
    r"(?![\w\"'”’»]|:[0-9]|\s*(?:[ap]\.?m\b|o['’]?clock|utc\b|gmt\b))"
)
_LENGTH = rf"(?:{_AMOUNT}|(?:minute|hour){_ALONE})"
_TIME = rf"(?:{_CLOCK}|{_AMOUNT}|{_NUMBERED})"
_UP_TO = r"(?:\s*[-–—]\s*|\s+(?:to|until|till|through)\s+)"
_TO = rf"(?:{_UP_TO}|\s+and\s+)"
_ABOUT = r"(?:(?:about|around|approximately|roughly|exactly)\s+)?"

_SHOWN = re.compile(
    r"\b(?:shows?|showed|showing|says?|said|saying|reads?|reading|displays?|displayed|displaying|"
    r"strikes?|struck|takes?|took|lasts?|lasted|for|score|ratio)\s+(?:of\s+)?$"
)
"""Ends with a word that makes the time behind it something seen in the picture, or a length."""
_LOOK_BACK = 24
"""Characters before a time in which such a word is looked for."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A stretch [start, end) of stream time, in seconds."""

    start: float
    """Below 0 if it counts from the end of the stream."""
    end: float
    """Infinite for the end of the stream."""

    def begin(self, seconds: float) -> float:
        """Where it begins in a stream of so many seconds.

        >>> Moment(-60.0, math.inf).begin(150.0), Moment(40.0, 41.0).begin(150.0)
        (90.0, 40.0)
        """
        return self.start if self.start >= 0 else max(seconds + self.start, 0.0)


_FORMS = tuple(
    re.compile(form)
    for form in (
        rf"\b(?:between|from)\s+(?P<since>{_TIME}){_TO}(?P<until>{_TIME})",
        rf"\b(?:between|from)\s+(?P<bare>{_DIGITS}){_TO}(?P<until>{_AMOUNT})",
        rf"(?P<since>{_CLOCK}){_UP_TO}(?P<until>{_CLOCK})",
        rf"\bthe\s+first\s+(?P<until>{_LENGTH})",
        rf"\bthe\s+last\s+(?P<last>{_LENGTH})",
        rf"\b(?:just|right)\s+before\s+(?P<next>{_TIME})",
        rf"\b(?:just|right)\s+after\s+(?P<at>{_TIME})",
        rf"\b(?:before|until|till|up\s+to)\s+(?P<until>{_TIME})",
        rf"\b(?:after|since|from)\s+(?P<since>{_TIME})",
        rf"\b(?:at|in|during)\s+(?P<at>{_NUMBERED})",
        rf"(?:\bat|@)\s+{_ABOUT}(?:the\s+)?(?P<at>{_AMOUNT})",
        rf"(?P<at>{_AMOUNT})\s+into\s+(?:the|this)\s+{_FILM}\b",
        rf"(?P<at>{_CLOCK})",
    )
)
"""From the widest to the narrowest."""


def moments(question: str) -> tuple[Moment, ...]:
    """The times that a question names; see the module for which.

    A single time is a second long, as the prompt rounds times down to it.

    Args:
        question: as the user wrote it.

    Returns:
        Each once, in the order of their forms, not of the text; empty if there is none.

    >>> moments("What is there at 00:40?")
    (Moment(start=40.0, end=41.0),)
    """
    rest = question.lower()
    found: list[Moment] = []
    for form in _FORMS:
        named = [match for match in form.finditer(rest) if not _is_shown(rest, match.start())]
        found += [_stretch(match.groupdict()) for match in named]
        # What one form has read is not read again by the next.
        rest = form.sub(lambda match: " " * len(match[0]), rest)
    return tuple(dict.fromkeys(found))


def _is_shown(text: str, place: int) -> bool:
    """Whether what begins at a place of a text is what a picture shows, or a length."""
    return _SHOWN.search(text[max(place - _LOOK_BACK, 0) : place]) is not None


def _stretch(said: Mapping[str, str | None]) -> Moment:
    """The moment that the named groups of a form say."""
    since, until = said.get("since"), said.get("until")
    if length := said.get("last"):
        return Moment(-_seconds(length), math.inf)
    if time := said.get("at"):
        start = _seconds(time)
        return Moment(start, start + (_UNITS[time[0]] if re.match(_NUMBERED, time) else 1))
    if time := said.get("next"):
        start = max(_seconds(time) - 1, 0.0)
        return Moment(start, start + 1)
    if bare := said.get("bare"):
        since = bare + re.sub(_DIGITS, "", until or "", count=1)
    start = _seconds(since) if since else 0.0
    end = _seconds(until) if until else math.inf
    return Moment(min(start, end), max(start, end, min(start, end) + 1))


def _seconds(time: str) -> float:
    """How many seconds a clock, an amount, a numbered unit or a unit stands for."""
    if ":" in time:
        parts = reversed(time.split(":"))
        return sum(float(part) * 60.0**power for power, part in enumerate(parts))
    if numbered := re.fullmatch(rf"({_UNIT})\s+({_DIGITS})", time):
        return _UNITS[numbered[1][0]] * float(numbered[2])
    counted = re.findall(rf"({_DIGITS}|{_WORDS})?[\s-]?({_UNIT})\b", time)
    return sum(_count(number) * _UNITS[unit[0]] for number, unit in counted)


def _count(number: str) -> float:
    """A number in digits or words; one where there is none."""
    return _NUMBERS.index(number) + 1.0 if number in _NUMBERS else float(number or 1)
