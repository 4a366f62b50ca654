import json

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from streamvlm.bench.ranking import Trial
from streamvlm.bench.report import Conditions
from streamvlm.bench.still import Plan, entrants, measure_still
from streamvlm.bench.still_report import Watch
from streamvlm.cli import app
from streamvlm.config import load
from streamvlm.errors import BadOption, UnknownPlugin
from streamvlm.models.llava_onevision import LlavaOneVision
from streamvlm.plugins import names
from tests.bench.test_compress import installed
from tests.bench.test_ranking import trial

CHAIN = """
        if previous is None:
            return tokens.select(tokens.position[:, 0] < 1)
        return tokens.select(slice(None, 1))
"""
FUSSY = """
        if float(tokens.seconds[0]) > 4:
            raise BadOption("it takes only what comes early")
        return tokens
"""


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def read():
    """What the model read: for each time, how many tokens of how many records."""
    return []


@pytest.fixture(scope="module")
def found(told, read, tmp_path_factory):
    """Everything once, as small as it can be: with three guests."""
    plan = Plan(12, 2, 0.25, ("evs", "chain", "twin", "fussy"), frames=4, records=2)
    does = LlavaOneVision.answer_all

    def listen(model, queries, evidence):
        read.append([len(each.record.tokens) for each in evidence])
        return does(model, queries, evidence)

    with installed(tmp_path_factory.mktemp("guests")) as install, pytest.MonkeyPatch.context() as p:
        p.setattr(LlavaOneVision, "answer_all", listen)
        install("chain", CHAIN, option="chained = True")
        install("twin", CHAIN)
        install("fussy", FUSSY)
        return measure_still(load(), plan, lambda *step: told.append(step))


def by_name(found):
    return {trial.method.name: trial for trial in found.trials}


def test_all_tokens_of_all_clips_are_counted(found):
    trials = by_name(found)
    assert [sitting.dense for sitting in trials["uniform"].sittings] == [12 * 36] * 2
    assert [sitting.kept for sitting in trials["uniform"].sittings] == [12 * 36 / 4] * 2
    # One frame of the first clip, and one token of each of the two others.
    assert [sitting.kept for sitting in trials["chain"].sittings] == [36 + 1 + 1] * 2


def test_all_are_asked_the_same_about_every_film(found):
    asked = [(mark.clip, mark.kind, mark.expected) for mark in found.uniform.marks]
    assert {clip for clip, *_ in asked} == {0, 1}
    assert len(asked) > 8
    for other in (*found.trials, found.blind):
        assert [(mark.clip, mark.kind, mark.expected) for mark in other.marks] == asked


def test_who_builds_on_the_clip_before_says_so_and_is_read_with_it(found, read):
    # The twin does just the same, but a recall would not know it.
    assert found.chained == {"chain"}
    # Its record of the second clip or the third, with the one before; of others, one record.
    pairs = [sizes for sizes in read if len(sizes) > 1]
    assert pairs
    assert all(sizes in ([1, 36], [1, 1]) for sizes in pairs)
    assert "builds on that: chain." in found.tables()[0].note


def test_one_that_refuses_a_clip_is_left_out_and_the_others_go_on(found):
    assert by_name(found).keys() == {"random", "uniform", "evs", "chain", "twin"}
    assert "fussy is left out: it takes only what comes early" in found.skipped


def test_equal_evidence_is_read_once_and_blind_is_shown_none(found, read):
    # For each of four papers at most: random, uniform, evs, the twins, and nothing.
    assert len(read) <= 4 * 5
    assert read.count([]) == 4


def test_the_smallest_store_comes_first_and_blind_last(found):
    (stored, gates) = found.tables()
    assert stored.rows[0][0] == "chain"
    assert stored.rows[-1][0] == "blind"
    hours = {row[0]: row[2] for row in stored.rows}
    assert hours["uniform"] == 36 / 4 * 3600
    assert "Without a keep: chain, twin." in stored.note
    assert {row[-1] for row in gates.rows if row[0].startswith("pvc")} == {"not measured"}


def test_progress_is_told_of_every_part_of_every_film(told):
    parts = {what for what, *_ in told}
    assert parts == {
        f"film {n}, {part}" for n in (1, 2) for part in ("drawing", "watching", "questions")
    }
    assert [done for what, done, _ in told if what == "film 2, watching"] == [1, 2, 3]


def test_who_needs_the_question_or_a_cue_that_is_not_there_is_left_out():
    found, skipped = entrants(Plan(), frozenset())
    assert {each.method.name for each in found} >= {"random", "uniform", "evs"}
    assert [s for s in skipped if s.startswith("fastvid is left out: it needs the cue attention")]
    if "mmtok" in names("compressors"):
        assert [s for s in skipped if s.startswith("mmtok") and "question" in s]


@pytest.mark.parametrize(
    "options",
    [{"films": 1}, {"frames": 0}, {"keep": 0.0}, {"seconds": 256, "records": 3}, {"records": 0}],
)
def test_a_plan_that_shows_nothing_is_refused(options):
    with pytest.raises(BadOption):
        Plan(**options)


def test_an_unknown_compressor_is_answered_with_the_nearest():
    with pytest.raises(UnknownPlugin, match="did you mean 'fastvid'"):
        entrants(Plan(compressors=("fastvit",)), frozenset())


# What follows is made up, so that each figure can be counted by hand.

CONDITIONS = Conditions("3f41693", 1, "a/model", "a machine", "versions")
RIGHT = np.random.default_rng(0).random((12, 10)) < 0.7


def watch(*trials: Trial) -> Watch:
    blind = trial("blind", ~RIGHT, keep=None, kept=0)
    return Watch(CONDITIONS, 3600, 128, 288, trials, blind, frozenset())


def stores(name, right, kept):
    return trial(name, right, kept=kept, dense=1000)


def verdicts(made):
    return {gate.what: gate.verdict for gate in made.gates()}


def test_ten_times_fewer_at_equal_accuracy_is_what_was_promised():
    better = RIGHT.copy()
    better[:2] = True
    made = watch(
        stores("uniform", RIGHT, 100), stores("pvc", better, 10), stores("nested", RIGHT, 11)
    )
    found = verdicts(made)
    assert found["pvc: times fewer tokens than uniform"] == "met"
    assert found["nested: times fewer tokens than uniform"] == "missed"
    for name in ("pvc", "nested"):
        assert found[f"{name}: upper end of its accuracy less that of uniform"] == "met"


def test_fewer_tokens_for_wrong_answers_are_no_bargain():
    worse = RIGHT.copy()
    worse[:, :3] = False
    found = verdicts(watch(stores("uniform", RIGHT, 100), stores("pvc", worse, 1)))
    assert found["pvc: upper end of its accuracy less that of uniform"] == "missed"


def test_what_stores_less_than_half_of_what_it_was_asked_for_is_held_to_the_promise_too():
    made = watch(
        stores("uniform", RIGHT, 100),
        stores("random", RIGHT, 10),
        stores("holitom", RIGHT, 49),
        stores("evs", RIGHT, 50),
    )
    held = {what.partition(":")[0] for what in verdicts(made)}
    assert held == {"nested", "pvc", "holitom"}


def test_the_command_measures_the_usual_plan_unless_told_otherwise():
    command = get_command(app).commands["bench"].commands["still"]
    usual = {option.name: option.default for option in command.params}
    asked = {name: usual[name] for name in ("films", "keep", "frames", "seed")}
    assert Plan(round(3600 * usual["hours"]), **asked) == Plan()


def test_the_command_writes_what_it_prints(tmp_path):
    words = ["--hours", ".01", "--frames", "12", "--films", "2", "--compressors", "evs", "--json"]
    ran = CliRunner().invoke(app, ["bench", "still", *words, "--out", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    printed = json.loads(ran.stdout)
    assert {row["compressor"] for row in printed["tables"][0]["rows"]} == {
        *("random", "uniform", "evs", "blind")
    }
    assert json.loads((tmp_path / "still.json").read_text()) == printed
