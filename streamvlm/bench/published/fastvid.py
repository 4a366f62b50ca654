"""FastVID as its authors' code computes it: what our own is compared with for speed.

Written from a description of that code (LunarShen/FastVID, the variant for LLaVA-OneVision,
2503.11187), not copied: densities of all steps at once although only anchors need them, a copy
of the segment for each anchor, means as a product with a one-hot matrix, a loop over segments.

T steps, N tokens a step, n of them not salient, D features; of a segment: L steps, a anchors,
q targets of each.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from streamvlm.types import VisualTokens

SEGMENTS = 8
THRESHOLD = 0.9
CONTEXT = 0.4
ANCHOR_EVERY = 4
MIX = 0.6


def compress(tokens: VisualTokens, keep: float) -> torch.Tensor:
    """Compress one dense clip with the published settings.

    Args:
        tokens: at least 8 steps, dense, float32 or float64, with the cues `attention` and
            `frame_vector`.
        keep: share of the tokens kept; from about 0.46 on it crashes, as there.

    Returns:
        (M, D) features in time-then-place order.
    """
    steps, rows, columns = tokens.grid
    places = rows * columns
    x_TND = tokens.features.view(steps, places, -1)
    taken = int(places * keep)
    context = int(taken * CONTEXT)
    salient_TS = tokens.cues["attention"].view(steps, places).topk(taken - context).indices
    is_salient = torch.zeros(steps, places, dtype=torch.bool, device=x_TND.device)
    is_salient.scatter_(1, salient_TS, True)
    other_Tn = (~is_salient).nonzero()[:, 1].view(steps, -1)
    other_TnD = x_TND.gather(1, other_Tn[..., None].expand(-1, -1, x_TND.shape[-1]))
    score_Tn = _density_scores(other_TnD)

    first = torch.arange(steps, device=x_TND.device)[:, None] * places
    index = [is_salient.flatten().nonzero().flatten()]
    features = [x_TND[is_salient]]
    start = 0
    for end in _segment_ends(tokens.frame_cues["frame_vector"]):
        anchors = torch.arange(end - 1, start - 1, -ANCHOR_EVERY, device=x_TND.device).flip(0)
        size = context * (end - start) // len(anchors)
        target_aq = score_Tn[anchors].topk(size).indices
        pool = other_TnD[anchors] if size == context else other_TnD[None, start:end].flatten(1, 2)
        merged = _merged(pool.expand(len(anchors), -1, -1), other_TnD[anchors], target_aq)
        index.append((other_Tn[anchors].gather(1, target_aq) + first[anchors]).flatten())
        features.append(merged.flatten(0, 1))
        start = end
    return torch.cat(features)[torch.cat(index).argsort()]


def _segment_ends(frame_vector: torch.Tensor) -> list[int]:
    """The steps at which segments end, exclusive."""
    similarity = F.cosine_similarity(frame_vector[:-1], frame_vector[1:], dim=-1)
    is_cut = similarity < THRESHOLD
    is_cut[similarity.topk(SEGMENTS - 1, largest=False).indices] = True
    return [*(is_cut.nonzero().flatten() + 1).tolist(), len(frame_vector)]


def _density_scores(points_TnD: torch.Tensor) -> torch.Tensor:
    """How well each token would serve as a cluster centre of its step, (T, n)."""
    distance = torch.cdist(points_TnD, points_TnD) / points_TnD.shape[-1] ** 0.5
    near = distance.topk(4, largest=False).values
    density = (-near.square().mean(-1)).exp()
    dice = torch.Generator().manual_seed(0)
    density = density + (torch.rand(density.shape, generator=dice) * 1e-6).to(density)
    is_denser = density[:, None, :] > density[:, :, None]
    farthest = distance.flatten(1).amax(1)[:, None, None]
    score: torch.Tensor = density * distance.where(is_denser, farthest).amin(-1)
    return score


def _merged(
    pool_aRD: torch.Tensor, anchor_anD: torch.Tensor, target_aq: torch.Tensor
) -> torch.Tensor:
    """The targets of each anchor, blended with the mean of what is most like them, (a, q, D)."""
    width = pool_aRD.shape[-1]
    target_aqD = anchor_anD.gather(1, target_aq[..., None].expand(-1, -1, width))
    similarity = F.normalize(pool_aRD, dim=-1) @ F.normalize(target_aqD, dim=-1).mT
    joins_aRq = F.one_hot(similarity.argmax(-1), target_aq.shape[1]).to(pool_aRD.dtype)
    count_aq1 = joins_aRq.sum(1)[..., None]
    mean_aqD = joins_aRq.mT @ pool_aRD / count_aq1.clamp(min=1)
    own_aq1 = (1 / (count_aq1 + 1)).clamp(min=MIX)
    return own_aq1 * target_aqD + (1 - own_aq1) * mean_aqD
