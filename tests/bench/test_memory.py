import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from streamvlm.bench.memory import measure_memory
from streamvlm.bench.memory_data import World, identity, unit
from streamvlm.bench.memory_hours import MOVING, STILL
from streamvlm.bench.memory_plan import PARTS, Plan, small
from streamvlm.bench.memory_report import Figure, Hour, MemoryBench, Rounds, beside, in_turns
from streamvlm.bench.report import Conditions
from streamvlm.cli import app
from streamvlm.errors import BadOption
from streamvlm.memory.store import Memory

TINY = replace(small(Plan(rounds=1)), commits=4, late=20, writing_seconds=0.05, reads=4, hour=80)


def measured(part: str, folder: Path) -> MemoryBench:
    return measure_memory(replace(TINY, parts=(part,), folder=folder))


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each part gives, from memories as small as can be."""
    folder = tmp_path_factory.mktemp("memories")
    return {part: measured(part, folder) for part in PARTS}, folder


def test_every_promise_about_the_memory_is_measured(found):
    whats = [gate.what for bench in found[0].values() for gate in bench.gates()]
    assert len(whats) == len(set(whats)) == 25
    for words in (
        "append of 1 to 8 records, raw, flushed, p50",
        "append of 1 to 8 records, raw, flushed, p99",
        "append after 20 commits over early ones",
        "4 writers over one, records a second",
        "4 writers over one, p99",
        "write_shard over plain writes, raw",
        "open and count",
        "first answer after open",
        "search, one key",
        "recall@10, one key",
        "score of the best 10",
        "search, 8 keys",
        "search in one camera and 2 % of its time",
        "equal to brute force's",
        "recall@10 in one camera",
        "load of 16 records, raw",
        "bytes on disk over bytes given",
        "forget half",
        "space back after maintenance",
        "reader beside a writer and maintenance over quiet, p99",
        "GiB an hour, moving",
        "GiB an hour, still",
    ):
        assert any(words in what for what in whats), words


def test_every_figure_is_a_number_above_nothing(found):
    for bench in found[0].values():
        assert all(math.isfinite(f.found) and f.found > 0 for f in bench.figures if f.found)
        assert {gate.verdict for gate in bench.gates()} <= {"met", "missed"}


def test_nothing_is_left_on_the_disk(found):
    assert list(found[1].iterdir()) == []


def test_what_a_search_finds_is_what_brute_force_finds(found):
    figures = {figure.what: figure for figure in found[0]["searching"].figures}
    assert figures["answers in that window equal to brute force's"].found == 1
    assert figures["recall@10 in one camera"].found == 1


def test_a_still_camera_takes_less_of_the_disk_than_a_moving_one(found):
    by_model: dict[str, dict[str, Hour]] = {}
    for hour in found[0]["hours"].hours:
        by_model.setdefault(hour.model, {})[hour.camera] = hour
    assert len(by_model) == 2
    for cameras in by_model.values():
        assert cameras.keys() == {MOVING, STILL}
        assert cameras[MOVING].frames == 3600
        assert cameras[MOVING].records == 450
        assert cameras[STILL].frames < 360
        assert cameras[STILL].bytes < cameras[MOVING].bytes
        for hour in cameras.values():
            sizes = dict(hour.parts)
            assert sum(sizes.values()) == pytest.approx(hour.bytes, abs=4)
            assert all(size > 0 for size in sizes.values())


def test_progress_is_told_from_nothing_to_all(tmp_path):
    told: list[tuple[str, int, int]] = []
    measure_memory(
        replace(TINY, parts=("hours",), folder=tmp_path, hour=16), lambda *s: told.append(s)
    )
    assert told == [("hours", done, 4) for done in range(5)]


@pytest.mark.parametrize(
    "options", [{"rounds": 0}, {"parts": ("wriiting",)}, {"folder": Path("/nowhere/at/all")}]
)
def test_a_plan_that_cannot_be_measured_is_refused(options):
    with pytest.raises(BadOption):
        Plan(**options)


def test_a_world_repeats_its_backgrounds_and_shows_objects_that_are_found(tmp_path):
    world = World(320, 4, 32, cameras=4)
    keys = world.all_keys.astype(np.float32)
    assert (keys[40, -1] @ keys[41, -1]) > 0.9
    world.build(tmp_path / "world")
    (question,) = world.questions(1)
    wanted, scores = world.best(question, 4)
    with Memory.open(tmp_path / "world") as memory:
        assert len(memory) == 320
        assert memory.identity == identity(32)
        hits = memory.search(question, limit=4)
    assert [int(hit.id, 16) for hit in hits] == wanted
    assert [hit.score for hit in hits] == pytest.approx(scores.tolist(), abs=1e-3)


def test_vectors_are_made_unit_length():
    lengths = np.linalg.norm(unit(np.array([[3.0, 4.0], [0.1, 0.0]], np.float32)), axis=1)
    assert lengths == pytest.approx(1)


# What follows is made up, so that each figure can be counted by hand.

CONDITIONS = Conditions("3f41693", 0, "none", "a machine", "versions")


def bench_of(*figures: Figure, hours: tuple[Hour, ...] = ()) -> MemoryBench:
    return MemoryBench(CONDITIONS, "tiny", figures, hours)


def verdicts(bench: MemoryBench) -> dict[str, str]:
    return {gate.what: gate.verdict for gate in bench.gates()}


def test_two_ways_take_turns():
    order: list[str] = []
    in_turns(3, lambda n: order.append(f"ours {n}") or 1.0, lambda n: order.append("plain") or 1.0)
    assert order == ["ours 0", "plain", "ours 1", "plain", "ours 2", "plain"]


def test_the_ratio_is_the_median_of_the_rounds_so_a_busy_moment_does_not_count():
    assert Rounds((1.0, 50.0, 3.0), (2.0, 100.0, 1.0)).ratio == 0.5


def test_promises_are_kept_or_broken_by_their_bounds():
    slow = beside("append", Rounds((3.0,), (1.0,)), 1.5)
    fast = beside("load", Rounds((3.0,), (1.0,)), 8.0)
    late = Figure("rate", 1.9, wanted=2.0, at_least=True)
    told = beside("background", Rounds((9.0,), (1.0,)), None)
    found = verdicts(bench_of(slow, fast, late, told, Figure("never run", None, wanted=1.0)))
    assert found == {
        "append": "missed",
        "load": "met",
        "rate": "missed",
        "never run": "not measured",
    }


def test_an_hour_is_as_small_as_was_promised_or_not():
    hour = Hour("7B", MOVING, 3600, 450, 70_650, 2**28, (("features", 2**27),), wanted=0.25)
    larger = replace(hour, bytes=2**28 + 1)
    assert verdicts(bench_of(hours=(hour,))) == {f"GiB an hour, {MOVING}, 7B": "met"}
    assert verdicts(bench_of(hours=(larger,))) == {f"GiB an hour, {MOVING}, 7B": "missed"}
    table, _ = bench_of(hours=(hour,)).tables()
    assert table.rows[0][-2:] == (0.25, "features 50.0 %")


def run(*words: str):
    return CliRunner().invoke(app, ["bench", "memory", *words])


def test_the_command_writes_what_it_prints(tmp_path):
    ran = run("--small", "--parts", "hours", "--json", "--out", str(tmp_path))
    assert ran.exit_code == 0, ran.output
    printed = json.loads(ran.stdout)
    assert [table["title"] for table in printed["tables"]] == ["Bytes an hour", "Gates"]
    assert json.loads((tmp_path / "memory.json").read_text()) == printed
    assert "Bytes an hour" in (tmp_path / "memory.md").read_text()


def test_the_command_explains_itself_and_refuses_what_cannot_be_measured(tmp_path):
    said = " ".join(run("--help").stdout.split())
    assert "streamvlm bench memory" in said
    assert "minutes on 2 cores" in said
    assert run("--parts", "wriiting").exit_code == 2
    assert run("--folder", str(tmp_path / "nowhere")).exit_code == 2
