"""What a hunt for needles came to: tables, and the gates that it can measure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from streamvlm.bench.exam import Mark
from streamvlm.bench.haystack import BLIND, FEW, MANY, MEMORY, ORACLE, RANKS, WAYS, WINDOW, Find
from streamvlm.bench.intervals import Interval, interval, paired
from streamvlm.bench.needle import FPS, SIZE, Hunt
from streamvlm.bench.report import Cell, Gate, Table, gate_table
from streamvlm.bench.scores import chance, majority
from streamvlm.bench.world.needles import NEEDLE_KINDS, NEEDLE_SECONDS

_AGES = 4
"""Equal parts of the films for which recall is given apart."""
_HOW = {
    MEMORY: "retrieval by the question, then the answer, as `streamvlm ask` does it",
    FEW: "16 frames of the whole film",
    MANY: "64 frames of the whole film",
    WINDOW: "the end of the film",
    ORACLE: "the records that hold the needle",
    BLIND: "no visual tokens",
}


def tables(hunt: Hunt) -> list[Table]:
    """What a hunt came to, the gates last."""
    return [
        _retrieval(hunt),
        _by_age(hunt),
        _end_to_end(hunt),
        _read(hunt),
        _by_kind(hunt),
        _where_lost(hunt),
        _instead(hunt),
        gate_table(gates(hunt)),
    ]


def gates(hunt: Hunt) -> list[Gate]:
    """What was promised for needles in one hour, without any noise margin."""
    finds = hunt.finds
    memory, found = right(finds, MEMORY), recall(finds, 5)
    by_luck = chance(_marks(finds, MEMORY))
    # By luck alone a share of the answers is right, so fewer right ones are no worse than that.
    least = max(right(finds, FEW).mean, by_luck)
    times = memory.mean / least if least else math.nan
    plain = Gate("right by memory, × uniform 16, or × chance if that is more", times, 3)
    each = [
        Gate("retrieval, recall@5", found.mean, 0.90, interval=found),
        Gate("right by memory", memory.mean, 0.75, interval=memory),
        plain,
    ]
    return [replace(gate, number=len(finds), of="needles") for gate in each]


def recall(finds: Sequence[Find], among: int) -> Interval:
    """The share of needles of which a holder is among the first so many records."""
    hits = [find.rank is not None and find.rank < among for find in finds]
    return interval(hits, np.arange(len(hits)))


def recall_by_chance(finds: Sequence[Find], among: int) -> float:
    """The same if the records were ranked at random."""
    return float(np.mean([_lucky(find.records, find.holders, among) for find in finds]))


def _lucky(records: int, holders: int, among: int) -> float:
    """Chance that some of `among` records drawn without replacement are holders."""
    tried = min(among, records)
    return 1 - math.comb(records - holders, tried) / math.comb(records, tried)


def right(finds: Sequence[Find], way: str) -> Interval:
    """The share of right answers of one way."""
    return interval([mark.right for mark in _marks(finds, way)], np.arange(len(finds)))


def _marks(finds: Sequence[Find], way: str) -> list[Mark]:
    return [find.replies[way].mark for find in finds]


def _retrieval(hunt: Hunt) -> Table:
    rows = []
    for among in RANKS:
        found = recall(hunt.finds, among)
        lucky = recall_by_chance(hunt.finds, among)
        rows.append((f"recall@{among}", len(hunt.finds), found.mean, found.low, found.high, lucky))
    records = np.mean([find.records for find in hunt.finds])
    plan = hunt.plan
    note = (
        f"{NEEDLE_SECONDS} s each, {plan.needles} a film; held-out films: {plan.films}, of "
        f"{plan.seconds / 3600:.3g} h and {records:.0f} records ({FPS} picture a second, {SIZE} × "
        f"{SIZE} pixels). A needle's scene has at most one other thing and no digit; all others "
        "have up to three things and now and then a digit, so it is easier than the hay. The "
        "question itself is what is searched with. A record counts if it holds a picture of the "
        "needle. chance: records in random order. low, high: 95 % bootstrap over needles (Wilson's "
        "interval where all or none are found); those of one film share its haystack."
    )
    columns = ("retrieval", "needles", "found", "low", "high", "chance")
    return Table("Finding the needle's record", columns, tuple(rows), note)


def _by_age(hunt: Hunt) -> Table:
    part = hunt.plan.seconds / _AGES
    rows: list[tuple[Cell, ...]] = []
    for index in range(_AGES):
        low, high = index * part, (index + 1) * part
        # The oldest of all is as old as the film is long.
        last = index == _AGES - 1
        finds = [
            f for f in hunt.finds if low <= f.needle.age < high or (last and f.needle.age == high)
        ]
        answered = right(finds, MEMORY)
        rows.append(
            (
                f"{low / 60:.4g}–{high / 60:.4g}",
                len(finds),
                *[recall(finds, among).mean for among in RANKS],
                answered.mean,
                answered.low,
                answered.high,
            )
        )
    note = (
        "Age: from the needle's first second to the end of the film. @: recall among so many "
        "records. right: answers by memory, with their 95 % interval."
    )
    columns = ("age, min", "needles", *(f"@{k}" for k in RANKS), "right", "low", "high")
    return Table("By age of the needle", columns, tuple(rows), note)


def _end_to_end(hunt: Hunt) -> Table:
    finds = hunt.finds
    few = [mark.right for mark in _marks(finds, FEW)]
    rows: list[tuple[Cell, ...]] = []
    nothing: tuple[Cell, ...] = (None, None, None)
    for way in WAYS:
        found = right(finds, way)
        more = paired([mark.right for mark in _marks(finds, way)], few, np.arange(len(finds)))
        against = nothing if way == FEW else (more.mean, more.low, more.high)
        rows.append((way, found.mean, found.low, found.high, *against))
    asked = _marks(finds, MEMORY)
    for name, guessed in (("chance", chance(asked)), ("majority", majority(asked))):
        rows.append((name, guessed, *(None,) * 5))
    note = (
        f"{len(finds)} questions, one about each needle, the same model in all ways; "
        f"{'; '.join(f'{way}: {how}' for way, how in _HOW.items())}. more: than uniform 16, "
        "paired. low, high, from, to: 95 % bootstrap over needles. chance: a uniform guess among "
        "the seconds of the film (when), 9 places (where), 4 headings (direction). majority: the "
        "best constant answer of each kind on this very test."
    )
    columns = ("read", "right", "low", "high", "more", "from", "to")
    return Table("Right answers by what is read", columns, tuple(rows), note)


def _read(hunt: Hunt) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for way in WAYS:
        replies = [find.replies[way] for find in hunt.finds]
        rows.append(
            (
                way,
                float(np.mean([reply.sees for reply in replies])),
                float(np.mean([reply.tokens for reply in replies])),
                float(np.median([reply.mark.milliseconds for reply in replies])),
            )
        )
    limits = hunt.limits
    note = (
        f"Budget of the configuration, for memory: max_records {limits.max_records}, max_tokens "
        f"{limits.max_tokens}. window: the newest records that together hold no more tokens than "
        f"that, here {hunt.window:.0f} s of film. uniform: all tokens of each frame, uncompressed, "
        "under their true times as one clip; that is more frames at once than the demo model was "
        "trained on, which is part of what this baseline is. holds it: the share of needles of "
        "which a picture is among what is read. ms: median wall time to the whole answer."
    )
    return Table("What is read", ("read", "holds it", "tokens", "ms"), tuple(rows), note)


def _by_kind(hunt: Hunt) -> Table:
    each = [[f for f in hunt.finds if f.needle.question.kind == kind] for kind in NEEDLE_KINDS]
    rows: list[tuple[Cell, ...]] = [("questions", *map(len, each))]
    rows += [(way, *[right(finds, way).mean for finds in each]) for way in WAYS]
    asked = [_marks(finds, MEMORY) for finds in each]
    rows += [("chance", *map(chance, asked)), ("majority", *map(majority, asked))]
    return Table("Right answers by kind of question", ("read", *NEEDLE_KINDS), tuple(rows))


def _where_lost(hunt: Hunt) -> Table:
    became = Counter(map(_became, hunt.finds))
    ends = (
        "no picture of it stored",
        "stored, not read, answered wrong",
        "stored, not read, answered right",
        "read, answered wrong, as is the oracle window",
        "read, answered wrong, the oracle window right",
        "read, answered right",
    )
    rows = tuple((end, became[end], became[end] / len(hunt.finds)) for end in ends)
    note = "By the way of the memory. Read in part counts as read."
    return Table("What became of the needles", ("end", "needles", "share"), rows, note)


def _became(find: Find) -> str:
    memory, oracle = find.replies[MEMORY], find.replies[ORACLE]
    if not find.holders:
        return "no picture of it stored"
    if not memory.sees:
        return f"stored, not read, answered {'right' if memory.mark.right else 'wrong'}"
    if memory.mark.right:
        return "read, answered right"
    other = "the oracle window right" if oracle.mark.right else "as is the oracle window"
    return f"read, answered wrong, {other}"


def _instead(hunt: Hunt) -> Table:
    confused = Counter(find.instead for find in hunt.finds if find.instead)
    rows = tuple((what, count, count / len(hunt.finds)) for what, count in confused.most_common())
    note = "Of the record found first, the picture that is most like the question."
    return Table("Found first instead", ("it shows", "needles", "share"), rows, note)


def details(hunt: Hunt) -> list[Table]:
    """Every needle, for those who look closer."""
    rows = tuple(
        (
            find.film,
            find.needle.thing.name,
            find.needle.question.kind,
            find.needle.span[0],
            find.needle.age,
            find.holders,
            None if find.rank is None else find.rank + 1,
            find.instead,
            find.replies[MEMORY].mark.expected,
            *(find.replies[way].mark.said for way in WAYS),
        )
        for find in hunt.finds
    )
    columns = ("film", "needle", "kind", "second", "age", "holders", "place", "first instead")
    return [Table("Every needle", (*columns, "expected", *WAYS), rows)]
