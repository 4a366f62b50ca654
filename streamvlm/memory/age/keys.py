"""Which of many keys are kept when records are merged.

K keys, E key width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_SAME = 0.98


def distinct(keys: NDArray[np.float32]) -> NDArray[np.float32]:
    """The keys (K, E) without those whose cosine to one kept before is at least 0.98."""
    cosines = keys @ keys.T
    kept: list[int] = []
    for place in range(len(keys)):
        if not kept or cosines[place, kept].max() < _SAME:
            kept.append(place)
    return keys[kept]


def most_different(keys: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """At most so many of the keys (K, E), in their own order, each as unlike the others as can be.

    For any key left out there is a kept one that is nearer to it than any two kept ones are.
    """
    if len(keys) <= most:
        return keys
    cosines = keys @ keys.T
    chosen = [int((keys @ keys.mean(axis=0)).argmin())]
    nearest = cosines[chosen[0]].copy()
    for _ in range(most - 1):
        nearest[chosen[-1]] = np.inf
        chosen.append(int(nearest.argmin()))
        np.maximum(nearest, cosines[chosen[-1]], out=nearest)
    return keys[sorted(chosen)]
