"""Is a three-second event found again in hours of film, and is a question about it answered?

Each film is real H.264 that the real flow ingests; then every planted event is asked for. The same
model answers the same question from what several ways of choosing give it to read, so that only
the choice differs. "Needle in a haystack" for video follows Zhao et al. 2024, "Needle In A Video
Haystack" (VideoNIAH, arXiv:2406.09367), with events of a world whose truth is known instead of
pictures pasted in.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from streamvlm.bench.haystack import (
    BLIND,
    FEW,
    MANY,
    UNIFORM,
    WINDOW,
    Find,
    Haystack,
    newest,
    uniform,
)
from streamvlm.bench.report import Conditions, Progress, here, silent
from streamvlm.bench.world import Film
from streamvlm.bench.world.drawing import write_film
from streamvlm.bench.world.needles import plan_needles
from streamvlm.config import Config
from streamvlm.engine import StreamVLM
from streamvlm.memory.store import Memory
from streamvlm.recall import Limits
from streamvlm.types import Evidence

FPS, SIZE = 1, 192
"""Of the films: three pictures for each event, twice as large as the demo model looks at them."""
_SEEDS_APART = 1_000


@dataclass(frozen=True, slots=True)
class Plan:
    """What is planted, and how deep."""

    seconds: int = 3600
    """Length of a film."""
    needles: int = 12
    """Events planted in each."""
    ages: tuple[int, ...] | None = None
    """How many seconds before the end each event begins; None to spread them over the film."""
    films: int = 4
    """How many films."""
    seed: int = 1
    """Of all films; they are held out from training."""


@dataclass(frozen=True, slots=True)
class Hunt:
    """All that was measured."""

    conditions: Conditions
    plan: Plan
    limits: Limits
    """What an answer may read."""
    window: float
    """Seconds that the window-only memory keeps, mean over films."""
    finds: tuple[Find, ...]


def measure_needle(
    config: Config, plan: Plan | None = None, *, progress: Progress = silent
) -> Hunt:
    """Plant events in films, ingest them, and ask for each event in every way.

    Args:
        config: its model, embedder, filters, compressor and answer budget are what is measured.
        plan: what is planted; None for four films of an hour.
        progress: is told how far drawing, ingest and questions are.

    Raises:
        ConfigError: so many events do not fit into such films.
        StreamVLMError: a film could not be ingested.
    """
    plan = plan or Plan()
    planned = [
        plan_needles(plan.seed * _SEEDS_APART + number, plan.seconds, plan.needles, ages=plan.ages)
        for number in range(plan.films)
    ]
    finds: list[Find] = []
    windows: list[float] = []
    with tempfile.TemporaryDirectory(prefix="streamvlm-needle-") as folder, config.build() as vlm:
        for number, (film, needles) in enumerate(planned):
            path = Path(folder) / f"film {number + 1}.mp4"
            stream = _ingested(film, path, vlm, progress)
            with Memory.open(vlm.folder, writable=False) as memory:
                last = tuple(newest(memory, stream, config.limits.max_tokens))
                windows.append(film.seconds - last[-1].start)
                evidence = {
                    FEW: uniform(vlm, path, config, UNIFORM[0]),
                    MANY: uniform(vlm, path, config, UNIFORM[1]),
                    WINDOW: tuple(Evidence(record, 1.0) for record in last),
                    BLIND: (),
                }
                haystack = Haystack(film, number, stream, vlm, memory, evidence)
                for done, needle in enumerate(needles, start=1):
                    finds.append(haystack.look_for(needle))
                    progress(f"{path.stem}, questions", done, len(needles))
            path.unlink()
        eye, key = vlm.stages.model.model, vlm.stages.embedder.model
    return Hunt(
        conditions=here(plan.seed, f"{eye}, embedder {key}"),
        plan=plan,
        limits=config.limits,
        window=float(np.mean(windows)),
        finds=tuple(finds),
    )


def _ingested(film: Film, path: Path, vlm: StreamVLM, progress: Progress) -> str:
    """Write a film and ingest it; returns its stream."""
    what = path.stem
    progress(f"{what}, drawing", 0, 1)
    write_film(film, path, fps=FPS, size=SIZE)
    progress(f"{what}, drawing", 1, 1)
    (found,) = vlm.ingest(
        path, lambda _, seconds: progress(f"{what}, ingest", int(seconds), film.seconds)
    )
    # What nothing new was seen in at the end makes no record.
    progress(f"{what}, ingest", film.seconds, film.seconds)
    return found.stream
