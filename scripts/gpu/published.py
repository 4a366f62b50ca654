"""Published figures, each with the measurement of ours that answers it.

None of them can be reproduced here: other machines, other code, trained weights. They stand beside
ours so that nobody has to look for them, and with what is known of their conditions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from scripts.gpu.measuring import Cell, Eye
from scripts.gpu.sizes import LLAVA_ONEVISION_7B, QWEN25_VL_7B
from streamvlm.bench.report import Table

_Ours = Callable[["Found"], float | None]


@dataclass(frozen=True)
class Found:
    """All that was measured."""

    eyes: Sequence[Eye]
    cells: Sequence[Cell]

    def cell(self, model: str, frames: int, keep: float) -> Cell | None:
        """One cell of one model, if it was measured."""
        wanted = (model, frames, keep)
        fitting = [at for at in self.cells if (at.model, at.frames, at.keep) == wanted]
        return fitting[0] if fitting else None

    def faster(self, model: str, frames: int, keep: float, what: str) -> float | None:
        """How many times faster some milliseconds are at a budget than with all tokens."""
        whole, part = self.cell(model, frames, 1.0), self.cell(model, frames, keep)
        slow, fast = (getattr(at, what) if at else None for at in (whole, part))
        return slow / fast if slow and fast else None

    def rate(self, model: str) -> float | None:
        """Frames a second that the eye of a model encodes."""
        return next((eye.encode for eye in self.eyes if eye.model == model), None)


_LLAVA, _QWEN = LLAVA_ONEVISION_7B.name, QWEN25_VL_7B.name

PUBLISHED: tuple[tuple[str, str, str, str, _Ours], ...] = (
    (
        "FastVID: prefill, times faster with 9.7 % of the tokens",
        "7.1 ×",
        "abstract of arXiv:2503.11187; LLaVA-OneVision-7B, 32 frames",
        f"prefill at keep 0.1, {_LLAVA}, 32 frames",
        lambda found: found.faster(_LLAVA, 32, 0.1, "prefill"),
    ),
    (
        "VisionZip: prefill, times faster with 10 % of the tokens",
        "8 ×",
        "abstract of arXiv:2412.04467; images, LLaVA-NeXT",
        f"prefill at keep 0.1, {_LLAVA}, 32 frames",
        lambda found: found.faster(_LLAVA, 32, 0.1, "prefill"),
    ),
    (
        "HoliTom: first word, times faster (eye included)",
        "2.28 ×",
        "abstract of arXiv:2505.21334; LLaVA-OneVision-7B, FLOPs to 6.9 %",
        f"from pixels at keep 0.1, {_LLAVA}, 32 frames",
        lambda found: found.faster(_LLAVA, 32, 0.1, "from_pixels"),
    ),
    (
        "FrameFusion: end to end, times faster with 30 % of the tokens",
        "1.6–1.9 ×",
        "abstract of arXiv:2501.01986; LLaVA-Video-7B, whole answers",
        f"from pixels at keep 0.25, {_LLAVA}, 64 frames",
        lambda found: found.faster(_LLAVA, 64, 0.25, "from_pixels"),
    ),
    (
        "EVS: first word, times faster with 25 % of the tokens",
        "about 4 ×",
        "vllm-project/vllm pull request 22980",
        f"from stored tokens at keep 0.25, {_QWEN}, 128 frames",
        lambda found: found.faster(_QWEN, 128, 0.25, "first_word"),
    ),
    (
        "ReKV: first word, about an hour of video, ms",
        "3300",
        "table of arXiv:2503.00540; LLaVA-OneVision-7B, A100, 64 frames fetched",
        f"from stored tokens at keep 1, {_LLAVA}, 64 frames",
        lambda found: getattr(found.cell(_LLAVA, 64, 1.0), "first_word", None),
    ),
    (
        "ReKV: frames a second taken in",
        "11",
        "table of arXiv:2503.00540; LLaVA-OneVision-7B, A100; prefill of each frame included",
        f"encode, {_LLAVA}: the eye alone, nothing is prefilled",
        lambda found: found.rate(_LLAVA),
    ),
    (
        "StreamingVLM: frames a second taken in",
        "8",
        "readme of mit-han-lab/streaming-vlm; Qwen2.5-VL-7B, H100; speaking included",
        f"encode, {_QWEN}: the eye alone, nothing is said",
        lambda found: found.rate(_QWEN),
    ),
)
"""Figure, what was published, where and under which conditions, ours, and how to find ours."""


def beside(found: Found) -> Table:
    """Published figures beside ours.

    Args:
        found: what was measured.
    """
    rows = tuple(
        (figure, said, ours(found), how, source) for figure, said, source, how, ours in PUBLISHED
    )
    return Table(
        "Beside published figures",
        ("figure", "published", "here", "measured here as", "published where"),
        rows,
        note="Other machines, other code and trained weights: a comparison of sizes, not a race.",
    )
