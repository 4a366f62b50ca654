"""Hidden states that go into others, as a reducer planned.

V visual rows, M kept, D features.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from streamvlm.reduction import Plan


def merged(hidden: torch.Tensor, plan: Plan) -> torch.Tensor:
    """The kept rows with what was merged into them.

    Args:
        hidden: (V, D) floating point.
        plan: for these rows.

    Returns:
        (M, D), computed in float32; in the dtype of `hidden`.
    """
    if plan.source is None or plan.target is None or plan.share is None:
        return hidden[plan.keep]
    taken = torch.zeros(len(hidden), dtype=torch.float64, device=hidden.device)
    own = (1 - taken.index_add(0, plan.target, plan.share.double()))[plan.keep].clamp(min=0)
    every = torch.arange(len(plan.keep), device=hidden.device)
    row = torch.cat([plan.keep, plan.source])
    into = torch.cat([every, torch.searchsorted(plan.keep, plan.target)])
    share = torch.cat([own.float(), plan.share])
    # Sums in a fixed order on every device, which scatter-adds on a GPU do not promise.
    order = into.argsort(stable=True)
    starts = torch.searchsorted(into[order], every)
    mixed = F.embedding_bag(
        row[order], hidden.float(), starts, mode="sum", per_sample_weights=share[order]
    )
    return mixed.to(hidden.dtype)
