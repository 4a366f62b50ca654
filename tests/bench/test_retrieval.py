"""Rankers on the same keys, what the tables say of them, and the command."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from typer.testing import CliRunner

from streamvlm.bench.planted import HARD
from streamvlm.bench.rankers.maxsim import MaxSim
from streamvlm.bench.rankers.mean import Mean
from streamvlm.bench.rankers.novelty import NovelTokens
from streamvlm.bench.rankers.xtr import Xtr
from streamvlm.bench.report import Conditions
from streamvlm.bench.retrieval import (
    CASES,
    EXACT,
    FRAMES,
    MEAN,
    NOVEL,
    PLANTED,
    TOKENS,
    XTR,
    Plan,
    Retrieval,
    Score,
    measure_retrieval,
)
from streamvlm.bench.retrieval_report import gates, order_as_planted, tables
from streamvlm.cli import app
from streamvlm.config import load
from streamvlm.errors import ConfigError

SMALL = replace(HARD, segments=400, cameras=4, questions=12)
MADE_UP = Plan(SMALL, films=0)
FEW = {EXACT: MaxSim(), MEAN: Mean(), XTR: Xtr(), NOVEL: NovelTokens()}


@dataclass(frozen=True)
class Shuffle:
    """Takes no heed of what is asked."""

    def __call__(self, segments):
        return Shuffled(len(segments))


class Shuffled:
    size = 1

    def __init__(self, count):
        self._random, self._count = np.random.default_rng(0), count

    def rank(self, queries):
        return self._random.permutation(self._count)


@pytest.fixture(scope="module")
def made_up():
    return measure_retrieval(load(), MADE_UP, contenders=FEW)


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def real(told):
    plan = Plan(replace(SMALL, segments=160, questions=4), 1, seconds=60, needles=3, seed=5)
    return measure_retrieval(load(), plan, contenders=FEW, progress=lambda *step: told.append(step))


def verdicts(found):
    return {gate.what: gate.verdict for gate in gates(found)}


def share(found, case, ranker, among=1):
    return np.mean(found.score(case, ranker).found(among))


def test_novel_tokens_beat_the_mean_and_keep_up_with_exact_maxsim(made_up):
    assert [(s.case, s.ranker) for s in made_up.scores] == [(c, r) for c in PLANTED for r in FEW]
    for case in PLANTED:
        assert share(made_up, case, NOVEL) > share(made_up, case, MEAN) + 0.3
        assert share(made_up, case, NOVEL, 5) >= share(made_up, case, EXACT, 5)
    found = verdicts(made_up)
    assert len(found) == 8
    assert "missed" not in found.values()


def test_a_ranker_that_shuffles_misses_the_gates():
    found = verdicts(measure_retrieval(load(), MADE_UP, contenders={**FEW, NOVEL: Shuffle()}))
    for case in PLANTED:
        assert found[f"{case}: R@1 of novel tokens less the mean's"] == "missed"
        assert found[f"{case}: their R@5 over exact MaxSim's"] == "missed"


def test_an_index_of_all_tokens_is_too_large(made_up):
    found = verdicts(measure_retrieval(load(), MADE_UP, contenders={**FEW, NOVEL: Xtr()}))
    assert found[f"{PLANTED[0]}: their index, bytes a segment"] == "missed"
    assert found[f"{PLANTED[0]}: bytes of all keys over their index"] == "missed"
    assert made_up.score(PLANTED[0], EXACT).bytes_each == 32 * 128 * 2


def test_the_same_seed_finds_the_same(made_up):
    again = measure_retrieval(load(), MADE_UP, contenders=FEW)
    assert [s.places for s in again.scores] == [s.places for s in made_up.scores]


def test_films_are_searched_by_frames_and_by_tokens_each_asked_in_two_ways(real):
    assert [score.case for score in real.scores] == [case for case in CASES for _ in FEW]
    assert all(len(s.places) == 3 for s in real.scores if s.case not in PLANTED)
    frames, tokens = (real.score(case, EXACT).bytes_all for case in (FRAMES, TOKENS))
    assert tokens == pytest.approx(36 * frames)
    assert real.score(FRAMES, EXACT).segments == -(-60 // 8)
    assert "siglip/demo" in real.conditions.model


def test_a_needle_is_found_among_the_records_of_a_minute(real):
    assert share(real, FRAMES, EXACT, 5) == share(real, TOKENS, EXACT, 5) == 1


def test_the_tables_of_real_films_can_be_written(real):
    found = tables(real)
    assert [table.title for table in found[:-2]] == [f"Finding: {case}" for case in CASES]
    for table in found:
        assert table.markdown()
        assert json.dumps(table.as_dict(), allow_nan=False)


def test_progress_is_told_up_to_the_end_of_each_part(real, told):
    last = {what: (done, total) for what, done, total in told}
    assert {"film 1, drawing", "film 1, watching", "planted, hard, ranking"} <= last.keys()
    assert all(done == total for done, total in last.values())


def test_more_needles_than_fit_are_refused_before_anything_is_made():
    with pytest.raises(ConfigError, match="needles"):
        measure_retrieval(load(), Plan(SMALL, films=1, needles=1000))


# What follows is made up, so that each figure can be counted by hand.


def scored(case, ranker, places, *, taken=100.0):
    return Score(case, ranker, tuple(places), 1.0, 50, taken, 8192.0)


def retrieval(*scores):
    conditions = Conditions("3f41693", 0, "none", "a machine", "versions")
    return Retrieval(conditions, MADE_UP, scores)


def test_recall_counts_the_first_right_segment():
    found = scored(FRAMES, EXACT, [0, 1, 4, 5, None])
    assert found.found(1) == [True, False, False, False, False]
    assert found.found(5) == [True, True, True, False, False]
    (row,) = tables(retrieval(found))[0].rows
    assert (row[0], row[1], row[4], row[7], row[8]) == (EXACT, 0.2, 0.6, 1.0, 100)


def test_gates_are_met_or_missed_by_their_bounds():
    def found(*, novel, taken):
        return verdicts(
            retrieval(
                scored(FRAMES, MEAN, [9] * 20),
                scored(FRAMES, EXACT, [0] * 19 + [None]),
                scored(FRAMES, NOVEL, novel, taken=taken),
            )
        )

    good = found(novel=[0] * 19 + [None], taken=150.0)
    assert set(good.values()) == {"met"}
    bad = found(novel=[0] * 1 + [9] * 19, taken=300.0)
    assert list(bad.values()) == ["missed"] * 4


def test_few_questions_are_too_few_to_say():
    names = (MEAN, EXACT, NOVEL)
    found = verdicts(retrieval(*(scored(FRAMES, name, [0] * 5) for name in names)))
    assert list(found.values()).count("too few questions to say") == 2


def test_the_order_of_the_rankers_is_compared_with_the_planted_one():
    def with_shares(case, **right):
        return [scored(case, name, [0] * n + [9] * (10 - n)) for name, n in right.items()]

    planted = with_shares(PLANTED[0], one=1, two=5, three=9)
    same = with_shares(FRAMES, one=2, two=3, three=4)
    other = with_shares(FRAMES, one=4, two=3, three=2)
    level = with_shares(FRAMES, one=4, two=4, three=4)
    assert order_as_planted(retrieval(*planted, *same), FRAMES) == pytest.approx(1)
    assert order_as_planted(retrieval(*planted, *other), FRAMES) == pytest.approx(-1)
    assert order_as_planted(retrieval(*planted, *level), FRAMES) is None


def test_the_note_says_from_the_figures_who_is_first_on_real_keys():
    found = retrieval(
        *(scored(PLANTED[0], name, [0, 0]) for name in (EXACT, MEAN)),
        scored(FRAMES, EXACT, [0, 0, 0, 9]),
        scored(FRAMES, MEAN, [9, 9, 9, 0]),
    )
    note = next(table.note for table in tables(found) if table.title.startswith("Does the order"))
    assert f"{FRAMES}: first {EXACT} (0.75), last {MEAN} (0.25); 1 of 2 are within" in note


def test_why_there_are_no_token_keys_is_said():
    found = retrieval(*(scored(FRAMES, name, [0, 0]) for name in (EXACT, MEAN)))
    note = tables(replace(found, left_out="the tower is of another kind"))[-2].note
    assert "There are no token keys: the tower is of another kind." in note


def test_only_of_few_segments_it_is_said_that_candidates_are_a_large_part():
    def note(case, segments):
        score = replace(scored(case, EXACT, [0, 0]), segments=segments)
        return tables(retrieval(score))[0].note

    assert "a large part" in note(FRAMES, 450)
    assert "a large part" not in note(FRAMES, 5000)
    assert "a large part" not in note(PLANTED[0], 450)


def test_the_command_measures_made_up_keys_alone(tmp_path):
    options = ["--segments", "200", "--questions", "4", "--films", "0", "--out", str(tmp_path)]
    ran = CliRunner().invoke(app, ["bench", "retrieval", *options, "--json"])
    assert ran.exit_code == 0, ran.output
    titles = [table["title"] for table in json.loads(ran.stdout)["tables"]]
    assert titles[:2] == [f"Finding: {case}" for case in PLANTED]
    assert {path.name for path in tmp_path.iterdir()} == {"retrieval.md", "retrieval.json"}
