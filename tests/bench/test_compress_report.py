"""Comparisons that were made up, so that each figure can be counted by hand."""

import numpy as np

from scripts.measure_demo import SEED, closer_plan
from streamvlm.bench.compress_report import Compression
from streamvlm.bench.ranking import Ranking, Trial
from streamvlm.bench.report import Conditions
from tests.bench.test_ranking import trial

CONDITIONS = Conditions("3f41693", 1, "a/model", "a machine", "versions")
CLIPS, QUESTIONS = 24, 10


def right(share: float) -> np.ndarray:
    return np.random.default_rng(0).random((CLIPS, QUESTIONS)) < share


def compared(*trials: Trial) -> Compression:
    ceiling, floor = trial("all tokens", right(0.9), keep=None), trial("blind", right(0.1), kept=0)
    return Compression(CONDITIONS, Ranking(trials), ceiling, floor)


def test_what_keeps_plainly_less_than_it_was_asked_for_is_named_with_its_share():
    made = compared(
        trial("random", right(0.4), kept=4),
        trial("evs", right(0.5), kept=4),
        trial("pool", right(0.3), kept=2),
    )
    note = made.tables()[0].note
    assert "plainly less than was asked for: pool at keep 0.1 (0.056)" in note
    assert "evs at keep" not in note


def test_where_all_keep_what_was_asked_for_nothing_is_said_of_less():
    made = compared(trial("random", right(0.4), kept=4), trial("evs", right(0.5), kept=4))
    assert "plainly less" not in made.tables()[0].note


def test_the_gate_says_on_how_many_clips_it_rests():
    made = compared(trial("random", right(0.3)), trial("evs", right(0.9)))
    (gate,) = made.gates()
    assert gate.what.endswith("in standard errors, 24 clips")
    assert (gate.number, gate.verdict) == (24, "met")


def test_of_a_handful_of_clips_the_gate_says_nothing():
    few = [trial(name, right(share)[:9]) for name, share in (("random", 0.3), ("evs", 0.9))]
    made = Compression(CONDITIONS, Ranking(tuple(few)), few[1], few[0])
    assert made.gates()[0].verdict == "too few clips to say"


def test_the_best_two_are_measured_again_on_other_clips_at_the_budget_of_the_gate():
    shares = {"random": 0.9, "uniform": 0.8, "evs": 0.2, "pool": 0.6, "fastvid": 0.4}
    plan = closer_plan(compared(*(trial(name, right(share)) for name, share in shares.items())))
    assert plan.compressors == ("pool", "fastvid")
    assert plan.keeps == (0.1,)
    assert plan.seed != SEED


def many(count: int) -> Compression:
    others = [trial(f"method{number:02d}", right(0.9 - number / 50)) for number in range(count)]
    return compared(trial("random", right(0.2)), trial("uniform", right(0.3)), *others)


def test_of_many_compressors_the_best_six_are_coloured_and_the_rest_named_together():
    svg = many(20).picture().svg.decode()
    assert all(f">method{number:02d}<" in svg for number in range(6))
    assert ">method06<" not in svg
    assert ">14 others<" in svg
    assert "the 6 most often right over all budgets below 1, grey: the 14 others" in svg


def test_of_as_many_as_can_be_told_apart_all_are_coloured():
    svg = many(8).picture().svg.decode()
    assert all(f">method{number:02d}<" in svg for number in range(8))
    assert "others" not in svg
