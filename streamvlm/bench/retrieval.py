"""Which keys find the moment? Ways of indexing the many keys of a video, on the same keys.

On made-up keys (`planted.py`), of which it is known what is right, and on the retriever's own keys
of films with needles (`retrieval_films.py`): one for each frame, and one for each part of a frame.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from streamvlm.bench.planted import EASY, HARD, Question, Setting, plant
from streamvlm.bench.rankers import Ranker, Segments
from streamvlm.bench.rankers.crisp import Crisp
from streamvlm.bench.rankers.maxsim import MaxSim
from streamvlm.bench.rankers.mean import Mean
from streamvlm.bench.rankers.muvera import Muvera
from streamvlm.bench.rankers.novelty import NovelTokens
from streamvlm.bench.rankers.tokens import Tokens
from streamvlm.bench.rankers.xtr import Xtr
from streamvlm.bench.report import Conditions, Progress, here, silent
from streamvlm.bench.retrieval_films import Watched, in_words, watch, whole
from streamvlm.bench.token_keys import TokenKeys
from streamvlm.bench.world.needles import Needle, plan_needles
from streamvlm.config import Config
from streamvlm.engine import StreamVLM
from streamvlm.errors import BadOption

EXACT, MEAN, XTR, NOVEL = "exact MaxSim", "mean", "all tokens, XTR", "novel tokens, XTR"
CONTENDERS: Mapping[str, Ranker] = {
    EXACT: MaxSim(),
    MEAN: Mean(),
    "mean less camera": Mean(less_camera=True),
    "all tokens, MaxSim": Tokens(),
    XTR: Xtr(),
    "MUVERA, 100": Muvera(),
    "MUVERA, 400": Muvera(candidates=400),
    "k-means 4": Crisp(4),
    "k-means 8": Crisp(8),
    NOVEL: NovelTokens(),
    "novel, then all near": NovelTokens(intervals=16),
}
"""What is compared, by the name that the tables use."""
PLANTED = ("planted, hard", "planted, easy")
FRAMES, FRAMES_WORDS = "needles, frame keys", "needles, frame keys, in words"
TOKENS, TOKENS_WORDS = "needles, token keys", "needles, token keys, in words"
CASES = (*PLANTED, FRAMES, FRAMES_WORDS, TOKENS, TOKENS_WORDS)
"""Which keys, and how they are asked."""
_SEEDS_APART = 1_000


@dataclass(frozen=True)
class Plan:
    """How much is ranked."""

    planted: Setting = HARD
    """Sizes of the made-up keys; how well words match is set by `HARD` and `EASY`."""
    films: int = 3
    """How many films; 0 for made-up keys only."""
    seconds: int = 3600
    """Length of each."""
    needles: int = 30
    """Events planted in each."""
    seed: int = 1
    """Of everything."""


@dataclass(frozen=True, eq=False)
class Haystack:
    """Segments, and what is asked about them."""

    segments: Segments
    asked: Mapping[str, Sequence[Question]]
    """By case."""


@dataclass(frozen=True)
class Score:
    """How one ranker did in one case."""

    case: str
    """One of `CASES`."""
    ranker: str
    """One of the contenders."""
    places: tuple[int | None, ...]
    """For each question the place of the first right segment, from 0; None if it was not found."""
    milliseconds: float
    """CPU time of a question, the median."""
    segments: int
    """Searched at once, the mean over haystacks."""
    bytes_each: float
    """Of the index, for each segment."""
    bytes_all: float
    """Of all keys of a segment as float16."""

    def found(self, among: int) -> list[bool]:
        """For each question whether a right segment is among the first so many."""
        return [place is not None and place < among for place in self.places]


@dataclass(frozen=True)
class Retrieval:
    """All that was measured."""

    conditions: Conditions
    plan: Plan
    scores: tuple[Score, ...]
    """By case, then by ranker."""
    left_out: str = ""
    """Why there are no token keys, in a sentence."""

    def score(self, case: str, ranker: str) -> Score | None:
        """One of the scores, if it was measured."""
        fitting = (s for s in self.scores if (s.case, s.ranker) == (case, ranker))
        return next(fitting, None)


def measure_retrieval(
    config: Config,
    plan: Plan | None = None,
    *,
    contenders: Mapping[str, Ranker] = CONTENDERS,
    progress: Progress = silent,
) -> Retrieval:
    """Let every ranker answer the same questions on the same keys.

    Args:
        config: its source, filter, clips and embedder make the keys of the films.
        plan: how much; None for what section "Measure it yourself" shows.
        contenders: the rankers by name.
        progress: is told how far drawing, watching and ranking are.

    Raises:
        ConfigError: so many questions or events do not fit.
    """
    plan = plan or Plan()
    seeds = [plan.seed * _SEEDS_APART + number for number in range(plan.films)]
    planned = [plan_needles(seed, plan.seconds, plan.needles) for seed in seeds]
    scores: list[Score] = []
    for case, setting in zip(PLANTED, (HARD, EASY), strict=True):
        sized = replace(plan.planted, name=setting.name, match=setting.match)
        segments, questions = plant(sized, plan.seed)
        haystack = Haystack(segments, {case: questions})
        scores += _compete([haystack], contenders, case, progress)
    with config.build() as vlm, tempfile.TemporaryDirectory(prefix="streamvlm-needle-") as folder:
        model = vlm.stages.embedder.model if planned else "none"
        eye, left_out = _eye(vlm) if planned else (None, "")
        seen = [
            watch(film, Path(folder) / f"film {number}.mp4", vlm, eye, progress)
            for number, (film, _) in enumerate(planned, start=1)
        ]
        asked = list(zip(seen, [needles for _, needles in planned], strict=True))
        for what, haystacks in _real(asked, vlm):
            scores += _compete(haystacks, contenders, what, progress)
    return Retrieval(here(plan.seed, f"embedder {model}"), plan, tuple(scores), left_out)


def _eye(vlm: StreamVLM) -> tuple[TokenKeys | None, str]:
    """For token keys, or why there are none."""
    try:
        return TokenKeys(vlm.stages.embedder), ""
    except BadOption as reason:
        return None, str(reason)


def _real(
    asked: Sequence[tuple[Watched, tuple[Needle, ...]]], vlm: StreamVLM
) -> Iterator[tuple[str, list[Haystack]]]:
    """The films as haystacks, by the kind of their keys."""
    embedder = vlm.stages.embedder
    ways = [
        [[way(needle, seen, embedder) for needle in needles] for way in (whole, in_words)]
        for seen, needles in asked
    ]
    if asked:
        yield (
            FRAMES,
            [
                Haystack(seen.frames, dict(zip((FRAMES, FRAMES_WORDS), way, strict=True)))
                for (seen, _), way in zip(asked, ways, strict=True)
            ],
        )
    parts = [(seen.tokens, way) for (seen, _), way in zip(asked, ways, strict=True) if seen.tokens]
    if parts:
        yield (
            TOKENS,
            [
                Haystack(tokens, dict(zip((TOKENS, TOKENS_WORDS), way, strict=True)))
                for tokens, way in parts
            ],
        )


def _compete(
    haystacks: Sequence[Haystack], contenders: Mapping[str, Ranker], what: str, told: Progress
) -> list[Score]:
    """Every ranker on all haystacks of one kind; by case, then by ranker."""
    scores = []
    told(f"{what}, ranking", 0, len(contenders))
    for done, (name, ranker) in enumerate(contenders.items(), start=1):
        scores += _scores(haystacks, name, ranker)
        told(f"{what}, ranking", done, len(contenders))
    return [score for case in haystacks[0].asked for score in scores if score.case == case]


def _scores(haystacks: Sequence[Haystack], name: str, ranker: Ranker) -> list[Score]:
    places: dict[str, list[int | None]] = {case: [] for case in haystacks[0].asked}
    spent: dict[str, list[float]] = {case: [] for case in places}
    size, segments, numbers = 0, 0, 0
    for haystack in haystacks:
        index = ranker(haystack.segments)
        size += index.size
        segments += len(haystack.segments)
        numbers += haystack.segments.keys.size
        for case, questions in haystack.asked.items():
            # The first question warms caches and does not count.
            index.rank(questions[0].keys)
            for question in questions:
                began = time.process_time()
                ranked = index.rank(question.keys)
                spent[case].append(1000 * (time.process_time() - began))
                hits = (p for p, segment in enumerate(ranked.tolist()) if segment in question.right)
                places[case].append(next(hits, None))
    return [
        Score(
            case=case,
            ranker=name,
            places=tuple(places[case]),
            milliseconds=statistics.median(spent[case]),
            segments=round(segments / len(haystacks)),
            bytes_each=size / segments,
            bytes_all=2 * numbers / segments,
        )
        for case in places
    ]
