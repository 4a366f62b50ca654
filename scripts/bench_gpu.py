"""Measure models of true size with random weights on one GPU: `python -m scripts.bench_gpu`.

Time to the first word, prefill, encoding and memory of 7B-class models, at several lengths of a
clip and shares of its tokens, beside published figures. Through our own adapters; no checkpoint is
needed, because speed does not depend on what the weights are. Without a GPU it says so and stops.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from scripts.gpu.measuring import Cell, Eye, Plan, answer, answer_table, eye_table, film, look
from scripts.gpu.published import Found, beside
from scripts.gpu.random_weights import make_model
from scripts.gpu.sizes import SIZES, Size, tiny
from streamvlm import plugins
from streamvlm.bench.report import Conditions, Progress, Table, here
from streamvlm.cli import bench_show, show
from streamvlm.errors import ModelError, StreamVLMError

NO_GPU = (
    "skipped: torch {} sees no CUDA device; run scripts/bench_gpu on a machine with a GPU and "
    "torch's CUDA build, or rehearse it with --device cpu --size tiny"
)
_BATCH = 16
"""Frames a forward pass of the eye."""


def main(words: Sequence[str] | None = None) -> None:
    """Read the command line, measure, print, and write what was asked for."""
    wanted = _parse(words)
    if wanted.device.startswith("cuda") and not torch.cuda.is_available():
        print(NO_GPU.format(torch.__version__))
        return
    try:
        bench_show.check_out(wanted.out, ("gpu",))
    except StreamVLMError as error:
        show.failure(str(error))
        raise SystemExit(2) from None
    sizes = [size for size in SIZES if size.plugin in wanted.models]
    if wanted.size == "tiny":
        sizes = [tiny(size) for size in sizes]
    plan = Plan(
        frames=wanted.frames,
        keeps=sorted({1.0, *wanted.keep}, reverse=True),
        compressor=wanted.compressor,
        rounds=wanted.rounds,
    )
    with show.steps() as progress:
        found = measure(sizes, plan, wanted.device, wanted.dtype, progress)
    conditions = here(0, "random weights: " + "; ".join(f"{at.name} ({at.source})" for at in sizes))
    shown = tables(found, plan, wanted.dtype, rehearsal=wanted.size == "tiny")
    report(conditions, shown, wanted)


def measure(
    sizes: Sequence[Size], plan: Plan, device: str, dtype: str, progress: Progress
) -> Found:
    """Measure every model, one after the other; each is let go before the next is made.

    Args:
        sizes: the models.
        plan: what to measure.
        device: where.
        dtype: in which precision.
        progress: is told how far it is.
    """
    eyes: list[Eye] = []
    cells: list[Cell] = []
    cues = tuple(sorted(plugins.find("compressors", plan.compressor).needs))
    options = {"device": device, "dtype": dtype, "max_new_tokens": 1, "with_cues": cues}
    for size in sizes:
        try:
            for eye, answers in _each(size, plan, {**options, "batch": _BATCH}, progress):
                eyes.append(eye)
                cells += answers
        except (ModelError, torch.OutOfMemoryError) as error:
            show.note(f"{size.name} was not measured to its end: {error}")
        progress(size.name, len(plan.frames), len(plan.frames))
    return Found(eyes, cells)


def _each(
    size: Size, plan: Plan, options: Mapping[str, Any], progress: Progress
) -> Iterator[tuple[Eye, list[Cell]]]:
    """What was measured of one model, clip by clip."""
    with tempfile.TemporaryDirectory(prefix="streamvlm-gpu-") as folder:
        model = make_model(size, Path(folder), options)
    for number, frames in enumerate(plan.frames):
        progress(size.name, number, len(plan.frames))
        clip = film(frames, plan.picture)
        eye, dense = look(size.name, model, clip, plan)
        yield eye, list(answer(model, clip, dense, plan, eye))
        # Else these tokens would count in the next clip's peak.
        del dense


def tables(found: Found, plan: Plan, dtype: str, *, rehearsal: bool) -> list[Table]:
    """All figures as tables, each with how it was measured.

    Args:
        found: what was measured.
        plan: how.
        dtype: in which precision.
        rehearsal: whether the models were tiny; then nothing is put beside published figures.
    """
    height, width = plan.picture
    note = (
        f"Frames of {width}×{height}, one a second; {dtype}, sdpa kernel; {_BATCH} frames a pass; "
        f"compressor {plan.compressor}; median of {plan.rounds} after one to warm up."
    )
    if rehearsal:
        note = f"A rehearsal with tiny models: it shows that all of it runs, no speed. {note}"
    measured = [eye_table(found.eyes, note), answer_table(found.cells, note)]
    return measured if rehearsal else [*measured, beside(found)]


def report(conditions: Conditions, shown: Sequence[Table], wanted: Any) -> None:
    """Print the tables, and write them where that was asked for."""
    bench_show.measured(conditions, shown, as_json=wanted.json)
    if wanted.out is not None:
        bench_show.written("gpu", conditions, shown, wanted.out)


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench_gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, …; cpu to rehearse")
    parser.add_argument(
        "--size", choices=("true", "tiny"), default="true", help="tiny models are a rehearsal"
    )
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        default="bfloat16",
        help="precision of weights and arithmetic (bfloat16)",
    )
    known = [size.plugin for size in SIZES]
    parser.add_argument(
        "--models", nargs="+", choices=known, default=known, help="which families (all)"
    )
    parser.add_argument(
        "--frames",
        nargs="+",
        type=_count,
        default=list(Plan.frames),
        help="frames of each film, one a second",
    )
    parser.add_argument(
        "--keep", nargs="+", type=_share, default=list(Plan.keeps), help="shares of tokens, 0 to 1"
    )
    parser.add_argument(
        "--compressor",
        choices=plugins.names("compressors"),
        default=Plan.compressor,
        help=f"what drops tokens ({Plan.compressor})",
    )
    parser.add_argument(
        "--rounds", type=_count, default=Plan.rounds, help=f"of each measure ({Plan.rounds})"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--out", type=Path, help="a folder for gpu.md and gpu.json")
    return parser.parse_args(words)


def _count(word: str) -> int:
    """A whole number, at least 1."""
    if not word.isdecimal() or int(word) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, found {word}")
    return int(word)


def _share(word: str) -> float:
    """A part of a whole: above 0, at most 1."""
    try:
        share = float(word)
    except ValueError:
        share = 0.0
    if not 0 < share <= 1:
        raise argparse.ArgumentTypeError(f"must be above 0 and at most 1, found {word}")
    return share


if __name__ == "__main__":
    main()
