"""`streamvlm bench compress`: what each compressor costs in right answers and in time.

Every compressor sees the same held-out clips, each encoded once, and is asked the same questions,
so that any two can be compared question by question.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from streamvlm.bench.compress_report import Compression
from streamvlm.bench.desk import QUESTION, Desk, Refused
from streamvlm.bench.exam import SEEDS_APART, examinee, fingerprint, papers
from streamvlm.bench.ranking import BASELINES, Method, Ranking, Sitting, Trial
from streamvlm.bench.report import Progress, here, silent
from streamvlm.bench.world import SPLITS, Split
from streamvlm.config import Config
from streamvlm.errors import BadOption, StreamVLMError
from streamvlm.plugins import Recipe, complete_options, find, names

if TYPE_CHECKING:
    from streamvlm.protocols import Compressor

KEEPS = (1.0, 0.5, 0.25, 0.15, 0.1, 0.05)
"""The budgets that are compared unless others are asked for."""
_CEILING, _FLOOR = Method("all tokens", None), Method("blind", None)


@dataclass(frozen=True, slots=True)
class Plan:
    """What is compared, and on how much.

    Raises:
        BadOption: when made, if something is out of range.
    """

    clips: int = 96
    """How many held-out clips."""
    frames: int = 8
    """Frames of the longest clip; lengths from 1 to this are cycled."""
    seed: int = 1
    """Of the clips, and of the compressors that draw lots."""
    split: Split = "seeds"
    """What is new in the clips to the model; anything but "training"."""
    keeps: tuple[float, ...] = KEEPS
    """Shares of the tokens that compressors are asked to keep, 0–1."""
    compressors: tuple[str, ...] = ()
    """Plug-ins beside the baselines; empty for every one that the model's cues allow."""

    def __post_init__(self) -> None:
        if self.clips < 2 or self.frames < 1:
            raise BadOption("a comparison needs at least 2 clips of at least 1 frame")
        if not self.keeps or not all(0 < keep <= 1 for keep in self.keeps):
            raise BadOption(
                f"keep must be shares above 0 and at most 1, found {list(self.keeps)}; "
                f"leave it out for {list(KEEPS)}"
            )
        held_out = [split for split in SPLITS if split != "training"]
        if self.split not in held_out:
            raise BadOption(f"only held-out clips count; choose from: {', '.join(held_out)}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A method that can be tried."""

    method: Method
    """The compressor and its budget."""
    plugin: type[Any]
    """The class that is built."""

    def build(self, number: int, share: float = 1.0) -> Compressor:
        """The compressor for one clip.

        Args:
            number: the paper's, over all seeds; a compressor that draws lots draws another one
                for each, so that the luck of the draw is part of the interval.
            share: what to keep, 0–1, if the method takes as much as another.

        Raises:
            BadOption: the plug-in refuses its options.
        """
        options: dict[str, Any] = {}
        if "seed" in inspect.signature(self.plugin).parameters:
            options["seed"] = number
        if self.method.like or self.method.keep is not None:
            options["keep"] = share if self.method.like else self.method.keep
        try:
            built: Compressor = self.plugin(**complete_options(self.plugin, options))
        except ValueError as error:
            raise BadOption(str(error)) from error
        return built


def candidates(plan: Plan, offered: frozenset[str]) -> tuple[list[Candidate], list[str]]:
    """Everything that can be tried, the baselines first, and why the rest cannot.

    Args:
        plan: which compressors at which budgets.
        offered: the cues that the model gives.

    Returns:
        Candidates, and a sentence for each that is left out.

    Raises:
        UnknownPlugin: there is no compressor of a name in the plan.
    """
    for name in plan.compressors:
        find("compressors", name)
    found: list[Candidate] = []
    skipped: list[str] = []
    plugins: dict[str, type[Any]] = {}
    for name in dict.fromkeys((*BASELINES, *(plan.compressors or names("compressors")))):
        try:
            plugin = plugins[name] = Recipe("compressors", name).plugin
            if missing := plugin.needs - offered:
                lacks = ", ".join(sorted(missing))
                raise BadOption(f"it needs the cue {lacks}, which this model does not give")
        # A plug-in of another package may lack what that package needs.
        except (StreamVLMError, ImportError) as error:
            skipped.append(f"{name} is left out: {error}")
            continue
        for method in _methods(name, plugin, plan.keeps):
            candidate = Candidate(method, plugins[method.name])
            try:
                candidate.build(0)
            except BadOption as error:
                skipped.append(f"{method} is left out: {error}")
            else:
                found.append(candidate)
    return found, skipped


def _methods(name: str, plugin: type[Any], keeps: Sequence[float]) -> list[Method]:
    """A compressor at every budget; or as it is, and the baselines at what it takes by itself."""
    if "keep" in inspect.signature(plugin).parameters:
        return [Method(name, keep) for keep in sorted(set(keeps), reverse=True)]
    return [Method(name, None), *(Method(baseline, None, like=name) for baseline in BASELINES)]


def measure_compress(
    config: Config, plan: Plan | None = None, progress: Progress = silent
) -> Compression:
    """Compare compressors on one model, every clip by itself: none has a clip before.

    One that reads the question compresses the clip anew for each.

    Args:
        config: names the model; its other sections play no part.
        plan: what is compared; None for the usual.
        progress: is told of every compressor of every clip.

    Returns:
        Everything that was measured.

    Raises:
        UnknownPlugin: there is no compressor of a name in the plan.
        ModelError: the weights cannot be loaded, or cannot read a whole clip.
    """
    plan = plan or Plan()
    tried, skipped = candidates(plan, cues_of(config.recipes["model"].plugin))
    # One model gives all cues that any of them reads, so a clip is encoded once for all.
    needs = frozenset[str]().union(*(one.plugin.needs for one in tried))
    model = examinee(config, needs - {QUESTION})
    found: dict[Method, list[Sitting]] = {method: [] for method in (_CEILING, _FLOOR)}
    found |= {one.method: [] for one in tried}
    total = plan.clips * len(tried)
    for paper in papers(plan.seed, plan.clips, split=plan.split, frames=plan.frames):
        desk = Desk(model, paper)
        found[_CEILING].append(desk.seen(desk.dense))
        found[_FLOOR].append(desk.blind())
        lot = plan.seed * SEEDS_APART + paper.number
        shares: dict[str, float] = {}
        for number, one in enumerate(tried):
            progress("compress", paper.number * len(tried) + number, total)
            if one.method not in found:
                continue
            try:
                sitting = desk.sit(one.build(lot, shares.get(one.method.like, 1.0)))
            except Refused as error:
                skipped.append(f"{one.method} is left out: {error}")
                found = _without(one.method, found)
                continue
            shares[one.method.name] = sitting.kept / sitting.dense
            found[one.method].append(sitting)
    progress("compress", total, total)
    asked = {one.method for one in tried if QUESTION in one.plugin.needs}
    trials = {
        method: Trial(method, tuple(sittings), sees_question=method in asked)
        for method, sittings in found.items()
    }
    ceiling, floor = trials.pop(_CEILING), trials.pop(_FLOOR)
    ranking = Ranking(tuple(trials.values()))
    return Compression(
        here(plan.seed, fingerprint(config, model)), ranking, ceiling, floor, tuple(skipped)
    )


def cues_of(plugin: type[Any]) -> frozenset[str]:
    """The cues that compressors can get of a family of models, at ingest or when it is asked."""
    given: frozenset[str] = plugin.cues
    return given | {QUESTION} if hasattr(plugin, "with_question") else given


def _without(method: Method, found: Mapping[Method, list[Sitting]]) -> dict[Method, list[Sitting]]:
    """What is left without a method, and without those that take as much as it."""
    followers = {other for other in found if method.keep is None and other.like == method.name}
    return {
        other: sittings for other, sittings in found.items() if other not in {method, *followers}
    }
