"""A second look: the model is shown the best candidates one by one, and says which it can use."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from streamvlm.errors import BadOption
from streamvlm.memory.retrieve import fit
from streamvlm.stopwatch import Stopwatch
from streamvlm.types import Evidence, Query, Word

logger = logging.getLogger(__name__)

LISTEN = 8
"""Pieces of an answer that are listened to; a denial is plain by then."""
RECORDS, TOKENS = "records looked at", "tokens looked at"
"""What a stopwatch counts."""

_QUESTION = "{question}"
_DENIAL = re.compile(
    r"(?:no|not|none|nothing|nobody|never)\b|.*?\b(?:there (?:is|are|was|were) (?:no|not)|"
    r"(?:is|are|was|were|does|do|did|can)(?: ?not|n['’]t) )"
)
"""How an answer says that what was asked about is not there, in lower case."""


@dataclass(frozen=True, slots=True)
class Rerank:
    """Whether the model looks at what was found once more before it answers."""

    look_at: int = 0
    """So many of the best candidates, but at least as many as are read; 0 for none."""
    ask: str = _QUESTION
    """What it is asked about each. A denial counts against it, anything else for it."""

    def __post_init__(self) -> None:
        if self.look_at < 0:
            raise BadOption("rerank: look_at must be at least 0")
        if _QUESTION not in self.ask:
            raise BadOption(f"rerank: ask must say {_QUESTION} where the question is to stand")


def reranked(
    found: Sequence[Evidence],
    query: Query,
    ask: str,
    say: Callable[[Query, Sequence[Evidence]], Iterator[Word]],
    watch: Stopwatch,
) -> list[Evidence]:
    """Order evidence by what a model says to each piece alone.

    The new score of a piece is the geometric mean of the probabilities of the answer's first words,
    taken negative if they deny that what was asked about is there. A model that does not tell
    probabilities only sorts into yes (1) and no (-1). What has no tokens left is not looked at: 0.

    Args:
        found: most relevant first; of equals, it stays so.
        query: the question; its `max_tokens` is the most that is shown of one piece.
        ask: how it is put; `{question}` stands for its words.
        say: the model's answer about one piece.
        watch: is charged for the stage `rerank`, and counts what was looked at.

    Returns:
        The same evidence with new scores, best first.
    """
    put = replace(query, text=ask.replace(_QUESTION, query.text))
    judged: list[Evidence] = []
    with watch.stage("rerank"):
        for each in found:
            alone = [one for one in fit([each], query.max_tokens) if len(one.record.tokens)]
            words = list(islice(say(put, alone), LISTEN)) if alone else []
            judged.append(replace(each, score=_verdict(words)))
            watch.counts[RECORDS] += len(alone)
            watch.counts[TOKENS] += sum(len(one.record.tokens) for one in alone)
    if judged and all(abs(each.score) in (0.0, 1.0) for each in judged):
        logger.info("the model tells no probabilities: ranked by yes and no alone")
    return sorted(judged, key=lambda each: -each.score)


def _verdict(words: Sequence[Word]) -> float:
    """-1 (surely not there) to 1 (surely there)."""
    chances = [word.probability for word in words]
    if not chances:
        return 0.0
    is_told = not any(math.isnan(chance) for chance in chances)
    logs = [math.log(max(chance, 1e-12)) for chance in chances] if is_told else [0.0]
    sure = math.exp(sum(logs) / len(logs))
    text = " ".join("".join(map(str, words)).lower().split())
    return -sure if _DENIAL.match(text) else sure
