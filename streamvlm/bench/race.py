"""`streamvlm bench race`: the CPU time and memory of each compressor, beside published code's.

All take the same video-like features in the same run. CPU time is counted, not wall time: other
programs on the machine disturb it less.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from streamvlm.bench.features import CUES, FRAME_CUES, video_like
from streamvlm.bench.race_report import Duel, Lap, Race
from streamvlm.bench.report import Progress, here, silent
from streamvlm.errors import BadOption, StreamVLMError
from streamvlm.plugins import Recipe, find, names
from streamvlm.protocols import Compressor
from streamvlm.types import VisualTokens

PUBLISHED = "streamvlm.bench.published"
"""The package with published methods as their authors compute them."""
SLOW = {"divprune": 64}
"""Published forms that take minutes for a long clip: the frames that they are compared at."""
_ENOUGH = 15.0
"""CPU seconds after which no other round of one method is begun."""
Reference = Callable[[VisualTokens, float], torch.Tensor]
"""A published form: (tokens, keep) → (M, D) features."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is raced, and over which distance.

    Raises:
        BadOption: when made, if something is out of range.
    """

    frames: int = 128
    """T of the clip."""
    keep: float = 0.1
    """The share of the tokens that all are asked to keep, 0–1."""
    compressors: tuple[str, ...] = ()
    """Plug-ins; empty for all that are installed."""
    rounds: int = 3
    """How often each is timed, after a first time that does not count."""
    full: bool = False
    """Whether even slow published forms run over the whole distance."""
    side: int = 14
    """Rows and columns of a frame."""
    width: int = 1024
    """D."""
    seed: int = 0
    """Of the features."""

    def __post_init__(self) -> None:
        if self.frames < 2 or self.rounds < 1:
            raise BadOption("a race needs at least 2 frames and 1 round")
        if not 0 < self.keep <= 1:
            raise BadOption(f"keep must be more than 0 and at most 1, found {self.keep:g}")


def measure_race(plan: Plan | None = None, progress: Progress = silent) -> Race:
    """Time every compressor, and every published form beside it.

    Args:
        plan: what is raced; None for the usual.
        progress: is told of every compressor.

    Returns:
        Everything that was measured.

    Raises:
        UnknownPlugin: there is no compressor of a name in the plan.
    """
    plan = plan or Plan()
    for name in plan.compressors:
        find("compressors", name)
    chosen = plan.compressors or names("compressors")
    known = references()
    laps: list[Lap] = []
    duels: list[Duel] = []
    skipped: list[str] = []
    tracks = _Tracks(plan)
    for done, name in enumerate(chosen):
        progress("race", done, len(chosen))
        try:
            lap, duel = _raced(name, known.get(name), tracks)
        # A plug-in of another package may lack what that package needs.
        except (StreamVLMError, ImportError) as error:
            skipped.append(f"{name} is left out: {error}")
            continue
        laps.append(lap)
        if isinstance(duel, str):
            skipped.append(duel)
        elif duel is not None:
            duels.append(duel)
    progress("race", len(chosen), len(chosen))
    size = f"T={plan.frames}, N={plan.side**2}, D={plan.width}, float32, keep {plan.keep:g}"
    return Race(
        conditions=here(plan.seed, f"none: made-up features, {size}"),
        size=size,
        chosen=plan.compressors,
        laps=tuple(laps),
        duels=tuple(duels),
        skipped=tuple(skipped),
    )


def references() -> dict[str, Reference]:
    """The published forms that are there: method → (tokens, keep) → (M, D) features."""
    try:
        folder = importlib.import_module(PUBLISHED).__path__
    except ModuleNotFoundError:
        return {}
    found = [module.name for module in pkgutil.iter_modules(folder) if module.name[0] != "_"]
    return {name: importlib.import_module(f"{PUBLISHED}.{name}").compress for name in found}


@dataclass(frozen=True)
class _Tracks:
    """Clips of the lengths that were asked for, each made once."""

    plan: Plan
    made: dict[int, VisualTokens] = field(default_factory=dict)

    def of(self, frames: int, needs: frozenset[str]) -> VisualTokens:
        """A clip with no other cues than those that are needed: carrying the rest costs time."""
        if frames not in self.made:
            plan = self.plan
            self.made[frames] = video_like(frames, plan.side, plan.width, plan.seed)
        clip = self.made[frames]
        return replace(
            clip,
            cues={name: cue for name, cue in clip.cues.items() if name in needs},
            frame_cues={name: cue for name, cue in clip.frame_cues.items() if name in needs},
        )


def _raced(
    name: str, reference: Reference | None, tracks: _Tracks
) -> tuple[Lap, Duel | str | None]:
    """One method over the whole distance, and beside its published form; or why not beside it.

    Raises:
        StreamVLMError: the method cannot run here.
    """
    plan = tracks.plan
    plugin = find("compressors", name)
    needs: frozenset[str] = plugin.needs
    if missing := needs - CUES - FRAME_CUES:
        raise BadOption(f"it needs the cue {', '.join(sorted(missing))}, which is not made up here")
    has_keep = "keep" in inspect.signature(plugin).parameters
    compress = Recipe("compressors", name, {"keep": plan.keep} if has_keep else {}).build()
    clip = tracks.of(plan.frames, needs)
    peak, growth = _memory(compress, tracks.of(max(1, plan.frames // 4), needs), clip)
    # It also warms up, so that no round is the first.
    kept = len(compress(clip))
    frames = plan.frames if plan.full else min(plan.frames, SLOW.get(name, plan.frames))
    duel: Duel | str | None = None
    if reference is not None:
        try:
            duel = _duel(name, compress, reference, tracks.of(frames, needs), plan)
        # Published code breaks on clips that its authors did not think of.
        except (StreamVLMError, RuntimeError, IndexError, ValueError) as error:
            duel = f"the published {name} cannot run here: {error}"
    if isinstance(duel, Duel) and frames == plan.frames:
        seconds = duel.seconds
    else:
        (seconds,) = _timed([lambda: compress(clip)], plan.rounds)
    lap = Lap(
        name=name,
        frames=plan.frames,
        dense=len(clip),
        kept=kept,
        seconds=seconds,
        peak=peak,
        growth=growth,
        sees_question="question" in needs,
    )
    return lap, duel


def _duel(
    name: str, compress: Compressor, reference: Reference, clip: VisualTokens, plan: Plan
) -> Duel:
    """Ours and the published form in turns, so that what disturbs one disturbs the other too."""
    # The first time of each does not count.
    kept, their_kept = len(compress(clip)), len(reference(clip, plan.keep))
    ours, theirs = _timed([lambda: compress(clip), lambda: reference(clip, plan.keep)], plan.rounds)
    return Duel(name, clip.grid[0], kept, ours, their_kept, theirs)


def _timed(runners: Sequence[Callable[[], object]], rounds: int) -> list[tuple[float, ...]]:
    """CPU seconds of each runner in each round; they take turns."""
    spent: list[list[float]] = [[] for _ in runners]
    for _ in range(rounds):
        for run, seconds in zip(runners, spent, strict=True):
            before = time.process_time()
            run()
            seconds.append(time.process_time() - before)
        if max(sum(seconds) for seconds in spent) > _ENOUGH:
            break
    return [tuple(seconds) for seconds in spent]


def _memory(
    compress: Compressor, quarter: VisualTokens, clip: VisualTokens
) -> tuple[int | None, float | None]:
    """The peak for a clip, and how many times that of 4× fewer frames; None if it takes long."""
    before = time.process_time()
    least = peak_bytes(compress, quarter)
    if time.process_time() - before > _ENOUGH / 4:
        # A long loop: the profiler would remember gigabytes of single steps.
        return None, None
    peak = peak_bytes(compress, clip)
    return peak, peak / max(least, 1) * 4 * quarter.grid[0] / clip.grid[0]


def peak_bytes(compress: Compressor, tokens: VisualTokens) -> int:
    """The most memory that PyTorch's allocator holds for a call, beside the input.

    Args:
        compress: what is called.
        tokens: what with.
    """
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        compress(tokens)
    traced: Any = record.profiler
    held = [each for each in traced.kineto_results.events() if each.name() == "[memory]"]
    sizes = [each.nbytes() for each in sorted(held, key=lambda each: each.start_ns())]
    return max(accumulate(sizes), default=0)
