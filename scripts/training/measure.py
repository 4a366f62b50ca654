"""Held-out figures: how often the demo model is right, beside what can be had without looking."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from transformers import LlavaOnevisionForConditionalGeneration, SiglipModel

from scripts.training.language import collate, run
from scripts.training.lessons import IGNORE, Difficulty, Lesson, Teacher
from scripts.training.pool import Pool
from scripts.training.search import read_texts
from scripts.training.tower import pixels
from streamvlm.bench.questions import PHRASINGS

_TOGETHER = 8
_FILMS_TOGETHER = 4
Said = list[tuple[int, ...]]
"""What was said to each question of a lesson, as ids with the end."""


@dataclass(frozen=True, slots=True)
class Score:
    """How questions of one kind went."""

    kind: str
    """A key of `PHRASINGS`."""
    count: int
    """Questions asked."""
    right: float
    """Share answered exactly right."""
    blind: float
    """The same with all visual tokens removed; only times and question are left."""
    majority: float
    """Share that the best single answer gets."""


@dataclass(frozen=True, slots=True)
class Found:
    """How one way of asking finds scenes."""

    way: str
    """How it was asked."""
    count: int
    """Things looked for."""
    first: float
    """Share for which the scene ranked first shows the thing."""
    among_two: float
    """Share for which one of the first two does."""
    chance: float
    """Share that a scene drawn at random gets."""


def lessons_like(pool: Pool, how: Difficulty, count: int, seed: int) -> list[Lesson]:
    """Lessons of one difficulty.

    Args:
        pool: held-out films.
        how: how hard; each lesson has one frame to this many.
        count: how many lessons; each asks up to twelve questions.
        seed: which ones.
    """
    teacher, random = Teacher(pool), np.random.default_rng(seed)
    frames = random.integers(1, how.frames + 1, count)
    return [teacher.lesson(random, replace(how, frames=int(most))) for most in frames]


def score(
    model: LlavaOnevisionForConditionalGeneration, tokens: Tensor, lessons: Sequence[Lesson]
) -> list[Score]:
    """Mark every answer of some lessons.

    An answer counts as right if each of its words is the likeliest one after the right words
    before it, which holds exactly when greedy decoding says it.

    Args:
        model: the trained model.
        tokens: (F·36, D) of the lessons' pool.
        lessons: what is asked.
    """
    wanted = [_wanted(lesson) for lesson in lessons]
    seen = _say(model, tokens, lessons)
    unseen = _say(model, tokens, [_blind(lesson) for lesson in lessons])
    marks: dict[str, list[tuple[bool, bool]]] = defaultdict(list)
    answers: dict[str, Counter[tuple[int, ...]]] = defaultdict(Counter)
    for lesson, right, with_eyes, without in zip(lessons, wanted, seen, unseen, strict=True):
        for kind, answer, one, other in zip(lesson.kinds, right, with_eyes, without, strict=True):
            marks[kind].append((one == answer, other == answer))
            answers[kind][answer] += 1
    return [
        Score(
            kind=kind,
            count=len(marks[kind]),
            right=float(np.mean([one for one, _ in marks[kind]])),
            blind=float(np.mean([other for _, other in marks[kind]])),
            majority=answers[kind].most_common(1)[0][1] / len(marks[kind]),
        )
        for kind in PHRASINGS
        if marks[kind]
    ]


def _wanted(lesson: Lesson) -> Said:
    said: list[list[int]] = [[] for _ in lesson.kinds]
    for block, target in zip(lesson.block, lesson.target, strict=True):
        if target != IGNORE:
            said[block - 1].append(target)
    return [tuple(answer) for answer in said]


def _blind(lesson: Lesson) -> Lesson:
    """The same lesson without its visual tokens; all else stays where it was."""
    left = [index for index, source in enumerate(lesson.source) if source < 0]
    columns = ("ids", "position", "block", "target", "source", "hints")
    return replace(lesson, **{c: [getattr(lesson, c)[i] for i in left] for c in columns})


@torch.no_grad()
def _say(
    model: LlavaOnevisionForConditionalGeneration, tokens: Tensor, lessons: Sequence[Lesson]
) -> list[Said]:
    found: list[Said] = []
    for first in range(0, len(lessons), _TOGETHER):
        some = list(lessons[first : first + _TOGETHER])
        batch = collate(some)
        hidden, _ = run(model, tokens, batch)
        asked = batch["target"] != IGNORE
        best = torch.full_like(batch["target"], IGNORE)
        best[asked] = model.lm_head(hidden[asked]).argmax(-1)
        for lesson, row in zip(some, best.tolist(), strict=True):
            found.append(_wanted(replace(lesson, target=row[: len(lesson.ids)])))
    return found


def find(model: SiglipModel, pool: Pool) -> list[Found]:
    """Look for every thing among the scenes of four films, in three ways of asking.

    Args:
        model: the trained retriever.
        pool: held-out films.
    """
    keys = _frame_keys(model, pool)
    ways = ("a {thing}", "When does the {thing} appear?", "Where is the {thing}?")
    return [_find(model, pool, keys, way) for way in ways]


def _find(model: SiglipModel, pool: Pool, keys: Tensor, way: str) -> Found:
    first, second, chance = [], [], []
    for start in range(0, len(pool.films) - _FILMS_TOGETHER + 1, _FILMS_TOGETHER):
        numbers = range(start, start + _FILMS_TOGETHER)
        scenes = [(number, scene) for number in numbers for scene in pool.films[number].scenes]
        names = [{thing.name for thing in scene.things} for _, scene in scenes]
        wanted = sorted(set().union(*names))
        words = read_texts(model, [way.format(thing=name) for name in wanted])
        near = torch.stack(
            [
                (words @ keys[pool.first[n] + scene.start : pool.first[n] + scene.end].T).amax(1)
                for n, scene in scenes
            ],
            dim=1,
        )
        for name, order in zip(wanted, near.argsort(1, descending=True).tolist(), strict=True):
            hits = [name in names[scene] for scene in order]
            first.append(hits[0])
            second.append(any(hits[:2]))
            chance.append(sum(hits) / len(hits))
    return Found(
        way, len(first), float(np.mean(first)), float(np.mean(second)), float(np.mean(chance))
    )


@torch.no_grad()
def _frame_keys(model: SiglipModel, pool: Pool) -> Tensor:
    """(F, E) unit vectors."""
    parts = [
        model.get_image_features(pixel_values=pixels(part)).pooler_output
        for part in _parts(pool.images)
    ]
    return F.normalize(torch.cat(parts), dim=-1)


def _parts(images: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
    return [images[first : first + 64] for first in range(0, len(images), 64)]
