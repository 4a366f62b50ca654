"""The measurements: how fast a model sees, and how fast it answers from stored tokens."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from streamvlm.bench.exam import shown
from streamvlm.bench.report import Table
from streamvlm.errors import ModelError
from streamvlm.plugins import Recipe
from streamvlm.types import Clip, Evidence, Frame, Query, VisualTokens

_QUESTIONS = (Query("What happens at the door?"), Query("When does the red car leave?"))
_GIB = 2**30


@dataclass(frozen=True)
class Plan:
    """What to measure."""

    frames: Sequence[int] = (32, 64, 128)
    """Frames of a clip."""
    keeps: Sequence[float] = (1.0, 0.25, 0.1)
    """Shares of the tokens that stay."""
    picture: tuple[int, int] = (360, 640)
    """Height and width of the frames."""
    compressor: str = "fastvid"
    """What drops the others."""
    rounds: int = 5
    """How often each; the median counts."""


@dataclass(frozen=True)
class Eye:
    """How fast a model sees."""

    model: str
    frames: int
    """Of the clip that was looked at."""
    tokens: int
    """That it became."""
    encode: float
    """Frames a second, resizing on the CPU included."""
    tower: float
    """Frames a second of tower and projector alone."""
    with_cues: float
    """Frames a second as `encode`, with the cues that the compressor needs."""
    peak: float | None
    """GiB of the device at most while encoding, weights included; None on a CPU."""


@dataclass(frozen=True)
class Cell:
    """How fast a model answers about one clip at one budget; None where it ran out of memory."""

    model: str
    frames: int
    keep: float
    tokens: int
    """Visual tokens kept."""
    compress: float | None = None
    """Milliseconds to compress the clip."""
    prefill: float | None = None
    """Milliseconds of one forward pass over the whole prompt."""
    first_word: float | None = None
    """Milliseconds from stored tokens to the first word: prompt, prefill, choice."""
    next_question: float | None = None
    """The same for another question about the same evidence, which is not read again."""
    from_pixels: float | None = None
    """Milliseconds from decoded frames to the first word: encode, compress, answer."""
    peak: float | None = None
    """GiB of the device at most while answering, weights included; None on a CPU."""


def look(name: str, model: Any, clip: Clip, plan: Plan) -> tuple[Eye, VisualTokens]:
    """Measure the eye, and give what it saw.

    Args:
        name: of the model.
        model: with the cues of the plan's compressor.
        clip: what to look at.
        plan: how often.
    """
    device, count = model.network.device, len(clip.frames)
    cues, model.with_cues = model.with_cues, ()
    alone = _tower(model, clip, plan.rounds)
    _forget_peak(device)
    plain = _milliseconds(lambda: model.encode(clip), device, plan.rounds)
    model.with_cues = cues
    cued = _milliseconds(lambda: model.encode(clip), device, plan.rounds)
    tokens = model.encode(clip)
    rate, tower_rate, cued_rate = (1000 * count / spent for spent in (plain, alone, cued))
    eye = Eye(name, count, len(tokens), rate, tower_rate, cued_rate, _peak(device))
    return eye, tokens


def _tower(model: Any, clip: Clip, rounds: int) -> float:
    """Milliseconds of tower and projector, with all pixels on the device beforehand."""
    device, images = model.network.device, [frame.image for frame in clip.frames]
    batches = [pixels.to(device) for pixels, _ in model.pixels(images)]

    def see() -> None:
        with torch.no_grad():
            for pixels in batches:
                model.see(pixels)

    return _milliseconds(see, device, rounds)


def answer(model: Any, clip: Clip, dense: VisualTokens, plan: Plan, eye: Eye) -> Iterator[Cell]:
    """Measure answers about one clip at every budget.

    Args:
        model: which says one word and no more.
        clip: where the tokens are from.
        dense: all of its tokens, with cues.
        plan: which budgets.
        eye: how fast the model sees.

    Yields:
        A cell for each budget.
    """
    device = model.network.device
    for keep in plan.keeps:
        squeeze = Recipe("compressors", plan.compressor, {"keep": keep}).build()
        spent = _milliseconds(partial(squeeze, dense), device, plan.rounds)
        tokens = squeeze(dense).without_cues()
        cell = Cell(eye.model, len(clip.frames), keep, len(tokens), compress=spent)
        seeing = 1000 * len(clip.frames) / (eye.encode if keep == 1 else eye.with_cues)
        try:
            _forget_peak(device)
            prefill, first, following = _ask(model, tokens, clip, plan.rounds)
            peak = _peak(device)
        except (ModelError, torch.OutOfMemoryError):
            yield cell
            continue
        finally:
            _let_go(model, tokens, clip)
        yield replace(
            cell,
            prefill=prefill,
            first_word=first,
            next_question=following,
            from_pixels=seeing + spent + first,
            peak=peak,
        )


def _ask(model: Any, tokens: VisualTokens, clip: Clip, rounds: int) -> tuple[float, float, float]:
    """Milliseconds of a prefill, of a first word, and of a first word to the next question."""
    device = model.network.device
    # What was read last is not read again, so two pieces of evidence take turns.
    pair = [shown(tokens, clip), shown(replace(tokens, features=-tokens.features), clip)]
    turns = iter(range(10**9))

    def fresh() -> None:
        list(model.answer(_QUESTIONS[0], [pair[next(turns) % 2]]))

    def again() -> None:
        list(model.answer(_QUESTIONS[next(turns) % 2], [pair[0]]))

    prefill = _prefill(model, pair[0], rounds)
    first = _milliseconds(fresh, device, rounds)
    return prefill, first, _milliseconds(again, device, rounds)


def _let_go(model: Any, tokens: VisualTokens, clip: Clip) -> None:
    """Have the model read a single token, since it holds what it read last until other comes."""
    one = tokens.select(torch.arange(1, device=tokens.features.device))
    list(model.answer(_QUESTIONS[0], [shown(one, clip)]))


def _prefill(model: Any, evidence: Evidence, rounds: int) -> float:
    """Milliseconds of the stock forward pass over a whole prompt, without making the prompt."""
    device, spent = model.network.device, []
    for _ in range(rounds + 1):
        # transformers writes into what it is given, so each pass has its own.
        inputs = model.prompt(_QUESTIONS[0], [evidence])
        _wait(device)
        began = time.perf_counter()
        with torch.no_grad():
            model.network(**inputs, use_cache=True, logits_to_keep=1)
        _wait(device)
        spent.append(1000 * (time.perf_counter() - began))
    return statistics.median(spent[1:])


def _milliseconds(work: Callable[[], Any], device: torch.device, rounds: int) -> float:
    """Median wall time; the first time only warms up."""
    spent = []
    for _ in range(rounds + 1):
        _wait(device)
        began = time.perf_counter()
        work()
        _wait(device)
        spent.append(1000 * (time.perf_counter() - began))
    return statistics.median(spent[1:])


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def _peak(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / _GIB if device.type == "cuda" else None


def film(frames: int, picture: tuple[int, int]) -> Clip:
    """A clip of noise, a frame a second.

    Args:
        frames: how many.
        picture: height and width in pixels.
    """
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (frames, *picture, 3), dtype=np.uint8)
    name = "/films/noise.mp4"
    shots = (Frame(name, at, float(at), image) for at, image in enumerate(images))
    return Clip(name, 0.0, float(frames), tuple(shots))


def eye_table(eyes: Sequence[Eye], note: str) -> Table:
    """How fast each model sees."""
    rows = tuple(
        (at.model, at.frames, at.tokens, at.encode, at.with_cues, at.tower, at.peak) for at in eyes
    )
    columns = (
        "model",
        "frames",
        "tokens",
        "encode, frames/s",
        "with cues, frames/s",
        "tower alone, frames/s",
        "peak, GiB",
    )
    return Table("The eye", columns, rows, note=note)


def answer_table(cells: Sequence[Cell], note: str) -> Table:
    """How fast each model answers."""
    rows = tuple(
        (
            at.model,
            at.frames,
            at.keep,
            at.tokens,
            at.compress,
            at.prefill,
            at.first_word,
            at.next_question,
            at.from_pixels,
            at.peak,
        )
        for at in cells
    )
    columns = (
        "model",
        "frames",
        "keep",
        "tokens",
        "compress, ms",
        "prefill, ms",
        "first word from stored tokens, ms",
        "next question, ms",
        "first word from pixels, ms",
        "peak, GiB",
    )
    return Table("The answer", columns, rows, note=note)
