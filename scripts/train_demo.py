"""Train the demo checkpoint again from its seed: `python -m scripts.train_demo --minutes 75`.

Steps follow from `--minutes`, not from the clock, so the same command does the same work anywhere.
"""

from __future__ import annotations

import argparse
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlavaOnevisionForConditionalGeneration, SiglipModel

from scripts.training.card import Training, card
from scripts.training.language import cache_tokens, train_language
from scripts.training.lessons import Difficulty
from scripts.training.measure import find, lessons_like, score
from scripts.training.pool import make_pool
from scripts.training.search import make_retriever, train_retriever
from scripts.training.ship import ship_answerer, ship_retriever
from scripts.training.tower import train_tower
from streamvlm.bench.world import HELD_OUT

logger = logging.getLogger(__name__)

_PLANNED_MINUTES = 75
_HELD_OUT_FILMS = 80
_DIFFICULTIES = {
    "1–4 frames": Difficulty(frames=4, drops=False),
    "1–12 frames": Difficulty(frames=12, drops=False),
    "1–12 frames, dropped": Difficulty(frames=12, drops=True),
}


@dataclass(frozen=True, slots=True)
class Schedule:
    """How much of everything."""

    films: int
    """Films in the pool."""
    tower: int
    """Steps of eye and projector."""
    language: int
    """Steps of the language model."""
    retriever: int
    """Steps of the retriever."""


def schedule(minutes: float) -> Schedule:
    """The work that two cores of the machine it was planned on do in that time."""
    share = minutes / _PLANNED_MINUTES
    # With fewer films the retriever could not fill one batch.
    least = Schedule(films=40, tower=10, language=10, retriever=10)
    return Schedule(
        films=max(least.films, round(1600 * share)),
        tower=max(least.tower, round(1050 * share)),
        language=max(least.language, round(1456 * share)),
        retriever=max(least.retriever, round(450 * share)),
    )


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=["cpu"], default="cpu")
    parser.add_argument("--minutes", type=float, default=_PLANNED_MINUTES)
    parser.add_argument("--out", type=Path, default=Path("streamvlm/demo"))
    wanted = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(schedule(wanted.minutes), wanted.out)


def train(plan: Schedule, out: Path) -> None:
    """Train everything, and ship it with its card; a first answerer is there early.

    Args:
        plan: how much to do.
        out: the folder to write to.
    """
    began = time.time()
    torch.manual_seed(0)
    pool = make_pool(range(plan.films))
    answerer = train_tower(pool, plan.tower)
    retriever = make_retriever(answerer)
    train_retriever(retriever, pool, plan.retriever)
    ship_retriever(retriever, out / "retriever")
    torch.manual_seed(0)
    train_language(answerer, pool, plan.language, lambda step: ship_answerer(answerer, out))
    minutes = (time.time() - began) / 60
    facts = Training(
        films=plan.films,
        frames=len(pool.images),
        tower_steps=plan.tower,
        language_steps=plan.language,
        retriever_steps=plan.retriever,
        conditions=f"{minutes:.0f} minutes on {os.cpu_count()} CPU cores, no GPU.",
    )
    measure(out, facts)


def measure(out: Path, facts: Training) -> None:
    """Measure what was shipped, as shipped, and write its card.

    Args:
        out: the folder with both checkpoints.
        facts: what the card says about the training.
    """
    answerer = LlavaOnevisionForConditionalGeneration.from_pretrained(out, dtype=torch.float32)
    retriever = SiglipModel.from_pretrained(out / "retriever", dtype=torch.float32)
    pool = make_pool(range(HELD_OUT, HELD_OUT + _HELD_OUT_FILMS))
    tokens = cache_tokens(answerer, pool)
    scores = {
        name: score(answerer, tokens, lessons_like(pool, how, 200, seed))
        for seed, (name, how) in enumerate(_DIFFICULTIES.items())
    }
    text = card(scores, find(retriever, pool), facts)
    (out / "README.md").write_text(text, encoding="utf-8")
    logger.info("%s", text)


if __name__ == "__main__":
    main()
