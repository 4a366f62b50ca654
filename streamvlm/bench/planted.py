"""Keys of cameras that never existed, with events of which it is known what they show.

Each camera looks at one scene: every segment has the same background tokens, which drift slowly
apart and carry some noise. Now and then an event covers a few tokens with what it shows, three
concepts, in one or two segments. A question is about one event: a key for each of its concepts, as
far from them as words are from pictures, and filler words which are near to some backgrounds and
to no event. For each question other events show two of its three concepts: they must lose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.rankers import Segments
from streamvlm.errors import BadOption

CONCEPTS, FILLERS = 3, 6
"""Keys of a question: of what its event shows, and of words that say nothing."""
_NOISE, _STEP = 0.16, 0.10
"""Lengths of what is added to a background token of length 1: anew in each segment, and to its
drift from one to the next. Neighbours have a cosine of 0.98, and 25 segments apart one of 0.90."""
_WANDER = 0.7
"""Length of the drift in the long run: it goes round the scene, not away from it."""
_SHARED = 0.5
"""How much of a background token the whole camera has in common."""
_COVERED = 0.9
"""How much of an event's token is its concept; the rest is the background behind it."""
_FAMILIAR = 0.45
"""Cosine of a filler word with the background that it is nearest to."""
_APART = 4
"""Events begin at least so many segments after one another on a camera."""


@dataclass(frozen=True)
class Setting:
    """How much there is, and how hard it is."""

    name: str = "hard"
    """What the tables call it."""
    match: float = 0.52
    """Cosine of a concept's word with its picture."""
    segments: int = 5_000
    """Over all cameras."""
    tokens: int = 32
    """Of a segment."""
    width: int = 128
    """D."""
    cameras: int = 10
    """Streams."""
    questions: int = 60
    """Each about an event of its own."""
    rivals: int = 4
    """Events for each question that show two of its three concepts."""
    seconds: float = 8.0
    """Of a segment."""

    def __post_init__(self) -> None:
        room = self.segments // self.cameras // _APART * self.cameras
        needed = self.questions * (1 + self.rivals)
        if self.tokens < CONCEPTS or needed > room:
            raise BadOption(
                f"{self.questions} questions with {self.rivals} rivals each and {self.tokens} "
                f"tokens do not fit into {self.segments} segments of {self.cameras} cameras; take "
                "more segments or fewer questions"
            )


HARD = Setting()
EASY = replace(HARD, name="easy", match=0.60)


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked, and what is right."""

    keys: NDArray[np.float32]
    """(Q, E) of unit length."""
    right: frozenset[int]
    """Segments that show what is asked for."""


def plant(setting: Setting, seed: int) -> tuple[Segments, tuple[Question, ...]]:
    """Make it all up; the same arguments, the same keys.

    Args:
        setting: how much and how hard.
        seed: of everything.
    """
    random = np.random.default_rng(seed)
    each = -(-setting.segments // setting.cameras)
    stream = np.arange(setting.segments) // each
    keys = np.concatenate([_camera(random, int(count), setting) for count in np.bincount(stream)])
    backgrounds = keys.copy()
    shown = _units(random, setting.questions * CONCEPTS, setting.width)
    shown = shown.reshape(setting.questions, CONCEPTS, setting.width)
    free = _free(random, stream)
    questions = []
    for concepts in shown:
        right = _happen(random, keys, stream, free.pop(), concepts)
        for _ in range(setting.rivals):
            kept = random.permutation(CONCEPTS)[: CONCEPTS - 1]
            other = _units(random, 1, setting.width)
            _happen(random, keys, stream, free.pop(), np.concatenate([concepts[kept], other]))
        words = _near(random, concepts, setting.match)
        fillers = backgrounds[
            random.integers(setting.segments, size=FILLERS),
            random.integers(setting.tokens, size=FILLERS),
        ]
        asked = np.concatenate([words, _near(random, fillers, _FAMILIAR)])
        questions.append(Question(asked.astype(np.float32), frozenset(right)))
    segments = Segments(
        keys=keys.reshape(-1, setting.width),
        owners=np.repeat(np.arange(setting.segments), setting.tokens),
        stream=stream,
        start=setting.seconds * (np.arange(setting.segments) % each).astype(np.float64),
    )
    return segments, tuple(questions)


def _camera(random: np.random.Generator, count: int, setting: Setting) -> NDArray[np.float32]:
    """(count, N, D) background tokens of one camera over time."""
    shape = (setting.tokens, setting.width)
    common = _units(random, 1, setting.width)
    scene = _near(random, np.broadcast_to(common, shape), _SHARED)
    unit = 1 / np.sqrt(setting.width)
    stays = np.sqrt(1 - (_STEP / _WANDER) ** 2)
    drift = _WANDER * unit * random.standard_normal(shape)
    seen = np.empty((count, *shape), np.float32)
    for step in range(count):
        seen[step] = scene + drift + _NOISE * unit * random.standard_normal(shape)
        drift = stays * drift + _STEP * unit * random.standard_normal(shape)
    seen /= np.linalg.norm(seen, axis=2, keepdims=True)
    return seen


def _free(random: np.random.Generator, stream: NDArray[np.int64]) -> list[int]:
    """Where events may begin, in random order; their second segments are not shared."""
    begins = np.flatnonzero(np.arange(len(stream)) % _APART == 1)
    return [int(place) for place in random.permutation(begins)]


def _happen(
    random: np.random.Generator,
    keys: NDArray[np.float32],
    stream: NDArray[np.int64],
    begin: int,
    concepts: NDArray[np.float64],
) -> list[int]:
    """Let an event cover some tokens; returns its segments."""
    lasts = int(random.integers(1, 3))
    places = random.permutation(keys.shape[1])[: len(concepts)]
    during = [
        segment
        for segment in range(begin, begin + lasts)
        if segment < len(stream) and stream[segment] == stream[begin]
    ]
    for segment in during:
        behind = keys[segment, places]
        seen = _COVERED * concepts + np.sqrt(1 - _COVERED**2) * behind
        keys[segment, places] = seen / np.linalg.norm(seen, axis=1, keepdims=True)
    return during


def _units(random: np.random.Generator, count: int, width: int) -> NDArray[np.float64]:
    vectors = random.standard_normal((count, width))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def _near(
    random: np.random.Generator, vectors: NDArray[np.floating], cosine: float
) -> NDArray[np.float64]:
    """(n, D) unit vectors at exactly this cosine to unit vectors, in a random direction."""
    away = random.standard_normal(vectors.shape)
    away -= (away * vectors).sum(1, keepdims=True) * vectors
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    near: NDArray[np.float64] = cosine * vectors + np.sqrt(1 - cosine**2) * away
    return near
