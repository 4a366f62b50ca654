"""An exam: held-out clips decoded from real H.264, the questions on each, and the marks."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from streamvlm.bench.world import SPLITS, UNSEEN_PAIRS, Film, Split
from streamvlm.bench.world.drawing import write_film
from streamvlm.bench.world.planning import plan_film
from streamvlm.bench.world.questions import Question, ask_all, clock, normalise
from streamvlm.bench.world.views import View
from streamvlm.config import Config
from streamvlm.errors import ConfigError
from streamvlm.ingest import record_id
from streamvlm.plugins import Recipe, complete_options
from streamvlm.types import Clip, Evidence, Frame, MemoryRecord, Query, VisualTokens
from streamvlm.video.sources import Sampling, open_source

if TYPE_CHECKING:
    from streamvlm.ingest import VideoLLM

QUESTIONS, OF_A_KIND = 12, 3
"""Most questions on a paper, and most of one kind."""
RAREST_FIRST = (
    "change",
    "number",
    "direction",
    "order",
    "where",
    "at",
    "where at",
    "absent",
    "colour",
    "shape",
    "when",
    "exist",
    "count",
)
"""Kinds by how seldom a clip allows a question of them."""
_SCENES, _SIZE = 3, 384
SEEDS_APART = 1_000_000
"""How many films a seed has to itself."""


@dataclass(frozen=True, slots=True, eq=False)
class Paper:
    """One clip and what is asked about it."""

    number: int
    """Counts the papers of an exam from 0."""
    split: Split
    """What is new in its film to the model."""
    clip: Clip
    """As decoded, one frame a second, nothing dropped."""
    questions: tuple[Question, ...]
    """With their true answers."""


@dataclass(frozen=True, slots=True)
class Mark:
    """One question, what was said, and whether it was right."""

    clip: int
    """The paper's number."""
    split: Split
    """What was new in its film."""
    kind: str
    """Of the question."""
    frames: int
    """How many frames the clip has."""
    about: str
    """The thing that the question is about; empty if it is about all."""
    expected: str
    """The right answer, normalised."""
    said: str
    """The model's answer, normalised."""
    right: bool
    """Whether they are the same."""
    milliseconds: float
    """Wall time until the whole answer was there."""
    first: str = ""
    """The time of the clip's first frame, as the prompt says it."""


def papers(seed: int, count: int, *, split: Split, frames: int, crf: int = 23) -> Iterator[Paper]:
    """Clips of 1 to `frames` frames, each of a film of its own, with their questions.

    The same arguments give the same papers, and a larger `count` begins with the same ones; the
    quality changes the pictures only.

    Args:
        seed: of all films.
        count: how many papers.
        split: which held-out films.
        frames: longest clip; the lengths are cycled.
        crf: H.264 quality of the films.

    Yields:
        Papers as they are made.
    """
    with tempfile.TemporaryDirectory(prefix="streamvlm-exam-") as folder:
        for number in range(count):
            film = plan_film(seed * SEEDS_APART + number, _SCENES, split=split)
            random = np.random.default_rng((SPLITS.index(split), seed, number))
            length = number % frames + 1
            first = int(random.integers(film.seconds - length + 1))
            seen = _filmed(film, Path(folder) / "film.mp4", crf)[first : first + length]
            clip = Clip(seen[0].stream, seen[0].seconds, seen[-1].seconds + 1.0, seen)
            asked = ask_all([View(film, tuple(range(first, first + length)))], random)
            yield Paper(number, split, clip, chosen(asked, random))


def _filmed(film: Film, path: Path, crf: int) -> tuple[Frame, ...]:
    """A film's pictures after H.264, one a second."""
    write_film(film, path, fps=1, size=_SIZE, crf=crf)
    return tuple(open_source(str(path), Sampling(fps=1.0)))


def chosen(questions: Sequence[Question], random: np.random.Generator) -> tuple[Question, ...]:
    """At most `QUESTIONS`, at most `OF_A_KIND` of a kind.

    Kinds that are rare come first, and within a kind what is about a pair of colour and shape that
    training never shows.

    Args:
        questions: all that could be asked.
        random: decides which of a kind.
    """
    kinds: dict[str, list[Question]] = {kind: [] for kind in RAREST_FIRST}
    shuffled = [questions[index] for index in random.permutation(len(questions))]
    for question in sorted(shuffled, key=lambda each: each.about not in UNSEEN_PAIRS):
        kinds[question.kind].append(question)
    # One of each kind, then a second of each, then a third.
    turns = (of_kind[turn : turn + 1] for turn in range(OF_A_KIND) for of_kind in kinds.values())
    return tuple(question for turn in turns for question in turn)[:QUESTIONS]


def examinee(config: Config, cues: Iterable[str] = ()) -> VideoLLM:
    """The model that a configuration names, loaded.

    Args:
        config: any configuration.
        cues: the side signals it should give beside the features; none are computed otherwise.

    Raises:
        ConfigError: another answers in its place.
    """
    if "answerer" in config.recipes:
        raise ConfigError(
            "the section model is what is measured, but this configuration lets "
            f"{config.recipes['answerer'].name} answer; measure one without the section answerer"
        )
    recipe = config.recipes["model"]
    options = {**recipe.options, "with_cues": tuple(sorted(cues))}
    model: Any = Recipe("models", recipe.name, options).build()
    if "reducer" in config.recipes:
        model.reduce_with(config.recipes["reducer"].build())
    return model  # type: ignore[no-any-return]


def fingerprint(config: Config, model: VideoLLM) -> str:
    """What is measured, for the conditions of a report: the weights, and what reduces them.

    Args:
        config: what the model was made by.
        model: the examinee.
    """
    reducer = config.recipes.get("reducer")
    if reducer is None:
        return model.model
    options = complete_options(reducer.plugin, reducer.options)
    chosen = ", ".join(f"{name} {value}" for name, value in options.items() if value is not None)
    return f"{model.model}, reducer {reducer.name} ({chosen})"


def sit(model: VideoLLM, tokens: VisualTokens | None, paper: Paper) -> list[Mark]:
    """Ask every question of a paper, one after the other.

    Args:
        model: who is asked.
        tokens: what it sees of the paper's clip, compressed or not; None for nothing at all: then
            the question alone is what it guesses from.
        paper: what is asked.

    Returns:
        A mark for each question, in order.
    """
    evidence = () if tokens is None else (shown(tokens, paper.clip),)
    marks = []
    for question in paper.questions:
        began = time.perf_counter()
        words = model.answer(Query(question.text), evidence)
        said = "".join(word.text for word in words)
        marks.append(_marked(paper, question, said, 1000 * (time.perf_counter() - began)))
    return marks


def sit_at_once(model: VideoLLM, evidence: Sequence[Evidence], paper: Paper) -> list[Mark]:
    """Ask all questions of a paper side by side: the evidence is read once for all.

    The answers are those of `sit` up to rounding, in a fraction of the time.

    Args:
        model: who is asked; one that cannot answer side by side is asked one after the other.
        evidence: what it reads; none leaves only the questions.
        paper: what is asked; its clip is not looked at.

    Returns:
        A mark for each question, in order; the time is shared evenly.
    """
    if not paper.questions:
        return []
    queries = [Query(question.text) for question in paper.questions]
    answer_all = getattr(model, "answer_all", None)
    began = time.perf_counter()
    if answer_all is None:
        said = ["".join(word.text for word in model.answer(each, evidence)) for each in queries]
    else:
        said = answer_all(queries, evidence)
    each = 1000 * (time.perf_counter() - began) / len(queries)
    return [
        _marked(paper, question, text, each)
        for question, text in zip(paper.questions, said, strict=True)
    ]


def _marked(paper: Paper, question: Question, text: str, milliseconds: float) -> Mark:
    said, expected = normalise(text), normalise(question.answer)
    return Mark(
        clip=paper.number,
        split=paper.split,
        kind=question.kind,
        frames=len(paper.clip.frames),
        about=question.about,
        expected=expected,
        said=said,
        right=said == expected,
        milliseconds=milliseconds,
        first=clock(paper.clip.start),
    )


def read_alike(one: VisualTokens, other: VisualTokens) -> bool:
    """Whether a model reads the same from both."""
    parts = (
        (one.position, other.position),
        (one.features, other.features),
        (one.weight, other.weight),
        (one.deepstack, other.deepstack),
    )
    return all(a is b or (a is not None and b is not None and torch.equal(a, b)) for a, b in parts)


def shown(tokens: VisualTokens, clip: Clip) -> Evidence:
    """Tokens of a clip as evidence, as if a memory had found them; without keys or picture."""
    seconds = np.array([frame.seconds for frame in clip.frames])
    record = MemoryRecord(
        id=record_id(clip),
        stream=clip.stream,
        start=clip.start,
        end=clip.end,
        keys=np.zeros((1, 1), np.float32),
        tokens=tokens.without_cues(),
        frame_seconds=seconds,
        frame_hash=np.zeros(len(seconds), np.uint64),
        thumbnail=b"",
    )
    return Evidence(record, score=1.0)
