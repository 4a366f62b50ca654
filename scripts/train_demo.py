"""Train the demo checkpoint again from its seed: `python -m scripts.train_demo --minutes 100`.

Steps follow from `--minutes`, not from the clock, so the same command does the same work anywhere.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import pickle
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import torch
from transformers import LlavaOnevisionForConditionalGeneration

from scripts.measure_demo import measure
from scripts.training.card import Training
from scripts.training.language import cache_tokens, train_language
from scripts.training.pool import make_pool
from scripts.training.search import make_retriever, train_retriever
from scripts.training.ship import ship_answerer, ship_retriever
from scripts.training.tower import train_tower

logger = logging.getLogger(__name__)

_Made = TypeVar("_Made")
_PLANNED_MINUTES = 100


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
        films=max(least.films, round(2000 * share)),
        tower=max(least.tower, round(2200 * share)),
        language=max(least.language, round(3000 * share)),
        retriever=max(least.retriever, round(900 * share)),
    )


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, …")
    parser.add_argument("--minutes", type=float, default=_PLANNED_MINUTES)
    parser.add_argument("--out", type=Path, default=Path("streamvlm/demo"))
    parser.add_argument("--work", type=Path, default=Path("train-demo-work"))
    wanted = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    train(schedule(wanted.minutes), wanted.out, wanted.work, wanted.device)
    measure(wanted.out, lambda what, done, total: logger.info("%s %d/%d", what, done, total))


def train(plan: Schedule, out: Path, work: Path, device: str) -> None:
    """Train everything, and ship it with how it was made.

    Args:
        plan: how much to do.
        out: the folder to write to.
        work: where the pool, the trained eye and what it sees are kept, so that a run that was
            interrupted goes on from there.
        device: where to train.
    """
    began = time.time()
    work.mkdir(parents=True, exist_ok=True)
    eye = work / f"eye-{plan.films}-{plan.tower}"
    pool = _kept(work / f"pool-{plan.films}.pickle", lambda: make_pool(range(plan.films)))
    torch.manual_seed(0)
    if not eye.exists():
        train_tower(pool, plan.tower, device).save_pretrained(eye)
    answerer = LlavaOnevisionForConditionalGeneration.from_pretrained(eye).to(device)
    tokens = _kept(eye / "tokens.pickle", lambda: cache_tokens(answerer, pool))
    torch.manual_seed(0)
    train_language(
        answerer, tokens, pool, plan.language, lambda step: ship_answerer(answerer, work / "last")
    )
    ship_answerer(answerer, out)
    torch.manual_seed(0)
    retriever = make_retriever(answerer).to(device)
    train_retriever(retriever, pool, plan.retriever)
    ship_retriever(retriever, out / "retriever")
    minutes = (time.time() - began) / 60
    facts = Training(
        films=plan.films,
        frames=len(pool.images),
        tower_steps=plan.tower,
        language_steps=plan.language,
        retriever_steps=plan.retriever,
        conditions=f"{minutes:.0f} minutes on {device}, {os.cpu_count()} CPU cores.",
    )
    (out / "training.json").write_text(json.dumps(asdict(facts), indent=1) + "\n")


def _kept(path: Path, make: Callable[[], _Made]) -> _Made:
    """What is in a file, or else is made now and put there."""
    if not path.exists():
        path.write_bytes(pickle.dumps(make()))
    made: _Made = pickle.loads(path.read_bytes())
    return made


if __name__ == "__main__":
    main()
