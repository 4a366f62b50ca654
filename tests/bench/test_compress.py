import json
import os
import pty
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from typer.main import get_command
from typer.testing import CliRunner

from streamvlm.bench.compress import KEEPS, Plan, candidates, cues_of, measure_compress
from streamvlm.bench.ranking import Method
from streamvlm.bench.report import document
from streamvlm.bench.world import SPLITS
from streamvlm.cli import app
from streamvlm.config import load
from streamvlm.errors import BadOption, UnknownPlugin
from streamvlm.models.llava_onevision import LlavaOneVision
from streamvlm.plugins import Recipe, names
from streamvlm.types import VisualTokens

ALL_CUES = frozenset[str]().union(
    *(Recipe("compressors", name).plugin.needs for name in names("compressors"))
)
GUEST = '''
from dataclasses import dataclass
from streamvlm.errors import BadOption


@dataclass(frozen=True)
class {name}:
    """A guest, from elsewhere."""

    needs = frozenset()
    {option}

    def __call__(self, tokens, previous=None):
        {body}
'''
HALF = "return tokens.select(tokens.position[:, 1] < tokens.grid[1] // 2)"
PICKY = """if tokens.grid[0] > 1:
            raise BadOption("it takes one frame at most")
        return tokens"""


@contextmanager
def installed(folder: Path) -> Iterator[Callable[..., None]]:
    """While it lasts, compressors can be installed as other packages would do it."""

    def install(name: str, body: str, *, option: str = "") -> None:
        text = GUEST.format(name=name.title(), body=body, option=option)
        (folder / f"{name}_guest.py").write_text(text)
        info = folder / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        point = f"{name} = {name}_guest:{name.title()}"
        (info / "entry_points.txt").write_text(f"[streamvlm.compressors]\n{point}\n")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(folder), *sys.path])
        yield install


@pytest.fixture
def install(tmp_path):
    with installed(tmp_path) as install:
        yield install


@pytest.fixture(scope="module")
def told():
    return []


@pytest.fixture(scope="module")
def worked():
    """How often the model did what."""
    return Counter()


def counted(patch: pytest.MonkeyPatch, worked: Counter[str], name: str) -> None:
    """Let a method of the model do what it does, and count how often."""
    does = getattr(LlavaOneVision, name)

    def count(*words, **options):
        worked[name] += 1
        return does(*words, **options)

    patch.setattr(LlavaOneVision, name, count)


@pytest.fixture(scope="module")
def found(told, worked, tmp_path_factory):
    """A whole comparison, as small as it can be: of one of ours, and of two guests."""
    plan = Plan(clips=2, frames=2, keeps=(1.0, 0.25), compressors=("fastvid", "half", "picky"))
    with installed(tmp_path_factory.mktemp("guests")) as install, pytest.MonkeyPatch.context() as p:
        counted(p, worked, "encode")
        counted(p, worked, "answer_all")
        install("half", HALF)
        install("picky", PICKY)
        return measure_compress(load(), plan, lambda *step: told.append(step))


def tokens(steps: int = 2, side: int = 4) -> VisualTokens:
    position = torch.cartesian_prod(*(torch.arange(n) for n in (steps, side, side)))
    return VisualTokens(
        model="made up",
        features=torch.randn(len(position), 8, generator=torch.Generator().manual_seed(0)),
        position=position,
        seconds=position[:, 0].double(),
        grid=(steps, side, side),
        weight=torch.ones(len(position)),
    )


def test_all_methods_answer_the_same_questions(found):
    asked = [(mark.clip, mark.kind, mark.expected) for mark in found.ceiling.marks]
    assert len(asked) > 4
    for trial in (*found.ranking.trials, found.floor):
        assert [(mark.clip, mark.kind, mark.expected) for mark in trial.marks] == asked


def test_the_baselines_are_there_unasked_at_every_budget(found):
    methods = {trial.method for trial in found.ranking.trials if trial.method.keep is not None}
    wanted = ("random", "uniform", "fastvid")
    assert methods == {Method(name, keep) for name in wanted for keep in (1.0, 0.25)}


def test_with_nothing_dropped_all_give_the_answers_of_the_ceiling(found):
    for trial in found.ranking.at(1.0):
        assert trial.share == 1
        assert trial.marks == found.ceiling.marks


def test_the_share_really_kept_is_measured(found):
    for trial in found.ranking.at(0.25):
        assert trial.share == pytest.approx(0.25, abs=0.03)
        assert trial.tokens == pytest.approx(trial.share * found.ceiling.tokens)


def test_each_clip_is_encoded_once_and_what_is_equal_is_asked_about_once(found, worked):
    assert worked["encode"] == 2
    trials = (*found.ranking.trials, found.ceiling, found.floor)
    sat = {id(sitting.marks) for each in trials for sitting in each.sittings}
    assert worked["answer_all"] == len(sat)
    # Of each clip: all tokens, none, three at keep 0.25, half, and as many drawn at random or even.
    assert len(sat) <= 2 * 8


def test_one_keep_means_that_keep_alone():
    found, _ = candidates(Plan(keeps=(0.1,)), ALL_CUES)
    assert [str(one.method.keep) for one in found] == ["0.1"] * len(names("compressors"))


def test_the_blind_are_shown_nothing(found):
    assert found.floor.share == 0
    assert [mark.said for mark in found.floor.marks] != [mark.said for mark in found.ceiling.marks]


def test_dropping_tokens_takes_time_and_keeping_all_hardly_any(found):
    spent = {trial.method: trial.milliseconds for trial in found.ranking.trials}
    assert all(time > 0 for time in spent.values())
    assert spent[Method("fastvid", 0.25)] > spent[Method("fastvid", 1.0)]


def test_progress_is_told_from_nothing_to_all(found, told):
    assert [done for _, done, _ in told] == list(range(25))
    assert {total for _, _, total in told} == {24}


def test_every_method_has_its_row_between_all_tokens_and_blind(found):
    accuracy, against, separable, gates = found.tables()
    first, *rows, last = [row[:2] for row in accuracy.rows]
    assert (first[0], last[0]) == ("all tokens", "blind")
    at_keep = {(name, keep) for name in ("random", "uniform", "fastvid") for keep in (1.0, 0.25)}
    without = {("half", None), *((name, "the budget of half") for name in ("random", "uniform"))}
    assert len(rows) == len(set(rows))
    assert set(rows) == at_keep | without
    assert [row[:2] for row in against.rows] == [("fastvid", 0.25), ("half", None)]
    assert [row[0] for row in separable.rows] == [0.25]
    assert gates.rows[0][-1] == "not measured"


def test_what_cannot_be_told_apart_from_the_best_is_named(found):
    alike = [pair for pair in found.ranking.pairs if not pair.is_separable]
    (row,) = found.tables()[2].rows
    assert row[4:6] == (3 - len(alike), 3)
    level = {name for pair in alike for name in (pair.one, pair.other)} - {row[1]}
    with_best = [pair for pair in alike if row[1] in (pair.one, pair.other)]
    named = {name for pair in with_best for name in (pair.one, pair.other)} - {row[1]}
    assert named <= level
    assert set(row[-1].split(", ")) == (named or {"–"})


def test_two_clips_are_said_to_be_too_few(found):
    assert "2 clips are too few for such intervals" in found.tables()[2].note


def test_everything_can_be_written_as_json_with_no_column_twice(found):
    tables = [*found.tables(), *found.details()]
    for table in tables:
        assert len(set(table.columns)) == len(table.columns)
    read = json.loads(json.dumps(document(found.conditions, tables), allow_nan=False))
    pairs = next(table for table in read["tables"] if table["title"] == "Every pair")
    assert len(pairs["rows"]) == 3


def test_the_plot_shows_every_compressor_once(found):
    svg = found.picture().svg.decode()
    assert [svg.count(f">{name}<") for name in ("random", "fastvid", "half")] == [1, 1, 1]


def test_one_without_a_budget_is_compared_with_baselines_that_take_as_much(found):
    kept = {trial.method: [s.kept for s in trial.sittings] for trial in found.ranking.trials}
    assert kept[Method("half", None)] != kept[Method("random", 0.25)]
    for name in ("random", "uniform"):
        assert kept[Method(name, None, like="half")] == kept[Method("half", None)]
    (row,) = [row for row in found.tables()[1].rows if row[0] == "half"]
    assert None not in row[2:]


def test_one_that_refuses_a_clip_is_left_out_and_the_others_go_on(found):
    assert "picky" not in {trial.method.name for trial in found.ranking.trials}
    assert "picky" not in {trial.method.like for trial in found.ranking.trials}
    assert {len(trial.sittings) for trial in found.ranking.trials} == {2}
    assert found.skipped == ("picky is left out: it takes one frame at most",)
    assert "picky is left out" in found.tables()[0].note


def test_every_installed_compressor_is_tried_at_every_budget():
    found, skipped = candidates(Plan(), ALL_CUES)
    assert skipped == []
    wanted = {Method(name, keep) for name in names("compressors") for keep in KEEPS}
    assert {one.method for one in found} == wanted


def test_a_compressor_whose_cues_the_model_lacks_is_left_out_with_a_sentence():
    found, skipped = candidates(Plan(), frozenset())
    assert "fastvid" not in {one.method.name for one in found}
    assert "evs" in {one.method.name for one in found}
    (sentence,) = [sentence for sentence in skipped if sentence.startswith("fastvid ")]
    assert "attention, frame_vector" in sentence


def test_who_reads_the_question_is_tried_with_models_that_can_compare_it():
    assert "question" in cues_of(LlavaOneVision)
    assert LlavaOneVision.cues < cues_of(LlavaOneVision)
    assert "question" not in cues_of(LookingOnly)


class LookingOnly:
    cues = frozenset({"attention"})


def test_a_compressor_of_another_package_is_found(install):
    install("newcomer", HALF, option="keep: float = 0.5")
    found, _ = candidates(Plan(keeps=(0.5, 0.1)), ALL_CUES)
    mine = [one.method for one in found if one.method.name == "newcomer"]
    assert mine == [Method("newcomer", 0.5), Method("newcomer", 0.1)]


def test_a_compressor_that_cannot_be_loaded_is_left_out_with_a_sentence(install, tmp_path):
    install("broken", HALF)
    (tmp_path / "broken_guest.py").write_text("import a_package_that_is_not_there\n")
    found, skipped = candidates(Plan(), ALL_CUES)
    assert {one.method.name for one in found} >= {"random", "uniform", "evs"}
    assert [s for s in skipped if "broken is left out" in s and "a_package_that" in s]


def test_a_compressor_with_an_option_that_must_be_given_is_left_out(install):
    install("needy", HALF, option="how_much: int")
    _, skipped = candidates(Plan(), ALL_CUES)
    assert [s for s in skipped if "needy is left out" in s and "how_much" in s]


def test_who_draws_lots_draws_anew_for_each_clip():
    found, _ = candidates(Plan(keeps=(0.25,)), ALL_CUES)
    (drawing,) = [one for one in found if one.method.name == "random"]
    first, second, again = (drawing.build(n)(tokens()).flat_index.tolist() for n in (0, 1, 0))
    assert first == again
    assert first != second


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"clips": 1}, "at least 2 clips"),
        ({"keeps": (0.5, 0.0)}, "above 0 and at most 1"),
        ({"keeps": ()}, "above 0 and at most 1"),
        ({"split": "training"}, "held-out"),
    ],
)
def test_a_plan_that_shows_nothing_is_refused(options, message):
    with pytest.raises(BadOption, match=message):
        Plan(**options)


def test_an_unknown_compressor_is_answered_with_the_nearest():
    with pytest.raises(UnknownPlugin, match="did you mean 'fastvid'"):
        candidates(Plan(compressors=("fastvit",)), ALL_CUES)


SMALL = ["bench", "compress", "--clips", "2", "--frames", "1", "--keep", ".25"]


def test_the_command_writes_report_details_and_plot(tmp_path):
    options = ["--compressors", "evs", "--json", "--out", str(tmp_path / "report")]
    ran = CliRunner().invoke(app, [*SMALL, *options])
    assert ran.exit_code == 0, ran.output
    printed = json.loads(ran.stdout)
    assert {"seed", "commit", "model", "hardware"} <= printed["conditions"].keys()
    assert {path.name for path in (tmp_path / "report").iterdir()} == {
        *(f"compress.{ending}" for ending in ("md", "json", "svg", "png")),
        *(f"compress-details.{ending}" for ending in ("md", "json")),
    }
    assert "| blind |" in (tmp_path / "report" / "compress.md").read_text()


def test_the_command_measures_the_usual_plan_unless_told_otherwise():
    command = get_command(app).commands["bench"].commands["compress"]
    usual = {option.name: option.default for option in command.params}
    asked = {name: usual[name] for name in ("clips", "frames", "seed", "split")}
    keeps = tuple(float(share) for share in usual["keep"].split(","))
    assert Plan(**asked, keeps=keeps) == Plan()


def test_the_command_asks_about_every_held_out_split_and_no_other():
    for split in SPLITS:
        ran = CliRunner().invoke(app, [*SMALL, "--split", split, "--keep", "2"])
        wrong = "--split" if split == "training" else "keep must be shares"
        assert wrong in ran.stderr


@pytest.mark.parametrize("keep", ["half", "0.5;0.1", "2"])
def test_a_budget_that_is_none_is_refused_before_anything_is_measured(keep):
    ran = CliRunner().invoke(app, ["bench", "compress", "--keep", keep])
    assert ran.exit_code == 2
    assert not ran.stdout


@pytest.mark.slow
def test_ctrl_c_prints_no_figures():
    read, write = pty.openpty()
    command = [sys.executable, "-m", "streamvlm", "bench", "compress", "--clips", "1000"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=write)
    os.close(write)
    seen = b""
    while b"compress" not in seen:  # the progress bar: measuring has begun
        seen += os.read(read, 1000)
    running.send_signal(signal.SIGINT)
    printed, _ = running.communicate()
    os.close(read)
    assert running.returncode == 130
    assert printed == b""
