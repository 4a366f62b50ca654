import json
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from streamvlm.bench import race
from streamvlm.bench.features import video_like
from streamvlm.bench.race import SLOW, Plan, measure_race, peak_bytes, references
from streamvlm.bench.race_report import CAUSAL, SPEEDUPS, Duel, Lap, Race
from streamvlm.bench.report import Conditions
from streamvlm.cli import app
from streamvlm.compressors.uniform import Uniform
from streamvlm.errors import BadOption, UnknownPlugin
from streamvlm.plugins import names

SMALL = Plan(8, 0.25, ("uniform", "evs", "fastvid"), rounds=2, side=4, width=16)


@pytest.fixture(scope="module")
def found():
    return measure_race(SMALL)


def test_each_is_timed_in_every_round_over_the_whole_distance(found):
    assert [lap.name for lap in found.laps] == ["uniform", "evs", "fastvid"]
    for lap in found.laps:
        assert (lap.frames, lap.dense, lap.kept) == (8, 8 * 16, 32)
        assert len(lap.seconds) == 2
        assert all(seconds > 0 for seconds in lap.seconds)
        assert lap.peak > 0


def test_a_published_form_is_raced_on_the_same_clip(found):
    (duel,) = found.duels
    assert (duel.name, duel.frames, duel.kept) == ("fastvid", 8, 32)
    assert len(duel.seconds) == len(duel.their_seconds) == 2
    assert duel.their_kept > 0
    # Over the same distance, ours is not timed twice.
    assert duel.seconds == found.laps[-1].seconds


def test_every_published_form_there_is_is_found_by_itself():
    assert "fastvid" in references()
    assert all(callable(compress) for compress in references().values())
    assert references().keys() <= set(names("compressors"))


def test_a_slow_published_form_is_compared_at_fewer_frames_unless_all_are_asked_for(monkeypatch):
    monkeypatch.setitem(SLOW, "fastvid", 8)
    plan = replace(SMALL, frames=10, compressors=("fastvid",), rounds=1)
    short, full = (measure_race(replace(plan, full=full)) for full in (False, True))
    assert [duel.frames for duel in (*short.duels, *full.duels)] == [8, 10]
    assert [lap.frames for lap in (*short.laps, *full.laps)] == [10, 10]
    assert (
        "both are compared on fewer, where its lead is smaller; --full measures"
        in short.tables()[1].note
    )
    assert "--full" not in full.tables()[1].note


def test_a_published_form_that_cannot_take_the_clip_is_named_and_ours_still_runs():
    found = measure_race(replace(SMALL, frames=2, compressors=("fastvid",), rounds=1))
    assert [lap.name for lap in found.laps] == ["fastvid"]
    assert not found.duels
    assert found.skipped[0].startswith("the published fastvid cannot run here: ")


def test_a_method_that_takes_very_long_is_not_timed_again(monkeypatch):
    monkeypatch.setattr(race, "_ENOUGH", 0.0)
    found = measure_race(replace(SMALL, compressors=("evs",), rounds=5))
    (lap,) = found.laps
    assert len(lap.seconds) == 1
    assert (lap.peak, lap.growth) == (None, None)
    assert [row[4:6] for row in found.tables()[0].rows] == [(None, None)]
    assert found.gates()[-1].verdict == "not measured"


def test_memory_is_what_was_held_at_once():
    tokens = video_like(4, 4, 64)

    def one_table(tokens, previous=None):
        (tokens.features * 2).sum()
        return Uniform(keep=0.5)(tokens)

    def two_tables(tokens, previous=None):
        one, two = tokens.features * 2, tokens.features * 3
        (one + two).sum()
        return Uniform(keep=0.5)(tokens)

    size = tokens.features.nbytes
    assert size <= peak_bytes(one_table, tokens) < 1.5 * size
    assert 3 * size <= peak_bytes(two_tables, tokens) < 3.5 * size


def test_progress_is_told_from_nothing_to_all():
    told = []
    measure_race(
        replace(SMALL, compressors=("evs", "pool"), rounds=1), lambda *step: told.append(step)
    )
    assert told == [("race", 0, 2), ("race", 1, 2), ("race", 2, 2)]


@pytest.mark.parametrize("options", [{"frames": 1}, {"rounds": 0}, {"keep": 0.0}, {"keep": 1.5}])
def test_a_race_that_shows_nothing_is_refused(options):
    with pytest.raises(BadOption):
        Plan(**options)


def test_an_unknown_compressor_is_answered_with_the_nearest():
    with pytest.raises(UnknownPlugin, match="did you mean 'fastvid'"):
        measure_race(Plan(compressors=("fastvit",)))


# What follows is made up, so that each figure can be counted by hand.

CONDITIONS = Conditions("3f41693", 0, "none", "a machine", "versions")


def lap(name, seconds, *, growth=4.0, frames=128):
    return Lap(name, frames, 25088, 2509, seconds, 2**20, growth)


def race_of(laps=(), duels=(), chosen=()):
    return Race(CONDITIONS, "T=128", tuple(chosen), tuple(laps), tuple(duels))


def verdicts(race):
    return {gate.what: gate.verdict for gate in race.gates()}


def test_the_time_of_a_frame_is_the_median_of_the_rounds():
    assert lap("evs", (0.9, 0.128, 0.1)).milliseconds == pytest.approx(1.0)


def test_the_ratio_is_that_of_the_medians():
    assert Duel("fastvid", 8, 1, (1.0, 2.0, 9.0), 1, (6.0, 1.0, 8.0)).ratio == pytest.approx(3.0)


def test_what_was_promised_and_not_measured_is_said():
    found = verdicts(race_of())
    assert len(found) == len(SPEEDUPS) + len(CAUSAL) + 1
    assert set(found.values()) == {"not measured"}


def test_gates_are_met_or_missed_by_their_bounds():
    duels = [
        Duel("holitom", 128, 1, (1.0,), 1, (4.0,)),
        Duel("divprune", 128, 1, (1.0,), 1, (19.0,)),
    ]
    laps = [lap("evs", (0.192,)), lap("stc", (0.193,), growth=4.6)]
    found = verdicts(race_of(laps, duels))
    assert found["holitom: times as fast as published, T = 128"] == "met"
    assert found["divprune: times as fast as published, T = 128"] == "missed"
    assert found["evs: CPU ms a frame"] == "met"
    assert found["stc: CPU ms a frame"] == "missed"
    assert found["most memory for four times the frames, in times (stc)"] == "missed"


@pytest.mark.parametrize(
    ("ratio", "frames", "verdict"), [(19.0, 128, "not measured"), (21.0, 64, "met")]
)
def test_on_fewer_frames_a_lead_can_be_shown_but_not_be_missed(ratio, frames, verdict):
    duel = Duel("divprune", 64, 1, (1.0,), 1, (ratio,))
    found = verdicts(race_of([lap("divprune", (1.0,))], [duel]))
    assert found[f"divprune: times as fast as published, T = {frames}"] == verdict


def test_of_what_was_not_asked_for_no_gate_speaks():
    what = [gate.what for gate in race_of([lap("evs", (0.1,))], chosen=("evs",)).gates()]
    assert what == [
        "evs: CPU ms a frame",
        "most memory for four times the frames, in times (evs)",
    ]


def test_the_fastest_comes_first_and_who_sees_the_question_is_named():
    asked = replace(lap("mmtok", (0.05,)), sees_question=True)
    times, *_ = race_of([lap("evs", (0.2,)), asked, lap("stc", (0.1,))]).tables()
    assert [row[0] for row in times.rows] == ["mmtok", "stc", "evs"]
    assert "Run when a question is asked, and not at ingest: mmtok." in times.note


def test_the_command_writes_what_it_prints(tmp_path):
    words = ["--frames", "2", "--compressors", "uniform, evs", "--rounds", "1", "--json"]
    ran = CliRunner().invoke(app, ["bench", "race", *words, "--out", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    printed = json.loads(ran.stdout)
    assert {row["compressor"] for row in printed["tables"][0]["rows"]} == {"uniform", "evs"}
    assert json.loads((tmp_path / "race.json").read_text()) == printed
    assert "CPU time and memory" in (tmp_path / "race.md").read_text()


def test_the_command_explains_itself_and_refuses_what_cannot_be_measured():
    said = CliRunner().invoke(app, ["bench", "race", "--help"]).stdout
    assert "Examples" in said
    assert "streamvlm bench race" in said
    assert "minutes on 2 cores" in " ".join(said.split())
    assert CliRunner().invoke(app, ["bench", "race", "--keep", "2"]).exit_code == 2
