"""The model card of the demo checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from streamvlm.bench.report import Conditions, Table
from streamvlm.bench.world import COLOURS, SHAPES, UNSEEN_PAIRS
from streamvlm.bench.world.questions import KINDS, PHRASINGS


@dataclass(frozen=True, slots=True)
class Training:
    """How the checkpoint came about; kept beside it as `training.json`."""

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


_TRIED = """## What was tried

The study before this one stopped at 0.51 (mean of kinds, up to 8 frames). One change at a time:

- *Knowing before answering.* Visual tokens must tell, at the middle layer, their second and minute,
  and heading, novelty and place of their thing. With that, times were readable after 200 steps.
- *The optimiser.* Answer loss after 140 steps on the same lessons from the same eye: AdamW at
  1.2e-3 0.948, Muon at 1.2e-3 0.895. What ships used Muon at 3e-3; other rates were not compared.
- *Motion.* Direction stayed at guessing while things moved less than a token a second and it was
  1 % of the questions. It is asked only where a thing visibly moved, and before other kinds.
- *Twice the steps of the eye* (1100, then 2200; bf16 arithmetic and another attention kernel made
  them as fast): shape per token 0.933, then 0.975 (development films).
- *Unseen pairs.* The eye had learned from 42 of 48 pairs that the other six cannot be: it named
  0.05 of the shapes of unseen pairs. Now a pair that is held out is no candidate where its colour
  or its shape is shown, so nothing is learned against it (as logit adjustment does for rare
  classes, Menon et al. 2021): 0.63, and no unseen pair was shown. So with the words of answers.
- *Times far apart.* Views of one lesson used to lie seconds apart; now up to an hour. It did not
  cure what it was meant to: three records instead of one still lower right answers from 0.72 to
  0.34 (32 needles of 15-minute films, development seed 5), so `default.yaml` reads one.
- *More of what ties a thing to a time* (when, at, where at, not visible): 31, now 42 of 100
  questions; and batches of lessons of one length: 0.74, now 0.90 of a batch is no padding.
- *What is left* is which frame a time belongs to. On lessons from held-out films, so with nothing
  between model and training: "at" 0.68 with up to 2 frames, 0.49 with up to 8; "not visible" 0.55
  and 0.27. Yet a linear reading of each visual token at layer 3 gives its second and minute. A time
  in a question has to find those tokens; next to try is reading them out by the very embeddings of
  the number words, and earlier than at layer 3.
- *A second course* of 350 steps after the first, mostly about what is there at a time, had been
  thrown away before: 0.803 against 0.815 of 843 questions (development seed 2).
- *Capacity* was not varied: two cores allowed one run at a time.
"""


def card(tables: Sequence[Table], conditions: Conditions, training: Training) -> str:
    """The whole card, as Markdown.

    Args:
        tables: everything that was measured.
        conditions: under which.
        training: how the weights came about.
    """
    asked = "\n".join(f"- {kind}: {', '.join(ways)}" for kind, ways in PHRASINGS.items())
    figures = "\n\n".join(table.markdown() for table in tables)
    return f"""# The demo checkpoint

A real but tiny `LlavaOnevisionForConditionalGeneration` (this folder) and `SiglipModel`
(`retriever/`), trained by `python -m scripts.train_demo` from one seed. It makes the whole path
run, testable and measurable without a download; it is not a model for real video.

## What it knows

A synthetic world (`streamvlm/bench/world/`): one to three shapes ({", ".join(SHAPES)}) in
{len(COLOURS)} colours ({", ".join(COLOURS)}), and now and then a digit, on muted, still, noisy,
flickering or panning backgrounds. Things appear, vanish, move left, right, up or down, change their
colour and meet. It reads frames of 96×96 pixels, one a second, and answers these {len(KINDS)} kinds
of questions (in braces: a colour, a shape, both, or a time):

{asked}
- absent: any of these about a thing that is not there, or something that does not happen.

Answers are one to three words: `yes`, `red`, `star`, `top left` (ninths of the picture), `00:12`,
`left`, `two`, `red square`; and `no such thing`, `not visible`, `no change` or `no motion`.

## What it does not know

Anything else. It has never seen a photograph, other shapes, colours or words, more than three
things at once, or more than 24 frames in a question. It answers regardless, and then wrongly. Pairs
of colour and shape that it never saw are told less surely. A kind that is not plainly above its
guesses below was not learned. How sure it says it is, is not calibrated. One model, one seed.

## How good it is

Printed by `python -m scripts.measure_demo`, on films that were never trained on, drawn, encoded as
H.264 and decoded. *Seeds*: only the films are new. *Backgrounds*: also the families of backgrounds.
*Pairs*: also the coloured shapes: {", ".join(sorted(UNSEEN_PAIRS))}.
{" ".join(conditions.lines())}

{figures}

![Right answers against tokens kept, for each compressor](compress.svg)

{_TRIED}
{_how(training)}"""


def _how(training: Training) -> str:
    return f"""## How it was trained

1. {training.films} films of three scenes ({training.frames} frames at 1 fps), drawn at 192×192,
   encoded as H.264 (CRF 18 to 30), decoded and resized to 96×96.
2. Eye, projector and word embeddings: {training.tower_steps} steps of 64 frames; each of the 36
   tokens of a frame must name colour and shape of what it shows, and its row and column.
3. Language model on the frozen eye: {training.language_steps} steps of 7000 tokens, one schedule,
   Muon for the matrices and AdamW for the rest; clips of up to 3, then 6, then up to 24 frames,
   with tokens dropped blindly later on. Up to sixteen questions share one clip. While training,
   visual tokens must also tell their time, and heading, novelty and place of their thing.
4. Retriever: {training.retriever_steps} steps of 128 frames against 56 texts with the sigmoid loss
   (SigLIP, arXiv:2303.15343), near misses weighted up; the eye's last two layers are trained
   further, the others are frozen.

Everything starts from seed 0. {training.conditions}
Weights are float16; prompts are laid out as `streamvlm/models/_prompt.py` does, with `MM:SS` before
each frame and positions "full".
"""
