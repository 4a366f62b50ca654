"""A camera's day under a cap: a tiny one for real, and made-up ones to count by hand."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from typer.main import get_command
from typer.testing import CliRunner

from streamvlm.bench.live import CAPS, Plan, measure_live
from streamvlm.bench.live_gauge import Gauge, Sample, taken
from streamvlm.bench.live_report import Day, Found
from streamvlm.bench.report import Conditions
from streamvlm.bench.world.needles import NEEDLE_SECONDS, plan_needles
from streamvlm.cli import app
from streamvlm.config import load
from streamvlm.errors import BadOption
from streamvlm.memory.store import Caps

SECONDS = 480
SMALL = Caps(max_bytes=9_000_000, max_records=50, max_files=64)


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def day(told):
    """Sixty records of 200 KB in 9 MB."""
    plan = Plan(SECONDS, SMALL, needles=4, sample_seconds=60, warm_seconds=100)
    return measure_live(load(overrides=["memory.payload=raw"]), plan, lambda *s: told.append(s))


@pytest.mark.slow
def test_a_day_that_is_larger_than_its_cap_is_kept_under_it(day):
    assert day.sizes.sum() > 1.4 * SMALL.max_bytes
    assert 0 < day.gauge.disk <= SMALL.max_bytes
    assert day.gauge.samples[-1].tiers[0] < day.gauge.samples[-1].records <= 50
    met = [gate.verdict for gate in day.gates() if "share of the cap" in gate.what]
    assert met == ["met"] * 3


@pytest.mark.slow
def test_what_the_day_showed_is_found_though_a_window_has_forgotten_it(day):
    assert [find.rank is not None for find in day.finds] == [True] * 4
    assert all(find.holders for find in day.finds)
    assert day.finds[0].needle.span[0] < day.window < SECONDS
    assert day.finds[-1].tier == 0
    assert day.finds[-1].has_tokens


@pytest.mark.slow
def test_the_process_is_looked_at_all_day(day, told):
    assert [sample.seconds for sample in day.gauge.samples] == list(range(60, 481, 60))
    assert all(sample.resident > 10_000_000 for sample in day.gauge.samples)
    assert math.isfinite(day.growth(100))
    assert len(day.appends) == SECONDS / 8
    assert told[-1] == ("watching", SECONDS, SECONDS)


@pytest.mark.slow
def test_every_table_has_its_rows(day):
    course, figures, needles, gates = day.tables()
    assert len(course.rows) == 8
    assert {row[0] for row in figures.rows} >= {"append, p99 ms", "most on disk, MB"}
    assert [row[1] for row in needles.rows] == [4]
    assert len(gates.rows) == 6


def test_a_third_of_the_needles_is_in_the_first_hour_and_the_others_all_over_the_day():
    plan = Plan()
    assert plan.stretches == (
        *((0, 3600), (3600, 21600), (21600, 43200)),
        *((43200, 64800), (64800, 86400)),
    )
    starts = [plan.seconds - age for age in plan.ages()]
    assert starts == sorted(starts)
    assert [sum(a <= s < b for s in starts) for a, b in plan.stretches] == [10, 5, 5, 5, 5]


@pytest.mark.parametrize("hours", [0.1, 0.5, 2, 7, 30])
def test_a_day_may_be_of_any_length(hours):
    plan = Plan(round(3600 * hours), needles=12)
    starts = [plan.seconds - age for age in plan.ages()]
    assert min(np.diff(starts)) >= NEEDLE_SECONDS
    assert starts[-1] <= plan.seconds - NEEDLE_SECONDS
    counts = [sum(a <= start < b for start in starts) for a, b in plan.stretches]
    assert sum(counts) == 12
    assert min(counts) > 0


@pytest.mark.parametrize("options", [{"seconds": 30}, {"sample_seconds": 0}, {"needles": 3}])
def test_a_plan_that_shows_nothing_is_refused(options):
    with pytest.raises(BadOption):
        Plan(**options)


def test_more_needles_than_a_minute_holds_are_refused():
    with pytest.raises(BadOption, match="plan a longer day"):
        Plan(60, needles=30).ages()


def test_a_folder_is_taken_with_all_that_is_in_it(tmp_path):
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "one.svm").write_bytes(bytes(100))
    (tmp_path / "catalog.db").write_bytes(bytes(20))
    assert taken(tmp_path) == (120, 2, 1)


# What follows is made up, so that each figure can be counted by hand.

CONDITIONS = Conditions("3f41693", 1, "a/model", "a machine", "versions")
HOUR = 3600
NEEDLES = 24


def made(tmp_path, *, growth=0.0, disk=80, rank=0):
    """Four hours with a record each, twice as many as there is room for."""
    samples = [
        Sample(HOUR * n, round(1e6 * (400 + (n - 1) * growth)), disk, 9, 5, (1, 2, 3, 4), 0.01)
        for n in range(1, 5)
    ]
    gauge = Gauge(tmp_path, disk, shards=5, records=10, samples=samples)
    _, (needle,) = plan_needles(1, 60, 1)
    find = Found(needle, records=10, holders=1, rank=rank, tier=3, span=60.0, has_tokens=False)
    spans = [(start, start + NEEDLE_SECONDS) for start in range(0, 4 * HOUR, 4 * HOUR // NEEDLES)]
    return Day(
        conditions=CONDITIONS,
        seconds=4 * HOUR,
        caps=Caps(max_bytes=8 << 20, max_records=16, max_files=8),
        warm_seconds=HOUR,
        stretches=((0, HOUR), (HOUR, 4 * HOUR)),
        took=60.0,
        stages={"encode": 30_000.0},
        appends=np.array([0.01, 0.02, 0.03, 0.04]),
        sizes=np.full(4, float(4 << 20)),
        starts=HOUR * np.arange(4.0),
        gauge=gauge,
        finds=tuple(replace(find, needle=replace(needle, span=span)) for span in spans),
    )


def verdicts(day):
    return {gate.what: gate.verdict for gate in day.gates()}


def test_a_process_that_grows_misses_its_gate(tmp_path):
    what = "growth of the process, MB/h"
    assert made(tmp_path, growth=2).growth(HOUR) == pytest.approx(2)
    assert verdicts(made(tmp_path, growth=2))[what] == "missed"
    assert verdicts(made(tmp_path, growth=0.9))[what] == "met"
    assert verdicts(replace(made(tmp_path), warm_seconds=3 * HOUR))[what] == "not measured"


def test_a_folder_above_its_cap_misses_its_gate(tmp_path):
    what = "most bytes on disk, share of the cap"
    assert verdicts(made(tmp_path, disk=(8 << 20) + 1))[what] == "missed"
    assert verdicts(made(tmp_path, disk=8 << 20))[what] == "met"
    assert what not in verdicts(replace(made(tmp_path), caps=Caps()))


def test_few_needles_of_the_first_hour_say_nothing_of_it(tmp_path):
    what = "needles of the first hour, recall@5"
    day = made(tmp_path)
    assert len(day.of((0, HOUR))) == 6
    assert verdicts(day)[what] == "too few needles to say"
    assert verdicts(replace(day, stretches=((0, 4 * HOUR),)))[what] == "met"
    assert (
        verdicts(replace(made(tmp_path, rank=None), stretches=((0, 4 * HOUR),)))[what] == "missed"
    )


def test_a_window_holds_the_newest_that_fits(tmp_path):
    # Two of four MiB in eight.
    assert made(tmp_path).window == 2 * HOUR
    rows = made(tmp_path).tables()[2].rows
    assert rows[0][7] == 0
    assert 0 < rows[1][7] < 1
    assert replace(made(tmp_path), caps=Caps()).window == 0


def test_the_chance_of_luck_is_that_of_drawing_five_records(tmp_path):
    assert made(tmp_path).tables()[2].rows[0][6] == pytest.approx(0.5)


def test_the_command_measures_the_usual_plan_unless_told_otherwise():
    command = get_command(app).commands["bench"].commands["live"]
    usual = {option.name: option.default for option in command.params}
    caps = replace(CAPS, max_bytes=round(1e6 * usual["cap_mb"]))
    plan = Plan(round(3600 * usual["hours"]), caps, usual["needles"], seed=usual["seed"])
    assert plan == Plan()


@pytest.mark.slow
def test_the_command_writes_what_it_prints(tmp_path):
    words = ["--hours", ".02", "--cap-mb", "9", "--needles", "2", "--json"]
    ran = CliRunner().invoke(app, ["bench", "live", *words, "--out", str(tmp_path)])
    assert ran.exit_code == 0, ran.output
    printed = json.loads(ran.stdout)
    assert [table["title"] for table in printed["tables"]][-1] == "Gates"
    assert json.loads((tmp_path / "live.json").read_text()) == printed
