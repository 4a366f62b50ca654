from pathlib import Path

import pytest

from streamvlm.errors import SourceError
from streamvlm.video.identity import identify


@pytest.fixture
def big(tmp_path):
    """A file larger than what is read of it."""
    path = tmp_path / "big.mp4"
    path.write_bytes(bytes(range(256)) * 2**15 + b"end")
    return path


def test_equal_content_has_equal_digest_whatever_the_name(big, tmp_path):
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(big.read_bytes())
    found = identify(str(big))
    assert found.digest == identify(str(copy)).digest
    assert found.size == 2**23 + 3
    assert found.stream == str(big)


@pytest.mark.parametrize("at", [0, 2**20 - 1, 2**20, -1, -(2**20)])
def test_a_change_at_the_edges_is_noticed(big, at):
    before = identify(str(big))
    data = bytearray(big.read_bytes())
    data[at] ^= 1
    big.write_bytes(data)
    assert identify(str(big)).digest != before.digest


def test_other_content_of_the_same_length_is_noticed_in_the_middle(big):
    before = identify(str(big))
    data = bytearray(big.read_bytes())
    data[2**21 : 2**22] = bytes(2**21)
    big.write_bytes(data)
    assert identify(str(big)).digest != before.digest


def test_a_longer_file_is_noticed(big):
    before = identify(str(big))
    with big.open("ab") as file:
        file.write(b"x")
    assert identify(str(big)) != before


def test_a_huge_file_is_read_in_part_only(tmp_path):
    path = tmp_path / "huge.mp4"
    with path.open("wb") as file:
        file.seek(50 * 2**30)
        file.write(b"x")
    found = identify(str(path))
    assert found.size == 50 * 2**30 + 1


@pytest.mark.parametrize("size", [1, 2**20, 2**20 + 1, 2 * 2**20, 2 * 2**20 + 15])
def test_files_of_any_size_have_an_identity(tmp_path, size):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"a" * size)
    assert identify(str(path)).size == size


def test_the_stream_is_an_absolute_path(big, monkeypatch):
    monkeypatch.chdir(big.parent)
    assert identify(big.name).stream == str(Path(big))


def test_a_missing_file_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match="no such file"):
        identify(str(tmp_path / "none.mp4"))
