"""Real keys to rank: films with needles, as the retriever sees them.

Films are drawn, encoded as H.264, decoded, thinned and cut into clips as `ingest` does it, but no
language model looks at them: only keys are needed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.planted import Question
from streamvlm.bench.rankers import Segments
from streamvlm.bench.report import Progress
from streamvlm.bench.token_keys import TokenKeys
from streamvlm.bench.world import Film
from streamvlm.bench.world.drawing import write_film
from streamvlm.bench.world.needles import Needle
from streamvlm.engine import StreamVLM
from streamvlm.protocols import Embedder
from streamvlm.video.sources import open_source

FPS, SIZE = 1, 192
"""Of the films, as in `bench needle`."""
FUNCTION_WORDS = frozenset(
    {"a", "an", "and", "are", "at", "do", "does", "for", "from", "has", "have", "how", "in", "is"}
    | {"it", "of", "on", "or", "the", "there", "to", "was", "were", "what", "when", "where"}
    | {"which", "who", "why", "with"}
)
"""Words of a question that get no key of their own."""


@dataclass(frozen=True, eq=False)
class Watched:
    """A film as keys."""

    frames: Segments
    """Records with a key for each frame."""
    tokens: Segments | None
    """The same records with a key for each window of each frame; None if the tower has none."""
    seconds: NDArray[np.float64]
    """(n,) when each frame is, in the order of their keys."""

    def holders(self, needle: Needle) -> frozenset[int]:
        """The records with a picture of an event."""
        since, until = needle.span
        within = (self.seconds >= since) & (self.seconds < until)
        return frozenset(self.frames.owners[within].tolist())


def watch(film: Film, path: Path, vlm: StreamVLM, eye: TokenKeys | None, told: Progress) -> Watched:
    """Write a film, look at it, and delete it.

    Args:
        film: the plan.
        path: where to write it.
        vlm: whose filter, clips and embedder are used.
        eye: for the token keys; None for frame keys alone.
        told: is told how far drawing and watching are.
    """
    told(f"{path.stem}, drawing", 0, 1)
    write_film(film, path, fps=FPS, size=SIZE)
    told(f"{path.stem}, drawing", 1, 1)
    stages = vlm.stages
    whole, parts, seconds, starts = [], [], [], []
    for clip in stages.clips(stages.dedupe(open_source(str(path), stages.sampling))):
        if eye is None:
            whole.append(stages.embedder.embed_clip(clip))
        else:
            seen, tokens = eye(clip)
            whole.append(seen)
            parts.append(tokens.reshape(-1, tokens.shape[-1]))
        starts.append(clip.start)
        seconds += [frame.seconds for frame in clip.frames]
        told(f"{path.stem}, watching", min(int(clip.end), film.seconds), film.seconds)
    path.unlink()
    return Watched(
        frames=_segments(whole, starts),
        tokens=_segments(parts, starts) if parts else None,
        seconds=np.array(seconds),
    )


def _segments(keys: Sequence[NDArray[np.float32]], starts: Sequence[float]) -> Segments:
    return Segments(
        keys=np.concatenate(keys),
        owners=np.repeat(np.arange(len(keys)), [len(each) for each in keys]),
        stream=np.zeros(len(keys), np.int64),
        start=np.array(starts),
    )


def whole(needle: Needle, seen: Watched, embedder: Embedder) -> Question:
    """The question as the memory is asked it: one key."""
    return _asked([needle.question.text], needle, seen, embedder)


def in_words(needle: Needle, seen: Watched, embedder: Embedder) -> Question:
    """The question, what it is about, and each of its words but function words."""
    words = re.findall(r"\w+", needle.question.text.lower())
    content = [word for word in words if word not in FUNCTION_WORDS]
    texts = [needle.question.text, needle.thing.name, *dict.fromkeys(content)]
    return _asked(texts, needle, seen, embedder)


def _asked(texts: Sequence[str], needle: Needle, seen: Watched, embedder: Embedder) -> Question:
    return Question(np.stack([embedder.embed_text(t) for t in texts]), seen.holders(needle))
