"""What the comparison of rankers showed, as tables and gates."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from streamvlm.bench.intervals import Interval, interval, paired
from streamvlm.bench.report import Cell, Gate, Table, gate_table
from streamvlm.bench.retrieval import (
    CASES,
    EXACT,
    FRAMES,
    FRAMES_WORDS,
    MEAN,
    NOVEL,
    PLANTED,
    TOKENS,
    TOKENS_WORDS,
    XTR,
    Retrieval,
    Score,
)

AMONG = (1, 5)
"""Segments that may be looked at, for each recall."""
LEAD = 0.1
"""In R@1, of novel tokens over the mean."""
LARGEST, SMALLER = 150.0, 30.0
"""Bytes that an index may take for a segment, and how many times less than all keys."""
_FEW = 1_000
"""Segments of which a few hundred candidates are a large part."""
_QUESTIONS = "questions"
_KEYS = {
    PLANTED[0]: "made up, words match weakly",
    PLANTED[1]: "made up, words match better",
    FRAMES: "one key a frame; the question itself is searched with, as the memory is asked",
    FRAMES_WORDS: "one key a frame; with the question, what it is about, and its content words",
    TOKENS: "one key for each 2 × 2 patches; the question itself is searched with",
    TOKENS_WORDS: "one key for each 2 × 2 patches; the question, what it is about, its words",
}


def tables(found: Retrieval) -> list[Table]:
    """A table for each case, the rankers beside exact MaxSim, and the gates."""
    cases = [case for case in CASES if any(score.case == case for score in found.scores)]
    return [
        *(_case(found, case) for case in cases),
        _beside(found, cases),
        gate_table(gates(found)),
    ]


def _case(found: Retrieval, case: str) -> Table:
    scores = [score for score in found.scores if score.case == case]
    rows = []
    for score in scores:
        recalls: list[Cell] = []
        for among in AMONG:
            share = _recall(score, among)
            recalls += [share.mean, share.low, share.high]
        rows.append((score.ranker, *recalls, score.milliseconds, round(score.bytes_each)))
    one = scores[0]
    many = f" in each of {found.plan.films} films" if case not in PLANTED else ""
    note = (
        f"{_KEYS[case][0].upper()}{_KEYS[case][1:]}. {len(one.places)} questions, {one.segments} "
        f"segments{many}, whose keys are {one.bytes_all:,.0f} bytes each as float16. R@k: a right "
        "segment is among the first k; low, high: 95 % bootstrap over questions (Wilson's interval "
        "where all or none are found). ms: CPU time of a question, the median, all threads. "
        "B/segment: of the index alone; keys that are compared exactly after it are in the store."
    )
    heads = [head for among in AMONG for head in (f"R@{among}", f"low {among}", f"high {among}")]
    if case not in PLANTED and one.segments < _FEW:
        note += (
            " A film is searched alone; of so few segments the candidates that MUVERA and k-means "
            "compare exactly are a large part, so these look better than in a large memory."
        )
    return Table(f"Finding: {case}", ("index", *heads, "ms", "B/segment"), tuple(rows), note)


def _recall(score: Score, among: int) -> Interval:
    return interval(score.found(among), np.arange(len(score.places)))


def _share(score: Score) -> float:
    return float(np.mean(score.found(1)))


def _less(one: Score, other: Score, among: int) -> Interval:
    """How much more often one finds it than the other, paired by question."""
    return paired(one.found(among), other.found(among), np.arange(len(one.places)))


def _beside(found: Retrieval, cases: list[str]) -> Table:
    """The claims that made-up keys led to, on all keys."""
    rows = []
    for case in cases:
        cells: list[Cell] = []
        for name in (XTR, NOVEL):
            one, other = found.score(case, name), found.score(case, EXACT)
            gain = _less(one, other, 1) if one and other else None
            cells += [gain.mean, gain.low, gain.high] if gain else [None] * 3
        rows.append((case, *cells, order_as_planted(found, case)))
    columns = ("keys", "XTR", "XTR low", "XTR high", "novel", "novel low", "novel high", "order")
    note = (
        "Gain in R@1 over exact MaxSim, paired by question with its 95 % interval: of XTR over all "
        "tokens, and of novel tokens with XTR. Order: Spearman's rank correlation of "
        f"all rankers' R@1 with that on {PLANTED[0]} keys. {' '.join(_said(found, cases))}"
    )
    if found.left_out:
        note += f" There are no token keys: {found.left_out}."
    return Table("Does the order hold on real keys?", columns, tuple(rows), note.strip())


def _said(found: Retrieval, cases: list[str]) -> Iterator[str]:
    """What the figures say of the real keys, in words."""
    for case in cases:
        if case in PLANTED:
            continue
        scores = {score.ranker: _share(score) for score in found.scores if score.case == case}
        top = max(scores.values())
        best = [name for name, share in scores.items() if share == top]
        worst = min(scores, key=scores.__getitem__)
        alike = sum(share > top - 0.05 for share in scores.values())
        yield (
            f"{case}: first {', '.join(best) if len(best) < 4 else f'{len(best)} alike'} "
            f"({top:.2f}), last {worst} ({scores[worst]:.2f}); {alike} of {len(scores)} are within "
            "0.05 of the first."
        )


def order_as_planted(found: Retrieval, case: str) -> float | None:
    """Spearman's correlation of the rankers' R@1 with that on the hard planted keys.

    Args:
        found: all scores.
        case: which to compare.

    Returns:
        -1 to 1, or None where one of the two has no order.
    """
    here = {s.ranker: _share(s) for s in found.scores if s.case == case}
    there = {s.ranker: _share(s) for s in found.scores if s.case == PLANTED[0]}
    if here.keys() != there.keys() or min(len(set(here.values())), len(set(there.values()))) < 2:
        return None
    one, other = (_ranks([shares[name] for name in here]) for shares in (here, there))
    return float(one @ other / np.sqrt((one @ one) * (other @ other)))


def _ranks(values: list[float]) -> NDArray[np.float64]:
    """Places in ascending order, less their mean; equal values share the mean of theirs."""
    array = np.array(values)
    below = (array[:, None] > array).sum(1)
    equal = (array[:, None] == array).sum(1)
    places: NDArray[np.float64] = below + equal / 2 - len(values) / 2
    return places


def gates(found: Retrieval) -> list[Gate]:
    """What novel tokens with XTR are to reach, in every case that was measured."""
    gates = []
    for case in CASES:
        novel, mean, exact = (found.score(case, name) for name in (NOVEL, MEAN, EXACT))
        if novel is None or mean is None or exact is None:
            continue
        number = len(novel.places)
        more = _less(novel, mean, 1)
        ratio, around = _ratio(novel, exact)
        what = f"{case}: R@1 of novel tokens less the mean's"
        gates += [
            Gate(what, more.mean, LEAD, interval=more, number=number, of=_QUESTIONS),
            Gate(
                f"{case}: their R@5 over exact MaxSim's",
                ratio,
                1.0,
                interval=around,
                number=number,
                of=_QUESTIONS,
            ),
        ]
        # How it is asked does not change an index.
        if case not in (FRAMES_WORDS, TOKENS_WORDS):
            what = f"{case}: bytes of all keys over their index"
            gates.append(Gate(what, novel.bytes_all / novel.bytes_each, SMALLER))
        if case in (*PLANTED, FRAMES):
            what = f"{case}: their index, bytes a segment"
            gates.append(Gate(what, novel.bytes_each, LARGEST, at_least=False))
    return gates


def _ratio(novel: Score, exact: Score) -> tuple[float | None, Interval | None]:
    """R@5 of the one over that of the other, and how sure it is for the other as it is."""
    base = float(np.mean(exact.found(AMONG[1])))
    if not base:
        return None, None
    gain = _less(novel, exact, AMONG[1])
    low, high = 1 + gain.low / base, 1 + gain.high / base
    return 1 + gain.mean / base, Interval(1 + gain.mean / base, low, high, gain.error / base)
