"""One score of a record for several query keys; pure functions.

Q query keys, K keys of a record, E key width.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamvlm.memory.index.scan import Ranking, best

DEPTH = 64
"""Of each query key's ranking so much decides the first hits, however many are asked for: of
planted events XTR put 100 % first at this depth, and 27 % at 1,024."""


def xtr(rankings: Sequence[Ranking], limit: int) -> Ranking:
    """Records by their mean score over query keys, from what was found for each query key.

    A record that is not among those found for a query key counts with the worst score found for
    it (Lee et al. 2023, "Rethinking the Role of Token Retrieval in Multi-Vector Retrieval",
    arXiv:2304.01982). A query key for which nothing was found says nothing and is left out.

    Args:
        rankings: (Q) of each query key, each record once in a ranking.
        limit: how many records.

    Returns:
        The best records; of equals those with the lowest numbers first.
    """
    rankings = [ranking for ranking in rankings if len(ranking[0])]
    if not rankings:
        return np.empty(0, np.int64), np.empty(0, np.float32)
    if len(rankings) == 1:
        records, scores = rankings[0]
        return records[:limit], scores[:limit]
    records, place = np.unique(
        np.concatenate([found for found, _ in rankings]), return_inverse=True
    )
    worst = np.array([scores.min() for _, scores in rankings])
    # Each starts with the worst scores; what was found adds how much better it is.
    better = np.concatenate([scores - scores.min() for _, scores in rankings])
    total = np.bincount(place, weights=better, minlength=len(records)) + worst.sum(dtype=np.float64)
    return best(records, (total / len(rankings)).astype(np.float32), limit)


def maxsim(queries: NDArray[np.float32], keys: NDArray[np.float32]) -> float:
    """The mean over query keys of the cosine to the nearest key of a record.

    Khattab and Zaharia 2020, "ColBERT: Efficient and Effective Passage Search via Contextualized
    Late Interaction over BERT"; they take the sum.

    Args:
        queries: (Q, E) unit vectors.
        keys: (K, E) unit vectors, at least one.
    """
    return float((queries @ keys.T).max(axis=1).mean())
