"""How a configuration opens a memory."""

import pytest

from streamvlm.memory.storage import Storage
from tests.memory.writer_process import IDENTITY


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Storage(payload="raw"), "memory.payload is int8, not raw;"),
        (Storage(novelty=0.5), "memory.novelty is 0.9, not 0.5;"),
        (Storage(anchor_seconds=60.0), "memory.anchor_seconds is 300.0, not 60.0;"),
    ],
)
def test_what_only_a_new_memory_can_be_told_is_not_ignored_in_silence(path, caplog, other, said):
    Storage().writer(path, IDENTITY).close()
    Storage(sync="process").writer(path, IDENTITY).close()
    assert not caplog.records
    other.writer(path, IDENTITY).close()
    (warned,) = caplog.records
    assert warned.levelname == "WARNING"
    assert f"the memory {path} stays as it was made: {said}" in warned.getMessage()
