"""Right answers on held-out clips, by kind, split and length, beside what guessing gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from streamvlm.bench.exam import Mark, Paper, examinee, fingerprint, papers, sit
from streamvlm.bench.report import Conditions, Progress, here, silent
from streamvlm.bench.speed import Figure, answering
from streamvlm.bench.world import Split
from streamvlm.config import Config
from streamvlm.types import Clip, VisualTokens

FRAMES = 8
"""Longest clip; the lengths 1 to this are equally common."""
FINE, USUAL, COARSE = 12, 23, 28
"""H.264 qualities (CRF): nearly lossless, what all tables use, and what the cost is taken of."""
SHARES: dict[Split, float] = {"seeds": 0.5, "backgrounds": 0.25, "pairs": 0.25}
"""How the clips are shared out among the splits."""
_COST_SHARE = 0.25
"""How many clips are asked about again at both other qualities."""
_TIMED = 6
"""How many of the longest clips the speed is measured on."""


@dataclass(frozen=True, slots=True)
class Exam:
    """All marks of one model, and what they were measured under."""

    conditions: Conditions
    seeing: tuple[Mark, ...]
    """All splits at the usual quality."""
    blind: tuple[Mark, ...]
    """The same questions without visual tokens, in the same order."""
    fine: tuple[Mark, ...]
    """Of the split "seeds", nearly lossless."""
    coarse: tuple[Mark, ...]
    """The same questions on the same clips at `COARSE`."""
    speed: tuple[Figure, ...]
    """How fast the model saw and spoke."""


def measure_qa(
    config: Config,
    *,
    seed: int = 1,
    clips: int = 160,
    compressed: bool = False,
    progress: Progress = silent,
) -> Exam:
    """Let the model of a configuration sit the exam.

    Args:
        config: any configuration; of it the model is used, and on demand the compressor.
        seed: of the films and questions.
        clips: how many clips are asked about, over all splits.
        compressed: whether the configuration's compressor drops tokens first, as in an ingest.
        progress: is told after each clip.
    """
    recipe = config.recipes["compressor"]
    model = examinee(config, recipe.plugin.needs if compressed else ())
    compress = recipe.build() if compressed else None

    def see(clip: Clip) -> VisualTokens:
        dense = model.encode(clip)
        return dense if compress is None else compress(dense)

    seeing: list[Mark] = []
    blind: list[Mark] = []
    longest: list[Clip] = []
    for split, share in SHARES.items():
        for paper in _told(seed, round(clips * share), split, USUAL, progress):
            seeing += sit(model, see(paper.clip), paper)
            blind += sit(model, None, paper)
            if len(paper.clip.frames) == FRAMES and len(longest) < _TIMED:
                longest.append(paper.clip)
    again = [
        [
            mark
            for paper in _told(seed, round(clips * _COST_SHARE), "seeds", crf, progress)
            for mark in sit(model, see(paper.clip), paper)
        ]
        for crf in (FINE, COARSE)
    ]
    return Exam(
        conditions=here(seed, fingerprint(config, model)),
        seeing=tuple(seeing),
        blind=tuple(blind),
        fine=tuple(again[0]),
        coarse=tuple(again[1]),
        speed=tuple(answering(model, longest)),
    )


def _told(seed: int, count: int, split: Split, crf: int, progress: Progress) -> Iterator[Paper]:
    """Papers; each is told of once it is done with."""
    for paper in papers(seed, count, split=split, frames=FRAMES, crf=crf):
        yield paper
        progress(f"{split}, CRF {crf}", paper.number + 1, count)
