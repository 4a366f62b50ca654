"""Tables of exams whose marks were made up, so that each figure can be counted by hand."""

import pytest

from streamvlm.bench.exam import Mark
from streamvlm.bench.qa import Exam
from streamvlm.bench.qa_tables import details, gates, tables
from streamvlm.bench.report import Conditions
from streamvlm.bench.speed import ENCODED, FIRST_WORD, Figure

CONDITIONS = Conditions("3f41693", 1, "a/model", "a machine", "versions")


def mark(kind, expected, said, *, clip=0, frames=4, split="seeds", about="") -> Mark:
    return Mark(clip, split, kind, frames, about, expected, said, expected == said, 1.0)


def exam(seeing=(), blind=(), fine=(), coarse=(), speed=()) -> Exam:
    return Exam(CONDITIONS, *map(tuple, (seeing, blind, fine, coarse, speed)))


def rows(made: Exam, title: str) -> dict[str, dict]:
    (table,) = [table for table in tables(made) if table.title == title]
    return {str(row[0]): dict(zip(table.columns, row, strict=True)) for row in table.rows}


SEEING = [
    mark("exist", "yes", "yes", clip=0, frames=1),
    mark("exist", "no", "no", clip=1, frames=4),
    mark("exist", "no", "yes", clip=2, frames=8),
    mark("colour", "red", "red", clip=0, frames=1),
]
BLIND = [
    mark("exist", "yes", "no", clip=0, frames=1),
    mark("exist", "no", "no", clip=1, frames=4),
    mark("exist", "no", "no", clip=2, frames=8),
    mark("colour", "red", "blue", clip=0, frames=1),
]


def test_each_kind_stands_beside_all_three_ways_to_guess():
    found = rows(exam(SEEING, BLIND), "Right answers by kind")
    exist = found["exist"]
    assert exist["questions"] == 3
    assert exist["right"] == pytest.approx(2 / 3)
    assert exist["low"] <= exist["right"] <= exist["high"]
    assert exist["chance"] == 0.5
    assert exist["majority"] == pytest.approx(2 / 3)
    assert exist["blind"] == pytest.approx(2 / 3)
    assert found["change"]["questions"] == 0


def test_all_questions_and_all_kinds_are_summed_up():
    found = rows(exam(SEEING, BLIND), "Right answers by kind")
    assert found["all questions"]["right"] == 0.75
    assert found["all questions"]["blind"] == 0.5
    mean = found["mean of kinds"]
    assert mean["right"] == pytest.approx((2 / 3 + 1) / 2)
    assert mean["chance"] == pytest.approx((1 / 2 + 1 / 8) / 2)
    assert mean["blind"] == pytest.approx((2 / 3 + 0) / 2)


def test_of_unseen_pairs_only_questions_about_them_count():
    marks = [
        mark("when", "00:01", "00:01", split="pairs", about="red star"),
        mark("when", "00:01", "00:02", split="pairs", about="red circle"),
        mark("count", "two", "one", split="pairs"),
        mark("when", "00:01", "00:02", split="backgrounds", about="red circle"),
    ]
    found = rows(exam(marks, marks), "Right answers by what is new")
    assert (found["pairs"]["questions"], found["pairs"]["right"]) == (1, 1.0)
    assert (found["backgrounds"]["questions"], found["backgrounds"]["right"]) == (1, 0.0)
    assert found["seeds"]["questions"] == 0
    by_both = rows(exam(marks, marks), "Right answers by kind and by what is new")
    assert by_both["when"]["pairs, questions"] == 1
    assert by_both["count"]["pairs, questions"] == 0


def test_the_other_tables_are_about_new_seeds_alone():
    other = mark("exist", "yes", "no", split="backgrounds", frames=1)
    with_other = exam([*SEEING, other], [*BLIND, other])
    for title in (
        "Right answers by kind",
        "Right answers by length of the clip",
        "What is not there",
    ):
        assert str(rows(with_other, title)) == str(rows(exam(SEEING, BLIND), title))


def test_a_row_of_lengths_holds_all_shorter_clips():
    found = rows(exam(SEEING, BLIND), "Right answers by length of the clip")
    assert [found[f"≤ {most}"]["questions"] for most in (1, 2, 4, 8)] == [2, 2, 3, 4]
    assert found["≤ 2"]["mean of kinds"] == 1.0


def test_false_answers_are_told_apart_by_what_is_absent():
    marks = [
        mark("absent", "no such thing", "top left"),
        mark("absent", "no such thing", "no such thing", clip=1),
        mark("absent", "no motion", "no motion", clip=2),
        mark("where", "top left", "no such thing", clip=2),
    ]
    found = rows(exam(marks, marks), "What is not there")
    assert found["false answers"]["found"] == pytest.approx(1 / 3)
    assert found["… where “no such thing” is right"]["found"] == 0.5
    assert found["… where “no motion” is right"]["found"] == 0
    assert found["… where “no change” is right"]["questions"] == 0
    assert found["false abstentions"]["found"] == 1


def test_the_cost_of_compression_is_counted_in_points_question_by_question():
    fine = [mark("exist", "yes", said, clip=c) for c, said in enumerate(["yes"] * 9 + ["no"])]
    coarse = [mark("exist", "yes", said, clip=c) for c, said in enumerate(["yes"] * 8 + ["no"] * 2)]
    found = rows(exam(fine=fine, coarse=coarse), "What H.264 at CRF 28 costs")
    assert found["CRF 12"]["found"] == 0.9
    assert found["CRF 28"]["found"] == 0.8
    assert found["cost in points"]["found"] == pytest.approx(10)
    assert found["cost in points"]["low"] <= 10 <= found["cost in points"]["high"]


def test_the_gates_come_last_with_a_verdict_each():
    speed = [Figure(ENCODED, 140.0, "frames/s"), Figure(FIRST_WORD, 20.0, "ms")]
    short = [mark("exist", "yes", "yes", clip=clip, frames=1) for clip in range(20)]
    long = [mark("exist", "yes", "no", clip=clip, frames=8) for clip in range(20, 40)]
    *_, last = tables(exam([*short, *long], speed=speed))
    assert last.title == "Gates"
    verdicts = {str(row[0]): row[-1] for row in last.rows}
    assert verdicts["clips of ≤ 2 frames, mean of kinds"] == "met"
    assert verdicts["clips of ≤ 8 frames, mean of kinds"] == "missed"
    assert verdicts["direction"] == "not measured"
    assert verdicts["when"] == "not measured"
    assert verdicts[ENCODED] == "missed"
    assert verdicts[FIRST_WORD] == "met"


def test_gates_on_a_handful_of_clips_are_neither_met_nor_missed():
    found = {gate.what: gate.verdict for gate in gates(exam(SEEING, BLIND, SEEING, SEEING))}
    for what in ("clips of ≤ 2 frames, mean of kinds", "clips of ≤ 8 frames, mean of kinds"):
        assert found[what] == "too few clips to say"
    assert found["cost of CRF 28, points"] == "too few clips to say"


def test_a_gate_counts_the_clips_of_its_own_kind_and_shows_its_interval():
    marks = [mark("exist", "yes", "yes", clip=clip) for clip in range(30)]
    marks += [mark("direction", "left", "left", clip=clip) for clip in range(9)]
    made = exam(marks)
    found = {gate.what: gate for gate in gates(made)}
    assert (found["direction"].number, found["direction"].verdict) == (9, "too few clips to say")
    assert rows(made, "Gates")["direction"]["low"] == found["direction"].interval.low < 1


def test_gates_on_what_should_be_rare_are_bounds_from_above():
    marks = [mark("absent", "no motion", "no motion", clip=clip) for clip in range(19)]
    marks.append(mark("absent", "no motion", "left", clip=19))
    found = {gate.what: gate for gate in gates(exam(marks))}["false answers, kind absent"]
    assert found.found == pytest.approx(0.05)
    assert found.verdict == "met"


def test_every_question_can_be_looked_up():
    (table,) = details(exam(SEEING, BLIND, fine=SEEING[:1], coarse=SEEING[:1]))
    found = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    assert [row["seen"] for row in found] == ["CRF 23"] * 4 + ["blind"] * 4 + ["CRF 12", "CRF 28"]
    assert (
        found[2] | {"kind": "exist", "expected": "no", "said": "yes", "right": "False"} == found[2]
    )
