"""What was found, compressed once more now that the question is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from streamvlm.compressors._ops import apportion
from streamvlm.plugins import Recipe, complete_options
from streamvlm.types import Evidence, Query, VisualTokens


class Asked(Protocol):
    """A model that can say how near the tokens it reads are to a question."""

    def with_question(self, tokens: VisualTokens, text: str) -> VisualTokens:
        """Add the cue `question`; see `VideoLM.with_question`."""


def widened(query: Query, focus: Recipe) -> Query:
    """A query that may bring as many tokens as its budget takes after they are compressed again.

    Args:
        query: what the model may read.
        focus: the second compressor; its `keep` says how much it leaves.
    """
    return replace(query, max_tokens=math.floor(query.max_tokens / _keep(focus)))


def focused(
    found: Sequence[Evidence], focus: Recipe, model: Asked, query: Query
) -> tuple[Evidence, ...]:
    """Compress what was found once more, now that the question is known.

    All records share one budget: the share `keep` of all their tokens, but no more than the query
    allows. Each gets one token, and of the rest a part in proportion to its size (largest
    remainders). If there are more records than the budget has tokens, the best are read.

    Args:
        found: evidence, at least one token each.
        focus: the second compressor; its `keep` is set anew for each record.
        model: what the tokens are of.
        query: the question; never more than its `max_tokens` remain.

    Returns:
        The evidence that is left in the same order, its tokens without cues.
    """
    sizes = [len(each.record.tokens) for each in found]
    count = min(max(round(_keep(focus) * sum(sizes)), len(found)), query.max_tokens)
    first = sorted(range(len(found)), key=lambda place: -found[place].score)[:count]
    rooms = [size - 1 if place in first else 0 for place, size in enumerate(sizes)]
    more = apportion(count - len(first), rooms, rooms)
    read = []
    for place, each in enumerate(found):
        if place in first:
            share = (1 + more[place]) / sizes[place]
            compress = replace(focus, options={**focus.options, "keep": share}).build()
            tokens = each.record.tokens
            if focus.plugin.needs:
                tokens = model.with_question(tokens, query.text)
            tokens = compress(tokens).without_cues()
            read.append(replace(each, record=replace(each.record, tokens=tokens)))
    return tuple(read)


def _keep(focus: Recipe) -> float:
    return float(complete_options(focus.plugin, focus.options)["keep"])
