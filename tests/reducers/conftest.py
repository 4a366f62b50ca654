"""Visual rows made by hand."""

import pytest
import torch

from streamvlm.reduction import VisualRows


def make_rows(steps=6, frame=(3, 4), kind="scenes", width=8, seed=0, **facts):
    """Rows of a clip: `noise`, `scenes` of three steps each, or `constant`."""
    generator = torch.Generator().manual_seed(seed)
    height, columns = frame
    cells = height * columns
    place = torch.cartesian_prod(
        torch.tensor([0]), torch.arange(steps), torch.arange(height), torch.arange(columns)
    )
    hidden = torch.randn(steps * cells, width, generator=generator)
    if kind == "scenes":
        scene = torch.arange(steps).repeat_interleave(cells) // 3 * cells
        cell = torch.arange(cells).repeat(steps)
        hidden = hidden[scene + cell] + 0.3 * hidden
    if kind == "constant":
        hidden = torch.ones_like(hidden)
    known = {"layer": 2, "depth": 8, "lowest": 0, "total": len(hidden), "alive": (len(hidden),) * 2}
    weight = torch.ones(len(hidden))
    return VisualRows(hidden, place, weight, **{**known, **facts})


def make_signal(rows, seed=1):
    return torch.rand(len(rows), generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def rows():
    return make_rows


@pytest.fixture
def signal():
    return make_signal
