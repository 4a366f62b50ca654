"""What an eye sees, before and after it becomes tokens.

Letters: B time steps of one pass, T of a clip; H rows, W columns of tokens; D features, L levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from streamvlm.types import VisualTokens


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """What a tower and a projector make of B time steps."""

    features: torch.Tensor
    """(B, H, W, D), in the language model's input space."""
    deepstack: torch.Tensor | None = None
    """(B, H, W, L, D), for models that feed deeper layers."""
    cues: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """{name: (B, H, W, …)}."""
    frame_cues: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """{name: (B, …)}."""

    def first(self, count: int) -> Seen:
        """The first `count` steps; the rest only filled up a batch."""
        return Seen(
            self.features[:count],
            None if self.deepstack is None else self.deepstack[:count],
            {name: cue[:count] for name, cue in self.cues.items()},
            {name: cue[:count] for name, cue in self.frame_cues.items()},
        )

    def tokens(self, model: str, seconds: torch.Tensor) -> VisualTokens:
        """As the dense tokens of one clip.

        Args:
            model: fingerprint of the encoder.
            seconds: (B,) float64, the time of each step.
        """
        steps, rows, columns = grid = self.features.shape[:3]
        device = self.features.device
        places = [torch.arange(length, device=device) for length in grid]
        cells = rows * columns
        return VisualTokens(
            model=model,
            features=self.features.flatten(0, 2),
            position=torch.cartesian_prod(*places),
            seconds=seconds.to(device).repeat_interleave(cells),
            grid=(steps, rows, columns),
            weight=torch.ones(steps * cells, device=device),
            cues={name: cue.flatten(0, 2) for name, cue in self.cues.items()},
            frame_cues=dict(self.frame_cues),
            deepstack=None if self.deepstack is None else self.deepstack.flatten(0, 2),
        )


def join(parts: Sequence[Seen]) -> Seen:
    """Several passes over one clip as one."""
    deeper = [part.deepstack for part in parts if part.deepstack is not None]
    return Seen(
        torch.cat([part.features for part in parts]),
        torch.cat(deeper) if deeper else None,
        {name: torch.cat([part.cues[name] for part in parts]) for name in parts[0].cues},
        {
            name: torch.cat([part.frame_cues[name] for part in parts])
            for name in parts[0].frame_cues
        },
    )
