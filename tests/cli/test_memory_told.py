"""What the commands of `streamvlm memory` say when something is amiss, and what it costs."""

import numpy as np
import pytest

from streamvlm.memory.index import derived
from streamvlm.memory.index.held import NO_RECORDS
from streamvlm.memory.store import Memory, StreamInfo
from streamvlm.types import Coverage
from tests.cli.test_memory import lines, run, spoil
from tests.memory.writer_process import IDENTITY, record


@pytest.fixture
def lobby(tmp_path):
    """Three records of s0, s1 and s2, of which s1 is not read to its end."""
    path = tmp_path / "lobby"
    with Memory.create(path, IDENTITY, sync="process") as memory:
        memory.append([record(number) for number in range(3)])
        for name, is_whole in (("s0", True), ("s1", False), ("s3", False)):
            memory.put_stream(StreamInfo(name, 1, "d", "r", 1.0, Coverage(name, ()), is_whole))
    return path


def shard(path):
    (found,) = (path / "shards").iterdir()
    return found


def spoil_index(path):
    """Index files of the shard that are not what was written."""
    keys = [np.ones((4, 16), np.float16)]
    derived.save(path / "index", shard(path).stem, keys, b"codes", NO_RECORDS, 0)
    file = path / "index" / f"{shard(path).stem}.npy"
    content = bytearray(file.read_bytes())
    content[130] ^= 1
    file.write_bytes(content)


def test_info_says_which_ingest_was_interrupted(lobby):
    text = run("info", lobby).stdout
    assert text.count("run the same ingest again") == 2
    first, rest = text.split("\ns1\n")
    assert "ingest again" not in first
    assert "indexed; its ingest goes on or was interrupted" in rest.splitlines()[0]
    assert "\n  no records; its ingest" in rest
    assert lines(run("info", lobby, "--json"))[0]["unfinished"] == ["s1", "s3"]


def test_info_warns_of_a_missing_shard_below_the_table(lobby):
    shard(lobby).unlink()
    ran = run("info", lobby)
    assert ran.exit_code == 0
    warning = f"warning: 1 shard missing; see what is lost: streamvlm memory verify {lobby}\n"
    assert ran.stderr == warning
    assert ran.output.endswith(warning)
    assert "with it 1 record of s0;" in run("verify", lobby).stderr


def test_verify_forgives_damaged_index_files_and_nothing_else(lobby):
    spoil_index(lobby)
    ran = run("verify", lobby)
    assert ran.exit_code == 0
    assert ran.stderr.startswith("warning: the index files of shard")
    assert ran.stdout.startswith("ok: 3 records, every byte as it was written, but index files")
    (found, last) = lines(run("verify", lobby, "--json"))
    assert (found["finding"]["kind"], last["findings"]) == ("index", 1)
    spoil(lobby)
    ran = run("verify", lobby)
    assert ran.exit_code == 1
    assert ran.stdout == "FAILED: 1 record damaged or lost; 2 findings in all\n"


def test_an_export_of_nothing_says_why(lobby, tmp_path):
    ran = run("export", lobby, "--out", tmp_path / "out", "--since", 99)
    assert ran.exit_code == 0
    assert "exported: 0 records" in ran.stdout
    assert ran.stderr == "nothing lies within those limits\n"


def test_rebuild_says_what_to_do_where_it_does_not_know_what_was_watched(lobby):
    ran = run("rebuild", lobby)
    assert "what was watched is known of 3 streams" in ran.stdout
    assert "what was watched is not known of 1 stream; run the same ingest again" in ran.stderr
    assert "what was forgotten of them comes back" in ran.stderr
    (done,) = lines(run("rebuild", lobby, "--json"))
    assert done["unknown"] == 1
