import json
from dataclasses import replace
from pathlib import Path

import pytest

from streamvlm.bench.intervals import Interval
from streamvlm.bench.report import (
    Conditions,
    Gate,
    Table,
    check_folder,
    document,
    gate_table,
    here,
    write,
)
from streamvlm.errors import BadOption

CONDITIONS = Conditions("3f41693", 1, "llava_onevision/demo 3f9a", "EPYC, 2 cores", "torch 2.13")
TABLE = Table(
    "Right answers",
    ("kind", "questions", "right", "error"),
    (("exist", 1200, 0.98765, 0.01), ("change", 0, float("nan"), None)),
    note="95 % bootstrap.",
)


def test_the_conditions_say_what_the_figures_depend_on():
    found = here(7, "some/model 0123")
    assert (found.seed, found.model) == (7, "some/model 0123")
    assert "cores" in found.hardware
    assert "load" in found.hardware
    assert "GPU" in found.hardware
    assert "torch" in found.versions
    assert found.commit


def test_outside_a_clone_the_commit_is_unknown(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert here(0, "m").commit == "unknown"


def test_markdown_rounds_figures_and_aligns_them_right():
    title, _, head, rule, first, second, _, note = TABLE.markdown().splitlines()
    assert title == "### Right answers"
    assert head == "| kind | questions | right | error |"
    assert rule == "| --- | ---: | ---: | ---: |"
    assert first == "| exist | 1200 | 0.988 | 0.010 |"
    assert second == "| change | 0 | – | – |"
    assert note == "95 % bootstrap."


def test_a_table_without_a_note_ends_with_its_rows():
    assert replace(TABLE, note="").markdown().endswith("| change | 0 | – | – |")


def test_large_figures_have_one_digit_behind_the_point():
    assert Table("t", ("a",), ((1234.56,),)).texts() == [["1,234.6"]]


def test_a_column_with_words_is_not_numeric():
    table = Table("t", ("a", "b", "c"), (("x", 1, None), (2, 0.5, None)))
    assert [table.is_numeric(index) for index in range(3)] == [False, True, False]


def test_json_keeps_whole_figures_and_has_null_for_what_is_none():
    rows = TABLE.as_dict()["rows"]
    assert rows[0] == {"kind": "exist", "questions": 1200, "right": 0.98765, "error": 0.01}
    assert rows[1]["right"] is None
    json.dumps(document(CONDITIONS, [TABLE]), allow_nan=False)


def test_a_row_must_fill_its_columns():
    with pytest.raises(ValueError, match="has 1 cells for 2 columns"):
        Table("t", ("a", "b"), (("only one",),))


@pytest.mark.parametrize(
    ("found", "at_least", "verdict"),
    [
        (0.95, True, "met"),
        (0.949, True, "missed"),
        (0.95, False, "met"),
        (0.951, False, "missed"),
        (None, True, "not measured"),
        (float("nan"), False, "not measured"),
    ],
)
def test_a_gate_is_met_missed_or_not_measured(found, at_least, verdict):
    assert Gate("g", found, 0.95, at_least=at_least).verdict == verdict


def test_gates_stand_beside_what_was_wanted():
    sure = Interval(0.9, 0.85, 0.95, 0.02)
    gates = [Gate("when", 0.9, 0.8, interval=sure), Gate("cost", 3.0, 2, at_least=False)]
    table = gate_table(gates)
    assert table.rows == (
        ("when", 0.9, 0.85, 0.95, "≥ 0.8", "met"),
        ("cost", 3.0, None, None, "≤ 2", "missed"),
    )
    assert "fewer than 10 clips" in table.note


@pytest.mark.parametrize(
    ("low", "high", "number", "verdict"),
    [
        (0.80, 1.00, 10, "met"),  # narrow enough, whatever side the bound is on
        (0.60, 1.00, 50, "too few clips to say"),  # wide, and it holds the bound
        (0.91, 1.00, 9, "too few clips to say"),  # so few clips say nothing
        (0.91, 1.31, 50, "met"),  # wide, but wholly on one side
    ],
)
def test_too_small_a_sample_is_no_verdict(low, high, number, verdict):
    found = Interval((low + high) / 2 + 0.06, low, high, 0.1)
    gate = Gate("when", 0.96, 0.9, interval=found, number=number)
    assert gate.verdict == verdict
    wide = replace(gate, widest=0.5, number=20)
    assert wide.verdict == "met"


def test_a_gate_says_what_there_are_too_few_of():
    assert Gate("found", 1.0, 0.9, number=4, of="needles").verdict == "too few needles to say"
    assert Gate("found", None, 0.9, number=0, of="needles").verdict == "not measured"


def test_every_table_of_a_report_carries_its_conditions(tmp_path):
    page, data = write(tmp_path / "new" / "folder", "qa", CONDITIONS, [TABLE, TABLE])
    assert (page.name, data.name) == ("qa.md", "qa.json")
    assert page.read_text().count("commit 3f41693 · seed 1 · model llava_onevision/demo 3f9a") == 2
    assert page.read_text().count("EPYC, 2 cores") == 2
    read = json.loads(data.read_text())
    assert read["conditions"]["seed"] == 1
    assert len(read["tables"]) == 2


def test_a_folder_to_come_is_fine_and_is_not_made_before_there_is_something_to_write(tmp_path):
    check_folder(tmp_path / "a" / "b", ["qa.md"])
    assert list(tmp_path.iterdir()) == []
    write(tmp_path, "qa", CONDITIONS, [TABLE])
    check_folder(tmp_path, ["qa.md", "qa.json"])
    assert len(list(tmp_path.iterdir())) == 2


def test_a_folder_that_cannot_be_written_is_known_beforehand(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    (tmp_path / "qa.md").mkdir()
    for folder in (tmp_path / "file", tmp_path / "file" / "below", tmp_path, Path("/proc/none")):
        with pytest.raises(BadOption, match=r"nothing can be written there .* another --out"):
            check_folder(folder, ["qa.md", "qa.json"])
    monkeypatch.chdir(tmp_path)
    check_folder(Path("report"), ["qa.md"])


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
    taken = tmp_path / "file"
    taken.write_text("")
    with pytest.raises(BadOption, match=r"nothing can be written there .* another --out"):
        write(taken, "qa", CONDITIONS, [TABLE])
