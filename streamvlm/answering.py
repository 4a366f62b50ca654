"""A question on its way to an answer: what is read for it, and what is said."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

from streamvlm.errors import BadOption
from streamvlm.focus import Asked, focused, widened
from streamvlm.illustrate import illustrate, looks, tokens_read
from streamvlm.ingest import Stages
from streamvlm.likeness import nothing_found
from streamvlm.memory.retrieve import in_time_order
from streamvlm.memory.store import Memory
from streamvlm.protocols import Answerer
from streamvlm.recall import SecondLook, recall
from streamvlm.rerank import RECORDS, TOKENS, Rerank, reranked
from streamvlm.stopwatch import Stopwatch
from streamvlm.types import Evidence, Query, Usage, Word

ONLY_PICTURES = "Of that time only pictures remain, which the model cannot read."
"""The answer when of all records found the tokens were given up with age."""


@dataclass(frozen=True, slots=True, eq=False)
class Inquiry:
    """One question to a memory."""

    query: Query
    """The question, its streams as ids."""
    memory: Memory
    """Where the answer is looked for."""
    stages: Stages
    """Who looks, reads and speaks; each is loaded when it is needed."""
    rerank: Rerank
    """Whether the model looks at candidates one by one."""
    watch: Stopwatch
    """Is charged for everything."""

    def __post_init__(self) -> None:
        if not self.query.text.strip():
            raise BadOption(
                "a model is asked in words; write a question beside the picture, or use search"
            )

    def read(self) -> tuple[Evidence, ...]:
        """What the answerer reads: what was found, cut down by the focus if there is one.

        Returns:
            Evidence by stream and time. What has no tokens left comes along, but is not read.
        """
        focus = self.stages.focus
        if focus is None:
            return self._found(self.query)
        found = self._found(widened(self.query, focus))
        whole = [each for each in found if len(each.record.tokens)]
        if not whole:
            return found
        pictures = [each for each in found if not len(each.record.tokens)]
        with self.watch.stage("load"):
            answerer = cast(Asked, self.stages.answerer)
        with self.watch.stage("focus"):
            return in_time_order([*pictures, *focused(whole, focus, answerer, self.query)])

    def speak(self, evidence: Sequence[Evidence]) -> Iterator[Word]:
        """The answer as it comes; closing the iterator stops the model.

        Args:
            evidence: what `read` gave.
        """
        if not evidence:
            yield Word(nothing_found(self.query), 1.0)
            return
        with self.watch.stage("load"):
            answerer = self.stages.answerer
        if not looks(answerer) and not any(len(each.record.tokens) for each in evidence):
            yield Word(ONLY_PICTURES, 1.0)
            return
        with self.watch.stage("first_word"):
            words = self._say(answerer, self.query, evidence)
            first = next(words, None)
        if first is not None:
            yield first
            yield from self.watch.items("more_words", words)

    def usage(self, evidence: Sequence[Evidence]) -> Usage:
        """What it cost so far.

        Args:
            evidence: what `read` gave.
        """
        counts, looked_at = self.watch.counts, {}
        if counts[RECORDS]:
            tokens = 0 if looks(self.stages.answerer) else counts[TOKENS]
            looked_at = {"records": counts[RECORDS], "tokens": tokens}
        return Usage(
            tokens_read=tokens_read(evidence, self.stages),
            milliseconds=self.watch.milliseconds,
            looked_at=looked_at,
        )

    def confidence(self, evidence: Sequence[Evidence], words: Sequence[Word]) -> float:
        """How sure the answerer was; 0 if it had nothing to read, NaN if it does not tell."""
        if not words or not evidence or str(words[0]) == ONLY_PICTURES:
            return 0.0
        return math.exp(sum(math.log(max(w.probability, 1e-12)) for w in words) / len(words))

    def _found(self, query: Query) -> tuple[Evidence, ...]:
        with self.watch.stage("load"):
            embedder = self.stages.embedder
        again = SecondLook(self.rerank.look_at, self._rank) if self.rerank.look_at else None
        return recall(self.memory, embedder, query, self.watch, again)

    def _rank(self, found: Sequence[Evidence]) -> list[Evidence]:
        """The same evidence in the order of what the answerer says to each piece alone."""
        with self.watch.stage("load"):
            say = partial(self._say, self.stages.answerer)
        return reranked(found, self.query, self.rerank.ask, say, self.watch)

    def _say(
        self, answerer: Answerer, query: Query, evidence: Sequence[Evidence]
    ) -> Iterator[Word]:
        """What the answerer says of some evidence."""
        allow_local = self.stages.sampling.allow_local
        if not looks(answerer):
            evidence = [each for each in evidence if len(each.record.tokens)]
        shown = illustrate(evidence, answerer, self.memory, self.watch, allow_local=allow_local)
        return answerer.answer(query, shown)
