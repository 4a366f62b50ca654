"""Needles in real films of a minute, and the command."""

import json

import pytest
from typer.testing import CliRunner

from streamvlm.bench.haystack import MEMORY, ORACLE, WAYS, WINDOW
from streamvlm.bench.needle import Plan, measure_needle
from streamvlm.bench.needle_tables import details, tables
from streamvlm.cli import app
from streamvlm.config import load
from streamvlm.errors import ConfigError

PLAN = Plan(seconds=48, needles=2, films=2, seed=5)


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def hunt(told):
    return measure_needle(load(), PLAN, progress=lambda *what: told.append(what))


def test_every_needle_of_every_film_is_looked_for_in_every_way(hunt):
    assert [find.film for find in hunt.finds] == [0, 0, 1, 1]
    assert all(list(find.replies) == list(WAYS) for find in hunt.finds)


def test_films_of_one_hunt_differ_and_lie_apart_in_the_memory(hunt):
    first, second = ([f for f in hunt.finds if f.film == number] for number in (0, 1))
    assert [f.needle for f in first] != [f.needle for f in second]
    assert all(find.records == PLAN.seconds // 8 for find in hunt.finds)


def test_the_oracle_sees_every_needle_that_is_stored(hunt):
    assert any(find.holders for find in hunt.finds)
    for find in hunt.finds:
        assert find.replies[ORACLE].sees == bool(find.holders)


def test_memory_keeps_to_the_budget_of_the_configuration(hunt):
    assert hunt.limits == load().limits
    assert all(f.replies[MEMORY].tokens <= hunt.limits.max_tokens for f in hunt.finds)


def test_the_window_reaches_back_whole_records_and_not_over_the_film(hunt):
    assert 8 <= hunt.window < PLAN.seconds
    assert all(f.replies[WINDOW].tokens <= hunt.limits.max_tokens for f in hunt.finds)


def test_the_conditions_name_both_models_and_the_seed(hunt):
    assert hunt.conditions.seed == PLAN.seed
    assert "llava_onevision/demo" in hunt.conditions.model
    assert "siglip/demo" in hunt.conditions.model


def test_progress_is_told_up_to_the_end_of_each_part(hunt, told):
    last = {what: (done, total) for what, done, total in told}
    assert {"film 1, drawing", "film 1, ingest", "film 2, questions"} <= last.keys()
    assert len(last) == 3 * PLAN.films
    assert all(done == total for done, total in last.values())


def test_the_tables_of_a_real_hunt_can_be_written(hunt):
    for table in [*tables(hunt), *details(hunt)]:
        assert table.markdown()
        assert json.dumps(table.as_dict(), allow_nan=False)


def test_more_needles_than_fit_are_refused_before_anything_is_drawn(told):
    before = len(told)
    with pytest.raises(ConfigError, match="needles"):
        measure_needle(load(), Plan(needles=1000), progress=lambda *what: told.append(what))
    assert len(told) == before


def test_the_command_refuses_too_many_needles_with_a_sentence():
    ran = CliRunner().invoke(app, ["bench", "needle", "--needles", "1000"])
    assert ran.exit_code == 2
    assert "needles" in ran.stderr


@pytest.mark.slow
def test_the_command_prints_one_object_and_writes_the_report(tmp_path):
    sizes = ["--hours", "0.02", "--films", "1", "--needles", "2"]
    command = ["bench", "needle", *sizes, "--json", "--out", str(tmp_path / "report")]
    ran = CliRunner().invoke(app, command, catch_exceptions=False)
    assert ran.exit_code == 0
    document = json.loads(ran.stdout)
    titles = [table["title"] for table in document["tables"]]
    assert titles[-2:] == ["Gates", "Every needle"]
    assert len(document["tables"][-1]["rows"]) == 2
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert names == {f"needle{part}.{end}" for part in ("", "-details") for end in ("md", "json")}


@pytest.mark.slow
def test_the_same_seed_gives_the_same_answers_and_another_one_other_films(hunt):
    again = measure_needle(load(), PLAN)

    def said(made):
        return [[f.rank, *(f.replies[way].mark.said for way in WAYS)] for f in made.finds]

    assert said(again) == said(hunt)
    other = measure_needle(load(), Plan(seconds=48, needles=2, films=1, seed=6))
    assert [f.needle for f in other.finds] != [f.needle for f in hunt.finds[:2]]
