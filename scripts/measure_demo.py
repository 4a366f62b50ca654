"""Measure a demo checkpoint and write its card: `python -m scripts.measure_demo`.

All figures are of held-out films after real H.264. Needles go all the way of a user's question,
from ingest to answer; the other questions are about clips that are decoded, encoded and read.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from transformers import LlavaOnevisionForConditionalGeneration

from scripts.training.card import Training, card
from scripts.training.pool import make_pool
from scripts.training.tower import word_accuracy
from streamvlm.bench import compress, compress_report, needle, needle_tables, qa, qa_tables
from streamvlm.bench.plot import check_plotting
from streamvlm.bench.ranking import BASELINES
from streamvlm.bench.report import Gate, Progress, gate_table
from streamvlm.config import Config, load

SEED, CLIPS = 20270, 240
"""What the card's figures are made from: films that nobody looked at before. The command line
starts at seed 1, which development looks at; after a change of the recipe, take another one here.
"""
_MANY = 400
"""How many other clips tell the best compressors at the gate's budget from chance."""
_SHOWN = range(SEED * 1000, SEED * 1000 + 60)
"""Seeds of the films whose tokens are looked at one by one."""


def main() -> None:
    """Read the command line, measure, print and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("streamvlm/demo"))
    wanted = parser.parse_args()
    with Console(stderr=True).status("measuring") as status:
        text = measure(
            wanted.folder, lambda what, done, total: status.update(f"{what} {done}/{total}")
        )
    print(text)


def measure(folder: Path, progress: Progress) -> str:
    """Measure what was shipped, as shipped, and write its card and plot beside it.

    Args:
        folder: the answerer's, with `retriever/` and `training.json`.
        progress: is told how far it is.

    Returns:
        The card.
    """
    check_plotting()
    config = configuration(folder)
    exam = qa.measure_qa(config, seed=SEED, clips=CLIPS, progress=progress)
    hunt = needle.measure_needle(
        config, needle.Plan(films=2, needles=20, seed=SEED), progress=progress
    )
    compression = compress.measure_compress(config, compress.Plan(clips=72, seed=SEED), progress)
    closer = compress.measure_compress(config, closer_plan(compression), progress)
    return write_card(folder, exam, hunt, (compression, closer))


def closer_plan(compression: compress_report.Compression) -> compress.Plan:
    """More clips for the best two at the budget of the gate.

    They are other clips than those that showed which are the best, so that the choice flatters
    nobody.

    Args:
        compression: all compressors at all budgets, on fewer clips.
    """
    ranked = compression.ranking.at(compress_report.GATE_KEEP)
    ingested = [trial.method for trial in ranked if not trial.sees_question]
    best = [method.name for method in ingested if method.name not in BASELINES][:2]
    keeps = (compress_report.GATE_KEEP,)
    return compress.Plan(clips=_MANY, seed=SEED + 1, keeps=keeps, compressors=tuple(best))


def write_card(
    folder: Path,
    exam: qa.Exam,
    hunt: needle.Hunt,
    compressions: tuple[compress_report.Compression, compress_report.Compression],
) -> str:
    """Write `README.md` and `compress.svg` into a checkpoint's folder.

    Args:
        folder: the answerer's, with `training.json`.
        exam: its answers on held-out clips.
        hunt: its answers on long films.
        compressions: its answers from fewer tokens: of all compressors at all budgets, and of the
            best at the budget of the gate on more clips; the gate is taken from those.

    Returns:
        The card.
    """
    training = Training(**json.loads((folder / "training.json").read_text()))
    every, closer = compressions
    gates = [
        Gate("shape named right, per token of which a thing covers a fifth", _shape(folder), 0.97),
        *qa_tables.gates(exam),
        *needle_tables.gates(hunt),
        *closer.gates(),
    ]
    measured = [*qa_tables.tables(exam), *needle_tables.tables(hunt), *every.tables()]
    all_gates = gate_table(gates)
    rest = [table for table in measured if table.title != all_gates.title]
    at_gate = f"on more clips (seed {closer.conditions.seed})"
    chosen = "Only the best two, on other clips than those that showed which they are."
    more = [
        replace(table, title=f"{table.title}, {at_gate}", note=f"{chosen} {table.note}")
        for table in closer.tables()
        if table.title != all_gates.title
    ]
    text = card([all_gates, *rest, *more], exam.conditions, training)
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "compress.svg").write_bytes(every.picture().svg)
    return text


def configuration(folder: Path) -> Config:
    """`default.yaml` with the weights of a folder.

    Args:
        folder: the answerer's, with `retriever/`.
    """
    weights = folder.resolve()
    return load(
        "default", [f"model.weights={weights}", f"embedder.weights={weights / 'retriever'}"]
    )


def _shape(folder: Path) -> float:
    """How often a visual token that shows a thing is nearest to the word of its shape."""
    model = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return word_accuracy(model, make_pool(_SHOWN, "seeds")).shape


if __name__ == "__main__":
    main()
