"""The model card of the demo checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scripts.training.measure import Found, Score
from streamvlm.bench.questions import PHRASINGS
from streamvlm.bench.world import COLOURS, SHAPES


@dataclass(frozen=True, slots=True)
class Training:
    """How the checkpoint came about."""

    films: int
    """Films of three scenes in the pool."""
    frames: int
    """Frames in the pool."""
    tower_steps: int
    """Of 64 frames."""
    language_steps: int
    """Of 7000 tokens."""
    retriever_steps: int
    """Of 128 frames."""
    conditions: str
    """What it ran on, how long it took, and what was special about it, in words."""


def table(scores: Mapping[str, Sequence[Score]]) -> str:
    """Held-out figures as a Markdown table.

    Args:
        scores: how hard it was, in words → the scores.
    """
    lines = [
        "| asked about | difficulty | questions | right | blind | best constant |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for how, rows in scores.items():
        lines += [
            f"| {row.kind} | {how} | {row.count} | **{row.right:.2f}** | {row.blind:.2f} "
            f"| {row.majority:.2f} |"
            for row in rows
        ]
        mean = [sum(getattr(r, c) for r in rows) / len(rows) for c in _COLUMNS]
        total = sum(row.count for row in rows)
        lines.append(
            f"| *all kinds, mean* | {how} | {total} | **{mean[0]:.2f}** | {mean[1]:.2f} "
            f"| {mean[2]:.2f} |"
        )
    return "\n".join(lines)


_COLUMNS = ("right", "blind", "majority")


def found_table(found: Sequence[Found]) -> str:
    """Retrieval figures as a Markdown table."""
    lines = [
        "| asked as | things | right scene first | among first two | by chance |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.way} | {row.count} | **{row.first:.2f}** | {row.among_two:.2f} "
        f"| {row.chance:.2f} |"
        for row in found
    ]
    return "\n".join(lines)


def card(scores: Mapping[str, Sequence[Score]], found: Sequence[Found], training: Training) -> str:
    """The whole card, as Markdown."""
    asked = "\n".join(f"- {kind}: {', '.join(ways)}" for kind, ways in PHRASINGS.items())
    return f"""# The demo checkpoint

A real but tiny `LlavaOnevisionForConditionalGeneration` (this folder) and `SiglipModel`
(`retriever/`), trained by `python -m scripts.train_demo` from one seed. It makes the whole path
run, and testable, without a download; it is not a model for real video.

## What it knows

A synthetic world (`streamvlm/bench/world.py`): one to three shapes ({", ".join(SHAPES)}) in
{len(COLOURS)} colours ({", ".join(COLOURS)}) on muted, still, noisy or panning backgrounds, which
appear, vanish and move left, right, up or down. It reads frames of 96×96 pixels, one a second, and
answers these questions (in braces: a colour, a shape, or both):

{asked}

Answers are one or two words: `yes`, `red`, `star`, `top left` (ninths of the picture), `00:12`,
`left`, `two`, `red square`.

## What it does not know

Anything else. It has never seen a photograph, other shapes, colours or words, things that touch or
overlap, more than three things at once, or more than twelve frames in a question. It answers
regardless, and then wrongly. A kind whose share in the table below is not plainly above "blind" and
"best constant" was not learned, however the question sounds. How sure it says it is, is not
calibrated.

## How good it is

Films and backgrounds that were never trained on, encoded as H.264 and decoded. *Blind*: the same
model with all visual tokens removed. *Best constant*: what always giving the commonest answer
would score. An order question names both candidates, so guessing gives 0.5. One model, one
seed; with a few hundred questions a kind, differences of a few hundredths mean nothing. All
coloured shapes occur in training: this measures seeing, not generalising to new pairs.

{table(scores)}

"Dropped" means that, in half of the clips, 25 to 85 % of the visual tokens were removed without
looking at what they show; some of these questions can then not be answered by anyone.

Retrieval, among the twelve scenes of four films ({found[0].count} things):

{found_table(found)}

{_recipe(training)}"""


def _recipe(training: Training) -> str:
    return f"""## How it was trained

1. {training.films} films of three scenes ({training.frames} frames at 1 fps), drawn at 192×192,
   encoded as H.264 (CRF 18 to 30), decoded and resized to 96×96.
2. Eye, projector and word embeddings: {training.tower_steps} steps of 64 frames; each of the 36
   tokens of a frame must name colour and shape of what it shows, and its row and column.
3. Language model on the frozen eye: {training.language_steps} steps of 7000 tokens, one schedule;
   clips of up to 3, then mostly 6, sometimes 12 frames, with tokens dropped blindly later on. Up to
   twelve questions share one clip. While training, visual tokens must also tell their time, and
   heading, novelty and place of their thing.
4. Retriever: {training.retriever_steps} steps of 128 frames against 62 texts with the sigmoid loss
   (SigLIP, arXiv:2303.15343); the eye's last layer is trained further, the others are frozen.

Everything starts from seed 0. {training.conditions} Weights are float16; prompts are laid out as
`streamvlm/models/_prompt.py` does, with `MM:SS` before each frame and positions "full".
"""
