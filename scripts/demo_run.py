"""The demo: make a film, ingest it, ask about it, and check each answer against the truth."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from streamvlm.bench.world import Film, Thing
from streamvlm.bench.world.drawing import write_film
from streamvlm.bench.world.questions import clock, normalise, place
from streamvlm.bench.world.storyboard import storyboard
from streamvlm.cli import show
from streamvlm.config import load
from streamvlm.engine import StreamVLM
from streamvlm.types import Answer

_FOLDER = Path("demo-output")


@dataclass(frozen=True, slots=True)
class Asked:
    """A question of the demo, with its truth."""

    question: str
    answer: str
    span: tuple[float, float]
    """When what it is about is to be seen, in seconds; one piece of evidence must touch it."""


def questions(film: Film) -> list[Asked]:
    """What the demo asks; the truth is read off the film's plan."""
    named = {thing.name: thing for thing in film.things}
    star, square = named["yellow star"], named["red square"]
    circle, ring = named["blue circle"], named["purple ring"]
    first = min(star, ring, key=lambda thing: thing.appears)
    return [
        Asked("What colour is the star?", star.colour, _life(star)),
        Asked(
            "When does the red square appear?",
            clock(square.appears),
            (square.appears, square.appears + 1),
        ),
        Asked("Where is the blue circle?", place(circle, circle.appears), _life(circle)),
        Asked("What shape is the purple thing?", ring.shape, _life(ring)),
        Asked(
            "Which appears first, the purple ring or the yellow star?",
            first.name,
            (first.appears, ring.appears + 1),
        ),
        Asked("Is there a red triangle?", "no", (0, film.seconds)),
    ]


def _life(thing: Thing) -> tuple[float, float]:
    return thing.appears, thing.vanishes


def main() -> int:
    """Run the demo.

    Returns:
        0 if every answer is right and its evidence touches the event, else 1.
    """
    logging.basicConfig(level=logging.ERROR)
    shutil.rmtree(_FOLDER, ignore_errors=True)
    _FOLDER.mkdir()
    film = storyboard()
    path = write_film(film, _FOLDER / "shapes.mp4")
    show.out.print(f"film      {path} ({film.seconds} s of H.264, truth in {path.stem}.json)")
    with load("default").build(_FOLDER / "memory") as vlm:
        with show.progress() as report:
            for result in vlm.ingest(path, report):
                show.ingested(result, as_json=False)
        good = [_ask(vlm, asked) for asked in questions(film)]
        fine = all(good) and _ask_again(vlm)
    show.out.print(f"\n{sum(good)} of {len(good)} passed: right answer, evidence, coverage")
    show.note(show.DEMO_NOTE)
    return 0 if fine else 1


def _ask(vlm: StreamVLM, asked: Asked) -> bool:
    answer = vlm.ask(asked.question)
    right = normalise(answer.text) == normalise(asked.answer)
    touches = _touches(answer, asked.span)
    covered = all(
        abs(sum(span.end - span.start for span in watched.spans) - watched.seconds) < 1e-6
        for watched in answer.coverage
    )
    verdict = "right" if right else f"WRONG, the truth is {asked.answer}"
    show.out.print(f"\n{asked.question}\n  answer    {answer.text}   ({verdict})", markup=False)
    show.footnotes(answer)
    low, high = (clock(second) for second in asked.span)
    show.out.print(
        f"  checked   evidence {'touches' if touches else 'DOES NOT TOUCH'} the event "
        f"({low}–{high}); coverage {'sums' if covered else 'DOES NOT SUM'} to 100 %",
        style="dim",
        markup=False,
    )
    return right and touches and covered


def _touches(answer: Answer, span: tuple[float, float]) -> bool:
    return any(
        found.record.start < span[1] and span[0] < found.record.end for found in answer.evidence
    )


def _ask_again(vlm: StreamVLM) -> bool:
    """Ask once more, now that all is loaded: nothing may be decoded or encoded again."""
    began = time.perf_counter()
    answer = vlm.ask("What colour is the circle?")
    spent = time.perf_counter() - began
    usage = answer.usage
    show.out.print(
        f"\nOne more question on the same memory: {answer.text}, after {1000 * spent:.0f} ms; "
        f"{usage.frames_decoded} frames decoded, {usage.tokens_stored} tokens stored"
    )
    return not usage.frames_decoded and not usage.tokens_stored


if __name__ == "__main__":
    sys.exit(main())
