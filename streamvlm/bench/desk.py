"""Where compressors are tried: one clip, encoded once, and every answer given so far."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from streamvlm.bench.exam import Mark, Paper, read_alike, shown, sit_at_once
from streamvlm.bench.ranking import Sitting
from streamvlm.errors import StreamVLMError
from streamvlm.types import Evidence, VisualTokens

if TYPE_CHECKING:
    from streamvlm.ingest import VideoLLM
    from streamvlm.protocols import Compressor

QUESTION = "question"
"""The cue that exists only when a question is asked."""


class Refused(Exception):
    """A compressor cannot take a clip."""


class Desk:
    """One paper of an exam, and a model that answers it from whatever is left of its clip."""

    def __init__(self, model: VideoLLM, paper: Paper) -> None:
        self.dense = model.encode(paper.clip)
        """All tokens of the clip, with their cues."""
        self._model, self._paper = model, paper
        self._answered: list[tuple[VisualTokens, tuple[Mark, ...]]] = []

    def sit(self, compress: Compressor) -> Sitting:
        """Compress the clip and answer its questions.

        Who reads the question compresses the clip anew for each.

        Raises:
            Refused: the compressor cannot take this clip.
        """
        # It pays for the cues that it reads, not for those of others.
        needs = compress.needs
        tokens = replace(
            self.dense,
            cues={name: cue for name, cue in self.dense.cues.items() if name in needs},
            frame_cues={name: cue for name, cue in self.dense.frame_cues.items() if name in needs},
        )
        if QUESTION in needs:
            return self._sit_asked(compress, tokens)
        kept, first = _timed(compress, tokens)
        # The faster of two, which other programs disturbed less; the first may have been cold.
        _, second = _timed(compress, tokens)
        return self.seen(kept, min(first, second))

    def seen(self, tokens: VisualTokens, milliseconds: float = 0.0) -> Sitting:
        """The answers to what is seen in some of the clip's tokens; equal ones are read once.

        Args:
            tokens: what is left of the clip.
            milliseconds: how long it took to leave only that.
        """
        marks = self._known(tokens)
        if marks is None:
            marks = tuple(sit_at_once(self._model, self._evidence(tokens), self._paper))
            self._answered.append((tokens, marks))
        return self._sitting(marks, len(tokens), milliseconds)

    def blind(self) -> Sitting:
        """The answers to the questions alone."""
        return self._sitting(tuple(sit_at_once(self._model, (), self._paper)), 0, 0.0)

    def _sit_asked(self, compress: Compressor, tokens: VisualTokens) -> Sitting:
        marks: list[Mark] = []
        sizes: list[int] = []
        spent: list[float] = []
        model: Any = self._model
        for number, question in enumerate(self._paper.questions):
            asked = model.with_question(tokens, question.text)
            kept, milliseconds = _timed(compress, asked)
            sizes.append(len(kept))
            spent.append(milliseconds)
            known = self._known(kept)
            if known is not None:
                marks.append(known[number])
                continue
            alone = replace(self._paper, questions=(question,))
            marks += sit_at_once(self._model, self._evidence(kept), alone)
        return self._sitting(tuple(marks), statistics.mean(sizes), statistics.median(spent))

    def _known(self, tokens: VisualTokens) -> tuple[Mark, ...] | None:
        return next((marks for read, marks in self._answered if read_alike(read, tokens)), None)

    def _evidence(self, tokens: VisualTokens) -> tuple[Evidence, ...]:
        return (shown(tokens, self._paper.clip),)

    def _sitting(self, marks: tuple[Mark, ...], kept: float, milliseconds: float) -> Sitting:
        frames = len(self._paper.clip.frames)
        return Sitting(marks, frames, kept, len(self.dense), milliseconds)


def _timed(compress: Compressor, tokens: VisualTokens) -> tuple[VisualTokens, float]:
    """What a compressor gives, and the milliseconds that it takes."""
    _wait_for(tokens)
    began = time.perf_counter()
    try:
        kept = compress(tokens)
    except StreamVLMError as error:
        raise Refused(str(error)) from error
    _wait_for(tokens)
    return kept, 1000 * (time.perf_counter() - began)


def _wait_for(tokens: VisualTokens) -> None:
    """Until a GPU has done all its work: it works on while the clock is read."""
    if tokens.features.is_cuda:
        torch.cuda.synchronize(tokens.features.device)
