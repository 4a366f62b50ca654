"""How sure a measured share is: bootstrap over clips.

Questions about one clip stand or fall together, so clips are drawn again, not questions (the
cluster bootstrap; Efron & Tibshirani 1993, An Introduction to the Bootstrap). Where every draw
gives the same share, as it does when all answers are right, the bootstrap would be sure of it;
there the interval is Wilson's (1927, JASA 22:209), with the clips as the number of trials: ten of
ten are 0.72 to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

_LOW, _HIGH = 2.5, 97.5
_NORMAL = 1.96
"""Standard errors to each side that hold 95 %."""
_SAME = 1e-9
"""Draws that differ by no more are equal but for rounding."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and how far it can be trusted. NaN where there was too little to tell."""

    mean: float
    """Of all that was measured."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    error: float
    """Standard error."""


NOTHING = Interval(math.nan, math.nan, math.nan, math.nan)
"""What is known where nothing was measured."""


def interval(right: ArrayLike, clip: ArrayLike, *, draws: int = 1000, seed: int = 0) -> Interval:
    """The share that is right, with a 95 % interval.

    Args:
        right: (n,) right or wrong.
        clip: (n,) the clip that each belongs to, by number or name.
        draws: how often the clips are drawn again.
        seed: of the draws.

    Returns:
        The interval; of a single clip only the mean.
    """
    return by_group(right, clip, np.zeros(len(np.asarray(clip)), int), draws=draws, seed=seed)


def paired(
    one: ArrayLike, other: ArrayLike, clip: ArrayLike, *, draws: int = 1000, seed: int = 0
) -> Interval:
    """The mean of `one` less the mean of `other`, both measured on the same questions.

    It is the bootstrap in all cases: of a difference that is the same on all clips it is sure.

    Args:
        one: (n,) what was measured in one way.
        other: (n,) the same questions measured in the other.
        clip: (n,) the clip that each belongs to, by number or name.
        draws: how often the clips are drawn again.
        seed: of the draws.
    """
    difference = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    if not len(difference):
        return NOTHING
    return _bootstrap(*_by_clip(difference, clip, np.zeros(len(difference), int)), draws, seed)


def by_group(
    right: ArrayLike, clip: ArrayLike, group: ArrayLike, *, draws: int = 1000, seed: int = 0
) -> Interval:
    """The mean over groups of each group's share, so that every group counts alike.

    Args:
        right: (n,) right or wrong.
        clip: (n,) the clip that each belongs to, by number or name.
        group: (n,) what each belongs to, such as its kind of question.
        draws: how often the clips are drawn again.
        seed: of the draws.
    """
    values = np.asarray(right, np.float64)
    if not len(values):
        return NOTHING
    sums, counts = _by_clip(values, clip, group)
    found = _bootstrap(sums, counts, draws, seed)
    if found.high - found.low > _SAME or len(sums) < 2:
        return found
    # As many as would tell as much of one group as the clips of each tell of the mean of all.
    alike = len(counts.T) ** 2 / (1 / (counts > 0).sum(0)).sum()
    return _wilson(found.mean, min(len(sums), float(alike)))


def _by_clip(
    values: NDArray[np.float64], clip: ArrayLike, group: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(clips, groups) the sums of all values, and how many there are."""
    _, clips = np.unique(np.asarray(clip), return_inverse=True)
    _, groups = np.unique(np.asarray(group), return_inverse=True)
    shape = (int(clips.max()) + 1, int(groups.max()) + 1)
    sums, counts = np.zeros(shape), np.zeros(shape)
    np.add.at(sums, (clips, groups), values)
    np.add.at(counts, (clips, groups), 1)
    return sums, counts


def _bootstrap(
    sums: NDArray[np.float64], counts: NDArray[np.float64], draws: int, seed: int
) -> Interval:
    mean = float((sums.sum(0) / counts.sum(0)).mean())
    if len(sums) < 2:
        return Interval(mean, math.nan, math.nan, math.nan)
    drawn = _drawn(sums, counts, draws, seed)
    low, high = np.percentile(drawn, [_LOW, _HIGH])
    return Interval(mean, float(low), float(high), float(drawn.std(ddof=1)))


def _wilson(share: float, trials: float) -> Interval:
    """Wilson's score interval of a share."""
    spare = _NORMAL**2 / trials
    centre = (share + spare / 2) / (1 + spare)
    half = math.sqrt(spare * share * (1 - share) + spare**2 / 4) / (1 + spare)
    # Rounding must not put the share itself outside.
    low, high = min(centre - half, share), max(centre + half, share)
    return Interval(share, max(low, 0.0), min(high, 1.0), half / _NORMAL)


def _drawn(
    sums: NDArray[np.float64], counts: NDArray[np.float64], draws: int, seed: int
) -> NDArray[np.float64]:
    """(draws,) means after drawing as many clips as there are, with replacement."""
    clips = len(sums)
    times = np.random.default_rng(seed).multinomial(clips, np.full(clips, 1 / clips), size=draws)
    total, number = times @ sums, times @ counts
    # A draw may miss every clip of a rare group: its mean is then over the others.
    means = np.divide(total, number, out=np.full_like(total, np.nan), where=number > 0)
    drawn: NDArray[np.float64] = np.nanmean(means, axis=1)
    return drawn
