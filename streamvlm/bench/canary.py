"""One easy question through the real path, whose answer is known."""

from __future__ import annotations

from pathlib import Path

from streamvlm.bench.world.drawing import write_film
from streamvlm.bench.world.questions import normalise
from streamvlm.bench.world.storyboard import storyboard
from streamvlm.config import load
from streamvlm.errors import ModelError

_QUESTION, _ANSWER = "What colour is the star?", "yellow"


def canary(folder: Path) -> str:
    """Encode a film, ingest it with the default configuration, and ask about it.

    Args:
        folder: an empty folder for the film and its memory.

    Returns:
        One line that says what was asked and answered.

    Raises:
        ModelError: the answer is wrong.
    """
    film = write_film(storyboard(), folder / "shapes.mp4", fps=2, size=192)
    with load("default").build(folder / "memory") as vlm:
        vlm.ingest(film)
        answer = vlm.ask(_QUESTION)
    if normalise(answer.text) != _ANSWER:
        raise ModelError(
            f'asked "{_QUESTION}" about a film with a {_ANSWER} star, the demo model answered '
            f'"{answer.text}"; the shipped weights or a library are damaged: install again'
        )
    return f"{_QUESTION} {answer.text} (sure {answer.confidence:.2f})"
