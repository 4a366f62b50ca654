"""What tests of several parts share."""

from pathlib import Path

import pytest

from streamvlm.bench.world.drawing import write_film
from streamvlm.bench.world.storyboard import storyboard


@pytest.fixture(scope="session")
def shapes_film(tmp_path_factory) -> Path:
    """A real H.264 file of 40 seconds: five scenes, in one of which a red square appears."""
    return write_film(storyboard(), tmp_path_factory.mktemp("shapes") / "shapes.mp4", fps=5)
