"""The command line as people and scripts use it, on real files."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

import streamvlm
from streamvlm.bench.films import camera_film
from streamvlm.cli import app
from streamvlm.errors import MemoryStoreError
from streamvlm.memory.store import Memory

VIDEOS = Path(__file__).parents[2] / "shared" / "videos"


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    returncode: int
    stdout: str
    stderr: str


def run(*words: object) -> Ran:
    """Run a command as the shell would, but in this process: torch takes seconds to load."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


def run_alone(*words: object) -> subprocess.CompletedProcess[str]:
    """Run a command in a process of its own."""
    command = [sys.executable, "-m", "streamvlm", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def lines(ran: Ran | subprocess.CompletedProcess[str]) -> list[dict]:
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.fixture(scope="module")
def memory_folder(tmp_path_factory, shapes_film) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "memory"
    ran = run_alone("ingest", shapes_film, "--memory", folder)
    assert ran.returncode == 0, ran.stderr
    assert "ingested" in ran.stdout
    return folder


def test_ask_prints_the_answer_and_what_it_rests_on(memory_folder):
    ran = run("ask", "--memory", memory_folder, "Is there a red square?")
    assert ran.returncode == 0, ran.stderr
    first, second, *_ = ran.stdout.splitlines()
    assert first == "Is there a red square?"
    assert second == "yes"
    for label in ("evidence", "watched", "cost", "sampled"):
        assert label in ran.stdout
    assert "only knows a world of coloured shapes" in ran.stderr


def test_ask_speaks_json(memory_folder):
    ran = run("ask", "--memory", memory_folder, "Is there a red square?", "Where is it?", "--json")
    first, second = lines(ran)
    assert first["query"]["text"] == "Is there a red square?"
    assert first["usage"]["frames_decoded"] == 0
    assert first["coverage"][0]["shares"]["gap"] == 0
    assert second["text"]


def test_python_and_the_command_line_give_the_same_records(memory_folder, tmp_path, shapes_film):
    with streamvlm.load(memory=tmp_path / "memory") as vlm:
        vlm.ingest(shapes_film)
    shards = [
        sorted((folder / "shards").iterdir()) for folder in (tmp_path / "memory", memory_folder)
    ]
    assert [p.read_bytes() for p in shards[0]] == [p.read_bytes() for p in shards[1]]
    with Memory.open(memory_folder, writable=False) as memory:
        assert len(memory) > 0


def test_one_bad_input_does_not_stop_the_others(tmp_path, shapes_film):
    bad = tmp_path / "text.mp4"
    bad.write_text("this is not a video")
    ran = run(
        "ingest", bad, tmp_path / "absent.mp4", shapes_film, "--memory", tmp_path / "m", "--json"
    )
    assert ran.returncode == 1
    first, second, third = (line["ingested"] for line in lines(ran))
    assert "text.mp4" in first["error"]
    assert "absent.mp4" in second["error"]
    assert third["error"] is None
    assert third["usage"]["tokens_stored"] > 0
    assert ran.stderr.count("error:") == 2


def test_search_puts_the_time_that_is_named_before_what_is_only_alike(
    memory_folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    question = "Is there a purple ring at 00:10?"
    first, *others = lines(run("search", "-m", memory_folder, question, "--json"))
    assert first["start"] <= 10 < first["end"]
    assert others
    scores = [found["score"] for found in others]
    assert scores == sorted(scores, reverse=True)
    assert first["score"] < scores[0]


def test_search_writes_a_picture_of_each_moment(memory_folder, tmp_path):
    ran = run("search", "-m", memory_folder, "a red square", "--thumbnails", tmp_path, "--json")
    assert ran.returncode == 0, ran.stderr
    found = lines(ran)
    assert found
    for moment in found:
        assert Path(moment["thumbnail"]).read_bytes()[:2] == b"\xff\xd8"
        assert -1 <= moment["score"] <= 1
    scores = [moment["score"] for moment in found]
    assert scores == sorted(scores, reverse=True)
    assert found[0]["start"] <= 11 < found[0]["end"]


def test_pictures_that_cannot_be_written_are_one_sentence(memory_folder, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("a file, not a folder")
    ran = run("search", "-m", memory_folder, "a red square", "--thumbnails", taken)
    assert ran.returncode == 1
    assert "--thumbnails" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_question_about_a_named_video_is_about_that_one(memory_folder, tmp_path, shapes_film):
    other = tmp_path / "other.mp4"
    other.write_bytes(shapes_film.read_bytes())
    ran = run("ask", other, "Is there a red square?", "-m", memory_folder, "--json")
    ingested, answer = lines(ran)
    assert ingested["ingested"]["stream"] == str(other)
    assert answer["query"]["streams"] == [str(other)]
    assert run("memory", "forget", memory_folder, "--stream", "other.mp4").returncode == 0


def test_a_named_video_that_fails_is_not_answered_from_others(memory_folder, tmp_path):
    ran = run("ask", tmp_path / "absent.mp4", "Is there a red square?", "-m", memory_folder)
    assert ran.returncode == 1
    assert ran.stdout == ""


def test_a_very_long_question_is_a_question(memory_folder):
    ran = run("ask", "-m", memory_folder, "Is there a red square? " * 20)
    assert ran.returncode == 0, ran.stderr


def test_a_file_name_that_is_no_text_does_not_stop_the_others(tmp_path, shapes_film):
    folder = tmp_path / "videos"
    folder.mkdir()
    odd = os.fsencode(folder) + b"/caf\xe9.mp4"
    Path(os.fsdecode(odd)).write_bytes(shapes_film.read_bytes())
    (folder / "fine.mp4").write_bytes(shapes_film.read_bytes())
    ran = run("ingest", folder, "-m", tmp_path / "m", "--json")
    assert ran.returncode == 1
    first, second = (line["ingested"] for line in lines(ran))
    assert "not valid UTF-8" in first["error"]
    assert second["error"] is None


def test_verify_says_what_matches(memory_folder):
    ran = run("verify", memory_folder)
    assert ran.returncode == 0, ran.stderr
    assert re.search(r"ok: .* (\d+) of \1 frames match", ran.stdout)


def test_verify_fails_loudly_when_a_source_was_replaced(tmp_path, shapes_film):
    video = tmp_path / "video.mp4"
    video.write_bytes(shapes_film.read_bytes())
    assert run("ingest", video, "-m", tmp_path / "m").returncode == 0
    video.write_bytes(shapes_film.read_bytes()[::-1])
    ran = run("verify", tmp_path / "m")
    assert ran.returncode == 1
    assert "was replaced" in ran.stderr


def test_a_warning_is_told_from_what_is_good_to_know(tmp_path, memory_folder):
    folder = tmp_path / "damaged"
    shutil.copytree(memory_folder, folder)
    (shard,) = (folder / "shards").glob("*.svm")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1  # in the first record's keys
    shard.write_bytes(content)
    ran = run_alone("search", "-m", folder, "a red square", "--thumbnails", tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert "warning: a search cannot find record" in ran.stderr


def test_plugins_lists_everything_with_a_summary():
    ran = run("plugins", "--json")
    found = {(line["kind"], line["name"]): line["summary"] for line in lines(ran)}
    assert "FastVID" in found["compressors", "fastvid"]
    assert ("models", "llava_onevision") in found


def test_help_does_not_wait_for_torch():
    code = "import sys, streamvlm.cli; print('torch' in sys.modules, 'numpy' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["False", "False"]


def test_doctor_answers_the_canary():
    ran = run("doctor", "--json")
    assert ran.returncode == 0, ran.stdout
    assert all(line["ok"] for line in lines(ran))


@pytest.mark.parametrize("command", ["", "ask", "ingest", "search", "verify", "plugins", "doctor"])
def test_every_command_explains_itself(command):
    ran = run(*command.split(), "--help")
    assert ran.returncode == 0
    if command in ("ask", "ingest", "search", "verify"):
        assert "Examples" in ran.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ask", "video.mp4"], "no question"),
        (["ask", "video.mp4", "  "], "no question"),
        (["ask", "Where is it?"], "no video"),
        (["ask", "a.mp4", "Where?", "--config", "defalt"], "did you mean 'default'"),
        (["ask", "a.mp4", "Where?", "--config", "mine.yaml"], "there is no file mine.yaml"),
        (["ask", "a.mp4", "Where?", "--since", "9", "--until", "5"], "must lie after since"),
        (["ask", "a.mp4", "Where?", "--set", "compressor.kep=1"], "did you mean 'keep'"),
        (["ask", "a.mp4", "Where?", "--set", "compressor.name=fastvit"], "did you mean 'fastvid'"),
        (["ingest", "a.mp4"], "--memory"),
        (["aks"], "ask"),
    ],
)
def test_wrong_usage_is_exit_code_2_with_a_hint(words, message):
    ran = run(*words)
    assert ran.returncode == 2
    assert message in ran.stderr


def test_a_missing_video_is_exit_code_1():
    ran = run_alone("ask", "absent.mp4", "Where is it?")
    assert ran.returncode == 1
    assert "absent.mp4" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_folder_that_is_no_memory_is_exit_code_1(tmp_path):
    ran = run("ask", "--memory", tmp_path, "Where is it?")
    assert ran.returncode == 1
    assert str(tmp_path) in ran.stderr


def stored(folder: Path) -> int:
    """Records in a memory that may not be there yet."""
    try:
        with Memory.open(folder, writable=False) as memory:
            return len(memory)
    except MemoryStoreError:
        return 0


@pytest.mark.slow
def test_ctrl_c_stops_cleanly_and_keeps_what_was_stored(tmp_path, shapes_film):
    film = camera_film(tmp_path / "film.mp4", seconds=120, width=640, height=360)
    command = ["ingest", str(film), "-m", str(tmp_path / "m"), "--set", "clips.seconds=2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "streamvlm", *command],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )
    while process.poll() is None and not stored(tmp_path / "m"):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "stopped" in said
    assert "Traceback" not in said
    assert stored(tmp_path / "m") > 0


@pytest.mark.slow
@pytest.mark.skipif(not VIDEOS.exists(), reason="the shared clips are not here")
def test_every_shared_clip_goes_through_or_is_explained(tmp_path):
    """All real clips and all faults in one call; then every cited frame is checked."""
    unreadable = {"audio_only.mp4", "empty.mp4", "text.mp4", "truncated_no_moov.mp4"}
    ran = run("ingest", VIDEOS, "-m", tmp_path / "m", "--json")
    results = [line["ingested"] for line in lines(ran)]
    failed = {Path(result["stream"]).name for result in results if result["error"]}
    assert failed == unreadable
    assert ran.returncode == 1
    assert "Traceback" not in ran.stderr
    for result in results:
        if result["error"] is None:
            assert sum(result["coverage"]["shares"].values()) == pytest.approx(1.0)
    checked = run("verify", tmp_path / "m", "--json")
    verdicts = lines(checked)
    assert len(verdicts) == len(results) - len(unreadable)
    assert [verdict["stream"] for verdict in verdicts if not verdict["ok"]] == []
    assert checked.returncode == 0
