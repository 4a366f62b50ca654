"""`streamvlm bench still`: what each compressor stores of an hour in which nothing happens.

Each film is one scene before a still camera, real H.264 with the camera's noise, watched clip by
clip as an ingest does it: each method gets what it made of the clip before. Then questions about
the scene are asked of records drawn from the whole film.
"""

from __future__ import annotations

import inspect
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from streamvlm.bench.exam import (
    SEEDS_APART,
    Mark,
    Paper,
    chosen,
    examinee,
    fingerprint,
    read_alike,
    shown,
    sit_at_once,
)
from streamvlm.bench.ranking import BASELINES, Method, Sitting, Trial
from streamvlm.bench.report import Progress, here, silent
from streamvlm.bench.still_report import Watch
from streamvlm.bench.world import Film
from streamvlm.bench.world.drawing import write_film
from streamvlm.bench.world.questions import ask_all
from streamvlm.bench.world.still import is_timeless, plan_still
from streamvlm.bench.world.views import View
from streamvlm.config import AT_ANSWER_TIME, Config
from streamvlm.errors import BadOption, StreamVLMError
from streamvlm.memory.retrieve import fit
from streamvlm.plugins import Recipe, find, names
from streamvlm.protocols import Compressor
from streamvlm.types import Clip, Evidence, VisualTokens
from streamvlm.video.clips.fixed import Fixed
from streamvlm.video.sources import Sampling, open_source

if TYPE_CHECKING:
    from streamvlm.ingest import VideoLLM

SIZE = 192
"""Of the films in pixels: twice as large as the demo model looks at them."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is watched, and how long.

    Raises:
        BadOption: when made, if something is out of range.
    """

    seconds: int = 3600
    """Length of a film, one frame a second."""
    films: int = 6
    """How many, each of another scene."""
    keep: float = 0.1
    """The share of the tokens that compressors are asked to keep, 0–1."""
    compressors: tuple[str, ...] = ()
    """Plug-ins beside the baselines; empty for all that run at ingest."""
    frames: int = 128
    """Of a clip."""
    records: int = 3
    """How many clips of each film are asked about, drawn from equal stretches of it."""
    seed: int = 1
    """Of the films, the records and the questions."""

    def __post_init__(self) -> None:
        if self.films < 2 or self.frames < 1 or not 1 <= self.records <= self.clips:
            raise BadOption(
                "this needs at least 2 films, clips of at least 1 frame, and in each film as many "
                "clips as are asked about"
            )
        if not 0 < self.keep <= 1:
            raise BadOption(f"keep must be more than 0 and at most 1, found {self.keep:g}")

    @property
    def clips(self) -> int:
        """Of one film."""
        return -(-self.seconds // self.frames)


@dataclass
class _Entrant:
    """A method as it watches one film after the other."""

    method: Method
    compress: Compressor
    chained: bool
    """Whether its records are read together with the one before."""
    sittings: list[Sitting] = field(default_factory=list)
    refused: str = ""
    """Why it is left out; empty if it is not."""


def entrants(plan: Plan, offered: frozenset[str]) -> tuple[list[_Entrant], list[str]]:
    """Everything that can watch, the baselines first, and why the rest cannot.

    Args:
        plan: which compressors at which budget.
        offered: the cues that the model gives.

    Returns:
        Methods, and a sentence for each that is left out.

    Raises:
        UnknownPlugin: there is no compressor of a name in the plan.
    """
    for name in plan.compressors:
        find("compressors", name)
    found, skipped = [], []
    for name in dict.fromkeys((*BASELINES, *(plan.compressors or names("compressors")))):
        try:
            plugin = Recipe("compressors", name).plugin
            if plugin.needs & AT_ANSWER_TIME:
                raise BadOption("it needs the question, which is not known when a film is watched")
            if missing := plugin.needs - offered:
                lacks = ", ".join(sorted(missing))
                raise BadOption(f"it needs the cue {lacks}, which this model does not give")
            has_keep = "keep" in inspect.signature(plugin).parameters
            built = Recipe("compressors", name, {"keep": plan.keep} if has_keep else {}).build()
        # A plug-in of another package may lack what that package needs.
        except (StreamVLMError, ImportError) as error:
            skipped.append(f"{name} is left out: {error}")
        else:
            method = Method(name, plan.keep if has_keep else None)
            found.append(_Entrant(method, built, getattr(plugin, "chained", False)))
    return found, skipped


def measure_still(config: Config, plan: Plan | None = None, progress: Progress = silent) -> Watch:
    """Let every compressor watch films in which nothing happens, and ask about them.

    Args:
        config: names the model and how many tokens it may read; its other sections play no part.
        plan: what is watched; None for the usual.
        progress: is told how far drawing, watching and questions are.

    Returns:
        Everything that was measured.

    Raises:
        UnknownPlugin: there is no compressor of a name in the plan.
        ModelError: the weights cannot be loaded, or cannot read a record.
    """
    plan = plan or Plan()
    tried, skipped = entrants(plan, config.recipes["model"].plugin.cues)
    model = examinee(config, frozenset[str]().union(*(each.compress.needs for each in tried)))
    blind: list[Sitting] = []
    with tempfile.TemporaryDirectory(prefix="streamvlm-still-") as folder:
        for number in range(plan.films):
            what = f"film {number + 1}"
            film = plan_still(plan.seed * SEEDS_APART + number, plan.seconds)
            path = Path(folder) / f"{what}.mp4"
            progress(f"{what}, drawing", 0, 1)
            write_film(film, path, fps=1, size=SIZE)
            progress(f"{what}, drawing", 1, 1)
            shift = _Shift(plan, number, film, model, config.limits.max_tokens)
            for done, clip in enumerate(_clips(path, plan.frames), start=1):
                shift.watch(clip, [each for each in tried if not each.refused])
                progress(f"{what}, watching", done, plan.clips)
            blind.append(shift.blind())
            for done, each in enumerate(tried, start=1):
                if not each.refused:
                    each.sittings.append(shift.sitting(each))
                progress(f"{what}, questions", done, len(tried))
            path.unlink()
    skipped += [f"{each.method} is left out: {each.refused}" for each in tried if each.refused]
    trials = [Trial(each.method, tuple(each.sittings)) for each in tried if not each.refused]
    return Watch(
        conditions=here(plan.seed, fingerprint(config, model)),
        seconds=plan.seconds,
        clip=plan.frames,
        max_tokens=config.limits.max_tokens,
        trials=tuple(trials),
        blind=Trial(Method("blind", None), tuple(blind)),
        chained=frozenset(each.method.name for each in tried if each.chained),
        skipped=tuple(skipped),
    )


def _clips(path: Path, frames: int) -> Iterator[Clip]:
    """A film's clips with every frame, however alike they are."""
    source = open_source(str(path), Sampling(fps=1.0))
    return Fixed(seconds=float(frames), max_frames=frames)(source)


class _Shift:
    """One film watched by all, clip by clip; only what questions are asked about is held."""

    def __init__(
        self, plan: Plan, number: int, film: Film, model: VideoLLM, max_tokens: int
    ) -> None:
        self._film, self._model, self._max_tokens = film, model, max_tokens
        self._number = number
        self._dice = np.random.default_rng((plan.seed, number))
        borders = np.linspace(0, plan.clips, plan.records + 1).astype(int)
        self._asked = [int(self._dice.integers(*pair)) for pair in pairwise(borders.tolist())]
        self._at = -1
        self._dense = 0
        self._papers: dict[int, Paper] = {}
        self._last: dict[str, VisualTokens] = {}
        self._stored: dict[str, int] = {}
        self._spent: dict[str, float] = {}
        self._records: dict[tuple[str, int], Evidence] = {}
        self._answered: list[tuple[Paper, tuple[Evidence, ...], list[Mark]]] = []

    def watch(self, clip: Clip, entrants: Sequence[_Entrant]) -> None:
        """Encode a clip once, and let everyone compress it."""
        self._at += 1
        dense = self._model.encode(clip)
        self._dense += len(dense)
        if self._at in self._asked:
            self._papers[self._at] = self._paper(clip)
        for each in entrants:
            try:
                self._compress(each, clip, dense)
            except StreamVLMError as error:
                each.refused = str(error)

    def _compress(self, each: _Entrant, clip: Clip, dense: VisualTokens) -> None:
        needs, name = each.compress.needs, each.method.name
        tokens = replace(
            dense,
            cues={cue: value for cue, value in dense.cues.items() if cue in needs},
            frame_cues={cue: value for cue, value in dense.frame_cues.items() if cue in needs},
        )
        previous = self._last.get(name)
        began = time.perf_counter()
        kept = each.compress(tokens, previous)
        spent = 1000 * (time.perf_counter() - began)
        self._last[name] = kept
        self._stored[name] = self._stored.get(name, 0) + len(kept)
        self._spent[name] = self._spent.get(name, 0.0) + spent
        if self._at in self._asked or self._at + 1 in self._asked:
            self._records[name, self._at] = shown(kept, clip)

    def _paper(self, clip: Clip) -> Paper:
        moments = tuple(int(frame.seconds) for frame in clip.frames)
        asked = [
            question
            for question in ask_all([View(self._film, moments)], self._dice)
            if is_timeless(question)
        ]
        return Paper(self._number, self._film.split, clip, chosen(asked, self._dice))

    def sitting(self, each: _Entrant) -> Sitting:
        """The answers to what is asked about this film, from what one method stored of it."""
        name = each.method.name
        marks: list[Mark] = []
        for at, paper in self._papers.items():
            wanted = [at, at - 1] if each.chained else [at]
            records = [self._records[name, one] for one in wanted if (name, one) in self._records]
            marks += self._marks(paper, tuple(fit(records, self._max_tokens)))
        return Sitting(
            tuple(marks), self._film.seconds, self._stored[name], self._dense, self._spent[name]
        )

    def blind(self) -> Sitting:
        """The answers to the questions alone."""
        marks = [mark for paper in self._papers.values() for mark in self._marks(paper, ())]
        return Sitting(tuple(marks), self._film.seconds, 0, self._dense, 0.0)

    def _marks(self, paper: Paper, evidence: tuple[Evidence, ...]) -> list[Mark]:
        """Equal evidence is read once."""
        for known, read, marks in self._answered:
            if known is paper and _are_alike(read, evidence):
                return marks
        marks = sit_at_once(self._model, evidence, paper)
        self._answered.append((paper, evidence, marks))
        return marks


def _are_alike(some: Sequence[Evidence], others: Sequence[Evidence]) -> bool:
    return len(some) == len(others) and all(
        one.record.id == other.record.id and read_alike(one.record.tokens, other.record.tokens)
        for one, other in zip(some, others, strict=True)
    )
