"""Tables of hunts that were made up, so that each figure can be counted by hand."""

import math

import numpy as np
import pytest

from streamvlm.bench.exam import Mark
from streamvlm.bench.haystack import BLIND, FEW, MEMORY, ORACLE, WAYS, Find, Reply
from streamvlm.bench.needle import Hunt, Plan
from streamvlm.bench.needle_tables import details, gates, recall, recall_by_chance, right, tables
from streamvlm.bench.report import Conditions
from streamvlm.bench.world import Thing
from streamvlm.bench.world.needles import Needle
from streamvlm.bench.world.questions import Question
from streamvlm.recall import Limits

CONDITIONS = Conditions("3f41693", 1, "a/model", "a machine", "versions")
RED = Thing("red", "square", 0.15, 0.2, 0.2, None, 0.0, 10, 13)


def reply(kind: str, *, correct: bool, sees: bool, tokens: int) -> Reply:
    said = "top left" if correct else "right"
    mark = Mark(0, "seeds", kind, 3600, RED.name, "top left", said, correct, 5.0)
    return Reply(mark, tokens, sees)


def find(rank=0, *, right=(), sees=(MEMORY, ORACLE), age=100, kind="where", holders=1) -> Find:
    question = Question(kind, "Where is the red square?", "top left", RED.name)
    return Find(
        film=0,
        needle=Needle(RED, question, (10, 13), age),
        records=450,
        holders=holders,
        rank=rank,
        instead="" if rank == 0 else "its colour on another shape",
        replies={
            way: reply(
                kind, correct=way in right, sees=way in sees, tokens=0 if way == BLIND else 100
            )
            for way in WAYS
        },
    )


def hunt(*finds: Find) -> Hunt:
    return Hunt(CONDITIONS, Plan(needles=len(finds), films=1), Limits(1, 288), 16.0, finds)


def rows(made: Hunt, title: str) -> dict[str, dict]:
    (table,) = [table for table in tables(made) if table.title == title]
    return {str(row[0]): dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_recall_counts_needles_of_which_a_holder_is_among_the_first():
    finds = [find(0), find(4), find(5), find(None)]
    assert [recall(finds, among).mean for among in (1, 5, 20)] == [0.25, 0.5, 0.75]


def test_chance_is_what_drawing_records_at_random_finds():
    finds = [find(holders=2)]
    random = np.random.default_rng(0)
    drawn = [(random.permutation(450)[:20] < 2).any() for _ in range(4000)]
    assert recall_by_chance(finds, 20) == pytest.approx(np.mean(drawn), abs=0.02)


def test_chance_is_one_where_all_records_are_looked_at_and_none_where_nothing_is_held():
    assert recall_by_chance([find(holders=1)], 450) == 1
    assert recall_by_chance([find(holders=1)], 1000) == 1
    assert recall_by_chance([find(holders=0)], 20) == 0


def test_the_retrieval_table_says_what_chance_would_be():
    found = rows(hunt(find(0), find(None)), "Finding the needle's record")
    assert found["recall@1"]["found"] == 0.5
    assert found["recall@5"]["chance"] == pytest.approx(5 / 450)
    assert found["recall@1"]["low"] <= 0.5 <= found["recall@1"]["high"]


def test_each_needle_is_in_the_row_of_its_age_even_the_oldest():
    found = rows(
        hunt(find(0, age=10), find(None, age=900), find(0, age=3599), find(2, age=3600)),
        "By age of the needle",
    )
    assert [row["needles"] for row in found.values()] == [1, 1, 0, 2]
    assert found["0–15"]["@1"] == 1
    assert found["15–30"]["@20"] == 0
    assert found["45–60"]["@1"] == 0.5
    assert found["45–60"]["@5"] == 1


def test_every_way_is_set_against_uniform_sampling_of_sixteen_frames():
    made = hunt(find(right=(MEMORY, FEW)), find(right=(MEMORY,)), find(right=()))
    found = rows(made, "Right answers by what is read")
    assert found[MEMORY]["right"] == pytest.approx(2 / 3)
    assert found[MEMORY]["more"] == pytest.approx(1 / 3)
    assert found[FEW]["more"] is None
    assert found["chance"]["right"] == pytest.approx(1 / 9)
    assert found["majority"]["right"] == 1


def test_the_time_of_an_event_is_guessed_from_all_seconds_of_the_film():
    found = rows(hunt(find(kind="when")), "Right answers by kind of question")
    assert found["chance"]["when"] == pytest.approx(1 / 3600)


def test_kinds_are_counted_apart():
    made = hunt(find(right=(MEMORY,), kind="when"), find(kind="where"), find(kind="where"))
    found = rows(made, "Right answers by kind of question")
    assert [found["questions"][kind] for kind in ("when", "where", "direction")] == [1, 2, 0]
    assert (found[MEMORY]["when"], found[MEMORY]["where"]) == (1, 0)
    assert math.isnan(found[MEMORY]["direction"])


def test_what_is_read_says_how_often_the_needle_is_among_it():
    found = rows(hunt(find(), find(sees=(ORACLE,))), "What is read")
    assert found[MEMORY]["holds it"] == 0.5
    assert found[ORACLE]["holds it"] == 1
    assert (found[MEMORY]["tokens"], found[BLIND]["tokens"]) == (100, 0)


def test_the_budget_and_the_window_are_said():
    notes = " ".join(table.note for table in tables(hunt(find())))
    assert "max_records 1, max_tokens 288" in notes
    assert "16 s of film" in notes


def test_each_needle_is_lost_in_one_place_only():
    made = hunt(
        find(right=(MEMORY, ORACLE)),
        find(right=(ORACLE,)),
        find(),
        find(sees=(ORACLE,)),
        find(right=(MEMORY,), sees=(ORACLE,)),
        find(holders=0),
    )
    found = rows(made, "What became of the needles")
    assert [row["needles"] for row in found.values()] == [1] * 6
    assert sum(row["share"] for row in found.values()) == pytest.approx(1)


def test_what_is_found_first_instead_is_counted_where_it_is_not_the_needle():
    found = rows(hunt(find(0), find(3), find(None)), "Found first instead")
    assert found["its colour on another shape"]["needles"] == 2


def test_the_gates_are_met_by_a_good_hunt_and_missed_by_a_bad_one():
    good = gates(hunt(*[find(right=(MEMORY,))] * 10))
    assert [gate.verdict for gate in good] == ["met", "met", "met"]
    bad = gates(hunt(*[find(None, right=(MEMORY, FEW)), *[find(None)] * 9]))
    assert [gate.verdict for gate in bad] == ["missed", "missed", "missed"]


def test_being_right_by_luck_alone_is_not_three_times_better_than_nothing():
    lucky = gates(hunt(find(right=(MEMORY,)), *[find()] * 9))[-1]
    assert lucky.verdict == "missed"


def test_a_few_needles_say_nothing():
    found = gates(hunt(*[find(right=(MEMORY,))] * 9))
    assert {gate.verdict for gate in found} == {"too few needles to say"}
    wide = gates(hunt(*[find(right=(MEMORY,)), find(right=(MEMORY,)), find()] * 5))[1]
    assert wide.verdict == "too few needles to say"


def test_the_conditions_say_that_needles_lie_in_easier_scenes():
    assert "easier than the hay" in tables(hunt(find()))[0].note


def test_right_answers_come_with_an_interval_over_needles():
    found = right([find(right=(MEMORY,)), find(), find(), find()], MEMORY)
    assert found.mean == 0.25
    assert 0 <= found.low < 0.25 < found.high <= 1


def test_the_details_have_a_row_for_each_needle_and_count_places_from_one():
    (table,) = details(hunt(find(0), find(None)))
    place = table.columns.index("place")
    assert [row[place] for row in table.rows] == [1, None]
