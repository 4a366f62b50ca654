"""One film planned by hand, with backgrounds that were never trained on: the demo's and the tests'.

Its scenes are cut every eight seconds. Each event lies well inside its scene, each shape comes
once, and so does each colour but red, so that every short question has one right answer.
"""

from __future__ import annotations

from streamvlm.bench.world import Film, Scene, Thing


def storyboard() -> Film:
    """A film of 40 seconds in five scenes, with one or two things in each."""
    circle = _still("blue circle", (0.2, 0.8), (0, 8))
    square = _still("red square", (0.8, 0.2), (11, 16))
    triangle = _moving("green triangle", (0.2, 0.5), (19, 24))
    star = _still("yellow star", (0.8, 0.8), (24, 32))
    ring = _still("purple ring", (0.2, 0.2), (27, 32))
    cross = _still("white cross", (0.5, 0.2), (34, 40))
    return Film(
        seed=0,
        split="backgrounds",
        scenes=(
            Scene(0, 8, "still", "checks", 1, (circle,)),
            Scene(8, 16, "noisy", "grain", 2, (square,)),
            Scene(16, 24, "panning", "checks", 3, (triangle,)),
            Scene(24, 32, "still", "grain", 4, (star, ring)),
            Scene(32, 40, "noisy", "checks", 5, (cross,)),
        ),
    )


def _still(name: str, place: tuple[float, float], life: tuple[int, int]) -> Thing:
    colour, shape = name.split()
    return Thing(colour, shape, 0.15, *place, None, 0.0, *life)


def _moving(name: str, place: tuple[float, float], life: tuple[int, int]) -> Thing:
    colour, shape = name.split()
    travel = 0.6 / (life[1] - life[0] - 1)
    return Thing(colour, shape, 0.15, *place, "right", travel, *life)
