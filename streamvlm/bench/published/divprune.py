"""DivPrune as its published code works: a matrix of all distances, searched anew for every token.

Written from the description of the method, to measure ours against; not for use.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from streamvlm.types import VisualTokens


def compress(tokens: VisualTokens, keep: float) -> torch.Tensor:
    """Choose tokens by greedy k-centre (DivPrune, CVPR 2025, arXiv 2503.02175).

    Takes memory for N² distances and time for the square of the number of tokens chosen: at 128
    steps of 196 tokens 2.5 GB, and minutes for a tenth of them.

    Args:
        tokens: N tokens of one clip; positions, weights and cues play no part.
        keep: share of the tokens kept, 0–1.

    Returns:
        (M, D) features of round(keep·N) tokens, in flat-index order.
    """
    unit_ND = F.normalize(tokens.features.float(), dim=1)
    distance_NN = 1 - unit_ND @ unit_ND.T
    to_others_NN = distance_NN.clone().fill_diagonal_(torch.inf)
    chosen = to_others_NN.amin(1).argmax(0, keepdim=True)
    del to_others_NN
    for _ in range(round(keep * len(tokens)) - 1):
        nearest = distance_NN[chosen].amin(0)
        nearest[chosen] = -torch.inf
        chosen = torch.cat([chosen, nearest.argmax(0, keepdim=True)])
    return tokens.features[chosen.sort().values]
