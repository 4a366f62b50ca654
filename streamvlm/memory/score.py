"""One score of a record for several query keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from streamvlm.memory.scan import Ranking, best


def xtr(rankings: Sequence[Ranking], limit: int) -> Ranking:
    """XTR: what a record lacks counts with the worst score found (Lee et al. 2023)."""
    if len(rankings) == 1:
        return best(*rankings[0], limit)
    records = np.unique(np.concatenate([found for found, _ in rankings]))
    total = np.zeros(len(records), np.float32)
    for found, scores in rankings:
        column = np.full(len(records), scores.min(initial=1.0), np.float32)
        column[np.searchsorted(records, found)] = scores
        total += column / len(rankings)
    return best(records, total, limit)
