"""`streamvlm bench` as people and scripts use it."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from streamvlm.bench.qa_tables import tables
from streamvlm.bench.report import Conditions, Table
from streamvlm.bench.world.needles import MOST_NEEDLES
from streamvlm.cli import app, bench_needle, bench_show, show
from tests.bench.test_qa_tables import BLIND, SEEING, exam

COMMANDS = ("speed", "qa", "compress", "still", "needle")


def run(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)


def test_bench_alone_lists_what_can_be_measured():
    said = run("bench").output
    assert all(command in said for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_measurement_explains_itself_with_examples(command):
    ran = run("bench", command, "--help")
    assert ran.exit_code == 0
    assert "Examples" in ran.stdout
    assert f"streamvlm bench {command}" in ran.stdout
    for option in ("--config", "--json", "--out"):
        assert option in ran.stdout


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("qa")
    return run("bench", "qa", "--clips", "4", "--seed", "5", "--json", "--out", folder), folder


def test_qa_prints_one_json_object_with_its_conditions(measured):
    ran, _ = measured
    assert ran.exit_code == 0
    (line,) = ran.stdout.splitlines()
    found = json.loads(line)
    assert found["conditions"]["seed"] == 5
    assert {"commit", "model", "hardware"} <= found["conditions"].keys()
    by_kind = found["tables"][0]["rows"]
    assert {"kind", "questions", "right", "low", "high", "chance", "majority", "blind"} <= (
        by_kind[0].keys()
    )
    (gates,) = [table["rows"] for table in found["tables"] if table["title"] == "Gates"]
    verdicts = {row["verdict"] for row in gates}
    assert verdicts <= {"met", "missed", "not measured", "too few clips to say"}
    assert "too few clips to say" in verdicts


def test_out_writes_what_was_printed(measured):
    ran, folder = measured
    printed = json.loads(ran.stdout)["tables"]
    written = [
        table
        for name in ("qa", "qa-details")
        for table in json.loads((folder / f"{name}.json").read_text())["tables"]
    ]
    assert written == printed
    assert "Right answers by kind" in (folder / "qa.md").read_text()
    assert f"written: {folder / 'qa.md'}" in ran.stderr


def test_wrong_sizes_and_configurations_are_exit_code_2():
    assert run("bench", "qa", "--clips", "0").exit_code == 2
    ran = run("bench", "qa", "--config", "defalt")
    assert ran.exit_code == 2
    assert "did you mean 'default'" in ran.stderr


CONDITIONS = Conditions("3f41693", 1, "a/model", "a machine", "versions")


def test_a_table_is_never_cut_however_narrow_the_terminal(capsys):
    columns = tuple(f"a rather long column{index}" for index in range(12))
    table = Table("A title", columns, ((0.123,) * 12,), note="How to read it.")
    bench_show.measured(CONDITIONS, [table], as_json=False)
    said = capsys.readouterr().out
    assert all(word in said for column in columns for word in column.split())
    assert said.count("0.123") == 12
    assert "commit 3f41693 · seed 1 · model a/model" in said
    assert "…" not in said


def test_every_table_fits_into_a_hundred_columns(capsys):
    pairs = ", ".join(f"compressor{one} & compressor{one + 1}" for one in range(20))
    row = (0.05, "fastvid", 0.1, 4.5, 12, 28, pairs)
    columns = ("keep", "best", "− random", "in standard errors", "separable", "pairs")
    wide = Table("Which pairs can be told apart", (*columns, "not separable"), (row,))
    for table in [*tables(exam(SEEING, BLIND, SEEING, SEEING)), wide]:
        bench_show.measured(CONDITIONS, [replace(table, note="")], as_json=False)
        lines = capsys.readouterr().out.splitlines()
        assert max(len(line.rstrip()) for line in lines) <= 100, table.title
        meant = sum(cell.count("…") for row in table.texts() for cell in row)
        assert sum(line.count("…") for line in lines) == meant
    assert all(name in " ".join(lines) for name in pairs.replace(",", "").split())


@pytest.mark.parametrize("command", COMMANDS)
def test_an_out_that_cannot_be_written_is_refused_before_anything_is_measured(command, tmp_path):
    taken = tmp_path / "report"
    taken.write_text("")
    # Weights that are not there would be the next thing to fail, with exit code 1.
    weights = ("--set", f"model.weights={tmp_path / 'nowhere'}")
    ran = run("bench", command, "--out", taken, *weights)
    assert ran.exit_code == 2
    assert "nothing can be written there" in ran.stderr
    assert "another --out" in ran.stderr
    assert not ran.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_a_measurement_says_how_long_it_takes_and_what_of_the_configuration_it_measures(command):
    said = " ".join(run("bench", command, "--help").stdout.split())
    assert re.search(r"About (a|\w+) minutes? for the demo model on 2 cores", said)
    assert re.search(r"of the configuration|of the configuration are measured", said, re.IGNORECASE)


def test_how_long_a_measurement_took_is_said_at_the_end(measured):
    assert re.search(r"measured in \d\d:\d\d\n$", measured[0].stderr)


def test_no_more_needles_can_be_asked_for_than_there_are_names():
    assert bench_needle.MOST == MOST_NEEDLES
    ran = run("bench", "needle", "--needles", MOST_NEEDLES + 1)
    assert ran.exit_code == 2
    assert "'--needles'" in ran.stderr


@pytest.mark.parametrize(
    ("ages", "message"),
    [("1;2", "cannot read --ages"), ("0.5,200", "the film's 3600 s"), ("5,5", "other ages")],
)
def test_ages_that_do_not_fit_are_refused_before_anything_is_drawn(ages, message):
    ran = run("bench", "needle", "--ages", ages)
    assert ran.exit_code == 2
    assert message in ran.stderr


def test_a_terminal_shows_how_far_each_part_is(monkeypatch):
    screen = io.StringIO()
    monkeypatch.setattr(show, "err", Console(file=screen, force_terminal=True, width=80))
    with show.steps() as progress:
        progress("new seeds", 3, 80)
        progress("blind", 80, 80)
    assert "new seeds" in screen.getvalue()
    assert "80/80" in screen.getvalue()


def test_a_pipe_shows_no_bar(capsys):
    with show.steps() as progress:
        progress("new seeds", 3, 80)
    assert capsys.readouterr() == ("", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "begun"),
    [
        (["qa", "--clips", "5000"], "streamvlm-exam-*/*.mp4"),
        # The truth is written behind the film: by then it is watched.
        (["needle", "--hours", "0.02", "--needles", "2", "--films", "500"], "*/film 1.json"),
    ],
)
def test_ctrl_c_stops_cleanly_and_leaves_no_films_behind(tmp_path, command, begun):
    process = subprocess.Popen(
        [sys.executable, "-m", "streamvlm", "bench", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    while process.poll() is None and not list(tmp_path.glob(begun)):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert printed == ""
    assert "stopped" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("streamvlm-*"))
