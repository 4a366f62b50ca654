"""What the language model is shown: views of films with times, dropped tokens, and questions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from scripts.training.pool import GRID, Pool
from scripts.training.words import make_tokenizer
from streamvlm.bench.world import HEADINGS, UNSEEN_PAIRS, Film, Thing
from streamvlm.bench.world.questions import VISIBLE_TRAVEL, Question, ask_all, clock
from streamvlm.bench.world.views import View

CELLS = GRID * GRID
NEWLINE = -2
"""In `Lesson.source`: the slot that holds the learned newline vector."""
TEXT = -1
"""In `Lesson.source`: no visual token."""
IGNORE = -100
HINTS = 5
"""How many things each visual token should know."""
BARRED = 2
"""How many words cannot follow."""
_QUESTIONS = 16
_RARE = ("direction", "change", "number", "at", "where at", "absent")
"""Kinds that few clips allow, or that are hard to learn; they are asked first."""
_OF_A_KIND = dict.fromkeys(("when", "at", "where at", "absent"), 4)
_OF_OTHERS = 2
"""How many questions of one kind: more of those that tie a thing to a time, the hardest."""
_NEVER = {
    one: other
    for pair in sorted(UNSEEN_PAIRS)
    for one, other in (pair.split(), reversed(pair.split()))
}
"""The colour that a shape never has in training, and the shape that a colour never has."""
_LONGEST_GAP = 3600.0
"""Seconds between two views at the most."""


@dataclass(frozen=True, slots=True)
class Difficulty:
    """How hard a lesson may be."""

    frames: int
    """Frames at the most."""
    drops: bool
    """Whether tokens are dropped."""


@dataclass(slots=True)
class Lesson:
    """One sequence of S tokens: what is seen, then questions that see it and themselves only."""

    ids: list[int] = field(default_factory=list)
    position: list[int] = field(default_factory=list)
    block: list[int] = field(default_factory=list)
    """0 for what is seen, k for the k-th question."""
    target: list[int] = field(default_factory=list)
    """The next token, where it belongs to an answer, else `IGNORE`."""
    source: list[int] = field(default_factory=list)
    """Frame · 36 + cell of a visual token, `NEWLINE`, or `TEXT`."""
    hints: list[tuple[int, ...]] = field(default_factory=list)
    """For visual tokens: second, minute, heading, whether first seen, ninth; else `IGNORE`."""
    barred: list[tuple[int, ...]] = field(default_factory=list)
    """In answers: two words that would make a pair held out of training; else `IGNORE`."""

    def add(self, ids: Sequence[int], start: int, block: int) -> int:
        """Append text at consecutive positions; returns the position after it."""
        self.ids += ids
        self.position += range(start, start + len(ids))
        self.block += [block] * len(ids)
        self.target += [IGNORE] * len(ids)
        self.source += [TEXT] * len(ids)
        self.hints += [(IGNORE,) * HINTS] * len(ids)
        self.barred += [(IGNORE,) * BARRED] * len(ids)
        return start + len(ids)


class Teacher:
    """Makes lessons from a pool, deterministically from a random state."""

    def __init__(self, pool: Pool) -> None:
        self._films, self._first = pool.films, pool.first
        self._cells = pool.thing
        self._words = make_tokenizer()
        self._video = self._words.convert_tokens_to_ids("<video>")
        self._turn = self._ids("<|im_end|><|im_start|>assistant")
        self._start, self._end = self._ids("<|im_start|>user"), self._ids("<|im_end|>")
        self._known: dict[str, list[int]] = {}

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._words.encode(text, add_special_tokens=False)
        return ids

    def _cached(self, text: str) -> list[int]:
        if text not in self._known:
            self._known[text] = self._ids(text)
        return self._known[text]

    def views(self, random: np.random.Generator, frames: int) -> list[tuple[int, View]]:
        """One to three views, (film number, view) each, with `frames` frames at the most."""
        while True:
            count = int(random.choice([1, 2, 3], p=[0.55, 0.35, 0.1])) if frames > 2 else 1
            limits = np.full(count, max(frames // count, 1))
            clock_now = int(
                random.integers(0, 60) if random.random() < 0.5 else random.integers(0, 7000)
            )
            found: list[tuple[int, View]] = []
            for limit in limits:
                number = int(random.integers(len(self._films)))
                moments = self._moments(random, number, int(limit))
                shift = clock_now - moments[0]
                found.append((number, View(self._films[number], moments, shift)))
                clock_now = moments[-1] + shift + 1 + int(_gap(random))
            looks = [look for _, view in found for look in _looks(view)]
            if looks and len(looks) == len(set(looks)):
                return found

    def _moments(self, random: np.random.Generator, number: int, limit: int) -> tuple[int, ...]:
        film = self._films[number]
        span = int(random.integers(1, 9))
        start = int(random.integers(0, max(film.seconds - span, 1)))
        moments = [start]
        drop = 0.85 if random.random() < 0.6 else 0.0
        for second in range(start + 1, min(start + span, film.seconds)):
            is_still = _signature(film, second) == _signature(film, moments[-1])
            if not (is_still and random.random() < drop):
                moments.append(second)
        return tuple(moments[:limit])

    def lesson(self, random: np.random.Generator, how: Difficulty) -> Lesson:
        """One lesson."""
        views = self.views(random, how.frames)
        lesson = Lesson()
        at = lesson.add(self._start, 0, 0)
        kept = _kept(random, sum(len(view.moments) for _, view in views), drops=how.drops)
        row = 0
        for number, view in views:
            for index in range(len(view.moments)):
                at = self._show(lesson, at, number, view, index, kept[row])
                row += 1
        lesson.add([self._video], at, 0)
        lesson.source[-1] = NEWLINE
        shown = [view for _, view in views]
        # Asked twice: each time at other moments and in other words.
        asked = _choose([*ask_all(shown, random), *ask_all(shown, random)], random)
        for block, question in enumerate(asked, start=1):
            self._ask(lesson, at + 1, block, question)
        return lesson

    def _show(
        self, lesson: Lesson, at: int, number: int, view: View, index: int, kept: NDArray[np.bool_]
    ) -> int:
        if not kept.any():
            return at
        moment = view.moments[index]
        seconds = moment + view.shift
        at = lesson.add(self._cached(clock(seconds)), at, 0)
        frame = int(self._first[number]) + moment
        cells = np.flatnonzero(kept)
        things = view.film.things
        lesson.ids += [self._video] * len(cells)
        lesson.position += (at + cells).tolist()
        lesson.block += [0] * len(cells)
        lesson.target += [IGNORE] * len(cells)
        lesson.barred += [(IGNORE,) * BARRED] * len(cells)
        lesson.source += (frame * CELLS + cells).tolist()
        time = (seconds % 60, seconds // 60 % 60)
        for which in self._cells[frame, cells].tolist():
            extra = _hint(things[which], view, index) if which >= 0 else (IGNORE,) * 3
            lesson.hints.append((*time, *extra))
        return at + CELLS

    def _ask(self, lesson: Lesson, at: int, block: int, question: Question) -> None:
        at = lesson.add(self._ids(question.text) + self._turn, at, block)
        answer = self._cached(question.answer) + self._end
        begin = len(lesson.ids)
        lesson.add(answer, at, block)
        lesson.target[begin - 1 : begin - 1 + len(answer)] = answer
        barred = self._barred(question)
        lesson.barred[begin - 1 : begin - 1 + len(answer)] = [barred] * len(answer)

    def _barred(self, question: Question) -> tuple[int, int]:
        """The words that would make what is asked about, or answered, a pair held out of training.

        Never to have heard them together is no reason to learn that they cannot be.
        """
        pair = question.answer if question.kind in ("at", "order") else question.about
        colour, _, shape = pair.partition(" ")
        words = (_NEVER.get(shape), _NEVER.get(colour))
        first, second = (self._cached(word)[0] if word else IGNORE for word in words)
        return first, second


def _gap(random: np.random.Generator) -> float:
    """Seconds between two views: some seconds, or anything up to an hour, each as likely."""
    if random.random() < 0.5:
        return float(random.exponential(20))
    return float(np.exp(random.uniform(np.log(20), np.log(_LONGEST_GAP))))


def _looks(view: View) -> list[str]:
    """Every colour and shape in which something is shown, once for each thing."""
    return [
        look
        for thing, moments in view.sightings.items()
        for look in {f"{thing.colour_at(moment)} {thing.shape}" for moment in moments}
    ]


def _hint(thing: Thing, view: View, index: int) -> tuple[int, int, int]:
    """Heading, whether first seen, and the ninth of the picture its centre is in."""
    x, y = thing.centre(view.moments[index])
    ninth = 3 * min(int(y * 3), 2) + min(int(x * 3), 2)
    before = [moment for moment in view.moments[:index] if thing.is_seen(moment)]
    if not before:
        return IGNORE, 1, ninth
    if thing.heading is None:
        return len(HEADINGS), 0, ninth
    travel = thing.speed * (view.moments[index] - before[0])
    heading = list(HEADINGS).index(thing.heading) if travel >= VISIBLE_TRAVEL else IGNORE
    return heading, 0, ninth


def _signature(film: Film, second: int) -> tuple[object, ...]:
    scene = film.scene_at(second)
    seen = [
        (t.shape, t.colour_at(second), t.centre(second)) for t in scene.drawn if t.is_seen(second)
    ]
    return (scene.start, *seen)


def _kept(random: np.random.Generator, frames: int, *, drops: bool) -> NDArray[np.bool_]:
    """(frames, 36) which tokens are kept: chosen without looking at what they show."""
    kept: NDArray[np.bool_] = np.ones((frames, CELLS), bool)
    if not drops or random.random() < 0.5:
        return kept
    share = random.choice([0.5, 0.25, 0.15, 0.1, 0.05], p=[0.3, 0.25, 0.2, 0.15, 0.1])
    if random.random() < 0.7:
        kept = np.less(random.random((frames, CELLS)), share)
    else:
        kept = np.less((np.arange(frames * CELLS) * share) % 1, share).reshape(frames, CELLS)
    kept[:, int(random.integers(CELLS))] = True
    return kept


def _choose(asked: list[Question], random: np.random.Generator) -> list[Question]:
    """Some of the questions, no two alike and few of a kind; rare kinds come first."""
    chosen: list[Question] = []
    order = random.permutation(len(asked))
    for index in sorted(order, key=lambda i: asked[i].kind not in _RARE):
        question = asked[index]
        same = sum(question.kind == other.kind for other in chosen)
        most = _OF_A_KIND.get(question.kind, _OF_OTHERS)
        if same < most and len(chosen) < _QUESTIONS and question not in chosen:
            chosen.append(question)
    return chosen
