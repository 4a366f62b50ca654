"""`streamvlm bench` as people and scripts use it."""

import io
import json
import os
import signal
import subprocess
import sys
import time

import pytest
from rich.console import Console
from typer.testing import CliRunner

from streamvlm.bench.report import Conditions, Table
from streamvlm.cli import app, show

COMMANDS = ("speed", "qa", "compress", "needle")


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
    assert verdicts <= {"met", "missed", "not measured"}


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


def test_a_table_is_never_cut_however_narrow_the_terminal(capsys):
    columns = tuple(f"a rather long column {index}" for index in range(12))
    table = Table("A title", columns, ((0.123,) * 12,), note="How to read it.")
    conditions = Conditions("3f41693", 1, "a/model", "a machine", "versions")
    show.measured(conditions, [table], as_json=False)
    said = capsys.readouterr().out
    assert all(column in said for column in columns)
    assert "commit 3f41693 · seed 1 · model a/model" in said
    assert "…" not in said


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
def test_ctrl_c_stops_cleanly_and_leaves_no_films_behind(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-m", "streamvlm", "bench", "qa", "--clips", "5000"],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(tmp_path)},
    )
    while process.poll() is None and not list(tmp_path.glob("streamvlm-*/*.mp4")):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in said
    assert "Traceback" not in said
    assert not list(tmp_path.glob("streamvlm-*"))
