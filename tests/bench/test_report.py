import json
from dataclasses import replace

import pytest

from streamvlm.bench.report import (
    Conditions,
    Gate,
    Table,
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
    gates = [Gate("when", 0.9, 0.8), Gate("cost", 3.0, 2, at_least=False)]
    assert gate_table(gates).rows == (
        ("when", 0.9, "≥ 0.8", "met"),
        ("cost", 3.0, "≤ 2", "missed"),
    )


def test_every_table_of_a_report_carries_its_conditions(tmp_path):
    page, data = write(tmp_path / "new" / "folder", "qa", CONDITIONS, [TABLE, TABLE])
    assert (page.name, data.name) == ("qa.md", "qa.json")
    assert page.read_text().count("commit 3f41693 · seed 1 · model llava_onevision/demo 3f9a") == 2
    assert page.read_text().count("EPYC, 2 cores") == 2
    read = json.loads(data.read_text())
    assert read["conditions"]["seed"] == 1
    assert len(read["tables"]) == 2


def test_a_folder_that_cannot_be_written_is_explained(tmp_path):
    taken = tmp_path / "file"
    taken.write_text("")
    with pytest.raises(BadOption, match=r"nothing can be written there .* another --out"):
        write(taken, "qa", CONDITIONS, [TABLE])
