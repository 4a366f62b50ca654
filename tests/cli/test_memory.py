"""`streamvlm memory` as people and scripts use it."""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from streamvlm.cli import app
from streamvlm.memory.forget import Held
from streamvlm.memory.maintain import maintaining
from streamvlm.memory.store import Memory, ShardLimits
from tests.memory.writer_process import IDENTITY, record

ROOT = Path(__file__).parents[2]
COMMANDS = ("info", "verify", "compact", "forget", "export", "backup", "rebuild")


def run(*words: object):
    return CliRunner().invoke(app, ["memory", *map(str, words)], catch_exceptions=False)


def said(text):
    """Without the line breaks of a help page."""
    return " ".join(text.split())


def lines(ran):
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.fixture
def lobby(tmp_path) -> Path:
    """Thirty records of the streams s0, s1 and s2."""
    path, limits = tmp_path / "lobby", ShardLimits(max_keys=20)
    with Memory.create(path, IDENTITY, sync="process", limits=limits) as memory:
        for number in range(30):
            memory.append([record(number)])
    return path


def spoil(path, shard=0):
    """Flip a bit of the first record of a shard."""
    file = sorted((path / "shards").iterdir())[shard]
    content = bytearray(file.read_bytes())
    content[70] ^= 1
    file.write_bytes(content)


def test_memory_alone_lists_what_can_be_done():
    assert all(command in run().output for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_examples(command):
    ran = run(command, "--help")
    assert ran.exit_code == 0
    assert "Examples" in ran.stdout
    assert f"streamvlm memory {command} lobby/" in said(ran.stdout)
    assert "--json" in ran.stdout


def test_backup_says_that_a_copy_is_to_be_verified():
    assert "`streamvlm memory verify` of the copy" in said(run("backup", "--help").stdout)


def test_both_verifies_say_which_is_which():
    bytes_help = said(run("verify", "--help").stdout)
    assert "`streamvlm verify`" in bytes_help
    source_help = said(CliRunner().invoke(app, ["verify", "--help"]).stdout)
    assert "`streamvlm memory verify`" in source_help


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_no_memory_is_exit_code_1_and_one_sentence(command, tmp_path):
    rest = {"forget": ["--before", 5], "export": ["--out", tmp_path / "out"]}.get(command, [])
    for place in (tmp_path, tmp_path / "nowhere"):
        ran = run(command, place, *rest)
        assert ran.exit_code == 1
        assert re.match(r"error: .*(not a memory|no memory at)", ran.stderr)
        assert len(ran.stderr.splitlines()) == 1
        assert ran.stdout == ""


def test_info_says_what_is_there(lobby):
    ran = run("info", lobby)
    assert ran.exit_code == 0
    for text in ("int8", "30 in 3 shards", "0.9", "10 records, 0.0–28.0 s", "20 keys"):
        assert text in ran.stdout, text
    (found,) = lines(run("info", lobby, "--json"))
    assert found["records"] == 30
    assert found["identity"] == {"encoder": "e", "embedder": "k", "key_width": 16}
    assert [held["stream"] for held in found["holdings"]] == ["s0", "s1", "s2"]
    assert found["dead_bytes"] == 0


def test_info_of_an_empty_memory(tmp_path):
    Memory.create(tmp_path / "m", IDENTITY).close()
    ran = run("info", tmp_path / "m")
    assert ran.exit_code == 0
    assert "0 in 0 shards" in ran.stdout


def test_verify_of_an_intact_memory(lobby):
    ran = run("verify", lobby)
    assert (ran.exit_code, ran.stderr) == (0, "")
    assert ran.stdout == "ok: 30 records, every byte as it was written\n"
    expected = {"records": 30, "damaged_records": 0, "findings": 0}
    assert lines(run("verify", lobby, "--json")) == [expected]


def test_verify_names_what_is_damaged_and_fails(lobby):
    spoil(lobby)
    ran = run("verify", lobby)
    assert ran.exit_code == 1
    assert re.search(r"error: s0, 0–1 s: record 00000000 is damaged \(a key .*again", ran.stderr)
    assert "FAILED: 1 record damaged or lost" in ran.stdout
    first, last = lines(run("verify", lobby, "--json"))
    assert (first["finding"]["id"], first["finding"]["start"]) == (record(0).id, 0.0)
    assert last == {"records": 30, "damaged_records": 1, "findings": 1}


def test_forget_takes_a_stream_off_the_disk_by_the_end_of_its_name(lobby):
    before = sum(file.stat().st_size for file in (lobby / "shards").iterdir())
    ran = run("forget", lobby, "--stream", "s1")
    assert ran.exit_code == 0, ran.stderr
    assert re.match(r"forgotten: 10 records \([\d.]+ kB\) of s1\n", ran.stdout)
    (done,) = lines(run("forget", lobby, "--before", "10", "--json"))
    assert (done["records"], done["streams"]) == (7, ["s0", "s2"])
    after = sum(file.stat().st_size for file in (lobby / "shards").iterdir())
    assert after < before * 0.6
    (found,) = lines(run("info", lobby, "--json"))
    assert (found["records"], found["dead_bytes"]) == (13, 0)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ((), 2, "say what to forget: --stream NAME, --before SECONDS"),
        (("--stream", "s9"), 1, "s9 is not in the memory; name one of: s0, s1, s2"),
        (("--before", "-1"), 2, "--before"),
    ],
)
def test_forget_needs_to_know_what(lobby, words, code, message):
    ran = run("forget", lobby, *words)
    assert ran.exit_code == code
    assert message in said(ran.stderr)
    assert lines(run("info", lobby, "--json"))[0]["records"] == 30


def test_what_a_live_writer_still_holds_is_said(lobby):
    with Memory.open(lobby, sync="process") as writer:
        writer.append([record(31)])
        ran = run("forget", lobby, "--stream", "s1")
        assert "leaves the disk when the process writes again or ends" in ran.stderr
        (done,) = lines(run("compact", lobby, "--erase", "--json"))
        assert done["held"] == {"shards": 0, "bytes": 0}
        writer.append([record(34)])
    assert set(done["held"]) == set(Held.__dataclass_fields__)


def test_compact_gives_room_back_and_says_what_is_still_there(lobby):
    with Memory.open(lobby, sync="process", limits=ShardLimits(max_keys=20)) as memory:
        memory.roll()
        memory.forget("s0")
    ran = run("compact", lobby)
    assert ran.exit_code == 0, ran.stderr
    assert "given back: 0 bytes; 0 shards written anew" in ran.stdout
    assert "compact" in ran.stderr
    assert "--erase" in ran.stderr
    ran = run("compact", lobby, "--erase")
    assert re.match(r"given back: [\d.]+ kB; 3 shards written anew", ran.stdout)
    assert ran.stderr == ""
    with Memory.open(lobby, sync="process") as memory:
        memory.forget("s1", before=18)
        memory.forget("s2", before=18)
    (done,) = lines(run("compact", lobby, "--json"))
    assert done["given_back"] > 0
    (again,) = lines(run("compact", lobby, "--json"))
    assert (again["rewritten"], again["given_back"]) == (0, 0)


@pytest.mark.parametrize("command", ["compact", "forget", "backup", "rebuild"])
def test_while_another_process_maintains_it_is_said(lobby, command):
    with maintaining(lobby):
        ran = run(command, lobby, *(["--before", 5] if command == "forget" else []))
    assert ran.exit_code == 1
    assert "another process maintains the memory" in ran.stderr
    assert lines(run("info", lobby, "--json"))[0]["records"] == 30


def test_export_writes_what_was_asked_for(lobby, tmp_path):
    out = tmp_path / "out"
    ran = run("export", lobby, "--out", out, "--stream", "s1", "--since", 10, "--until", 20)
    assert ran.exit_code == 0, ran.stderr
    assert ran.stdout == f"exported: 4 records of 1 stream to {out}\n"
    assert len((out / "records.jsonl").read_text().splitlines()) == 4
    ran = run("export", lobby, "--out", out)
    assert ran.exit_code == 1
    assert "holds other files" in ran.stderr
    ran = run("export", lobby, "--out", tmp_path / "new", "--since", 9, "--until", 5)
    assert ran.exit_code == 2
    assert "must lie after since" in ran.stderr
    assert not (tmp_path / "new").exists()


def test_export_leaves_out_what_is_damaged_and_fails(lobby, tmp_path):
    spoil(lobby)
    ran = run("export", lobby, "--out", tmp_path / "out", "--json")
    assert ran.exit_code == 1
    assert "record 00000000 is damaged" in ran.stderr
    assert lines(ran) == [{"records": 29, "streams": 3, "damaged": [record(0).id]}]


def test_backup_of_the_catalogue_and_of_everything(lobby, tmp_path):
    ran = run("backup", lobby)
    assert ran.exit_code == 0, ran.stderr
    (copy,) = (lobby / "backup").iterdir()
    assert ran.stdout == f"copied: the catalogue to {copy}\n"
    ran = run("backup", lobby, "--to", tmp_path / "copy")
    assert ran.exit_code == 0, ran.stderr
    assert re.match(r"copied: 30 records in 3 shards \([\d.]+ kB\) to .*copy; 2 linked", ran.stdout)
    assert run("verify", tmp_path / "copy").exit_code == 0
    with Memory.open(lobby) as first, Memory.open(tmp_path / "copy") as second:
        for one, other in zip(first.load(first.ids()), second.load(second.ids()), strict=True):
            assert one.id == other.id
            assert torch.equal(one.tokens.features, other.tokens.features)
    sorted((lobby / "shards").iterdir())[0].unlink()
    ran = run("backup", lobby, "--to", tmp_path / "other")
    assert ran.exit_code == 1
    assert "1 shard missing or cut short" in ran.stderr


def test_rebuild_after_the_catalogue_was_lost(lobby):
    (lobby / "catalog.db").unlink()
    ran = run("info", lobby)
    assert ran.exit_code == 1
    assert f"streamvlm memory rebuild {lobby}" in ran.stderr
    ran = run("rebuild", lobby)
    assert ran.exit_code == 0, ran.stderr
    assert ran.stdout.startswith("rebuilt: 30 records in 3 shards")
    assert run("verify", lobby).exit_code == 0
    spoil(lobby)
    ran = run("rebuild", lobby, "--json")
    assert ran.exit_code == 1
    (done,) = lines(ran)
    assert (done["records"], done["damaged"]) == (29, 1)
    assert run("verify", lobby).exit_code == 0


def test_a_folder_where_nothing_may_be_written_can_be_looked_at():
    script = """
import os, sys
from typer.testing import CliRunner
from streamvlm.cli import app
def run(path, out):
    for words in (["info"], ["verify"], ["export", "--out", out], ["compact"], ["backup"],
                  ["backup", "--to", out + "copy"]):
        yield CliRunner().invoke(app, ["memory", words[0], path, *words[1:]])
other, path, out = sys.argv[1:]
assert all(ran.exit_code == 0 for ran in run(other, out + "/other"))  # everything is imported
if os.getuid() == 0:
    os.setgid(65534); os.setuid(65534)
for ran in run(path, out + "/mine"):
    print(ran.exit_code, ran.exception, ran.output.splitlines()[0])
"""
    with tempfile.TemporaryDirectory() as name:
        other, path, out = (Path(name) / each for each in ("other", "m", "out"))
        for each in (other, path):
            with Memory.create(each, IDENTITY, sync="process") as memory:
                memory.append([record(1)])
        out.mkdir()
        out.chmod(0o777)
        for folder in (path / "shards", path, Path(name)):
            folder.chmod(0o555)
        ran = subprocess.run(
            [sys.executable, "-c", script, other, path, out],
            cwd=ROOT,
            capture_output=True,
            text=True,
        )
        for folder in (Path(name), path, path / "shards"):
            folder.chmod(0o755)
    codes = [line.split()[0] for line in ran.stdout.splitlines() if line]
    assert codes == ["0", "0", "0", "1", "1", "1"], ran.stdout + ran.stderr
    assert ran.stdout.count("writing there is not permitted") == 3
    assert f"it may be copied like any folder: cp -r {path}" in ran.stdout
