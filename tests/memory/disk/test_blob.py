import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from streamvlm.memory.disk import blob

ARRAYS = {
    "codes": torch.arange(-6, 6, dtype=torch.int8).view(3, 4),
    "brain": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
    "seconds": np.array([0.5, 1e9]),
    "hash": np.array([2**64 - 1], np.uint64),
    "nothing": np.empty((0, 5), np.float32),
    "picture": np.frombuffer(b"jpeg", np.uint8),
}


def saved(text: str = "a text") -> bytes:
    return b"".join(blob.save(ARRAYS, text))


def test_arrays_and_text_come_back_as_they_were():
    arrays = blob.Arrays(bytearray(saved('{"a": "ü"}')))
    assert arrays.text == blob.text(saved('{"a": "ü"}')) == '{"a": "ü"}'
    assert arrays.names == ARRAYS.keys()
    for name, wanted in ARRAYS.items():
        wanted = torch.as_tensor(np.array(wanted) if isinstance(wanted, np.ndarray) else wanted)
        assert arrays.tensor(name).dtype == wanted.dtype
        assert torch.equal(arrays.tensor(name), wanted)


def test_the_safetensors_library_reads_what_is_written(tmp_path):
    arrays = blob.Arrays(bytearray(saved()))
    theirs = safetensors.torch.load(saved())
    assert theirs.keys() == arrays.names
    assert all(torch.equal(theirs[name], arrays.tensor(name)) for name in arrays.names)
    (tmp_path / "one.safetensors").write_bytes(saved())
    with safe_open(tmp_path / "one.safetensors", "pt") as file:
        assert file.metadata() == {"record": "a text"}


def test_what_the_safetensors_library_writes_is_read():
    theirs = {name: torch.as_tensor(np.array(ARRAYS[name])) for name in ("seconds", "hash")}
    arrays = blob.Arrays(bytearray(safetensors.torch.save(theirs, {"record": "a text"})))
    assert arrays.text == "a text"
    assert all(torch.equal(theirs[name], arrays.tensor(name)) for name in theirs)


def test_large_arrays_are_not_copied():
    features = torch.zeros(1000, 8)
    *_, piece = blob.save({"features": features}, "")
    features[-1, -1] = 1
    assert piece[-4:] == np.float32(1).tobytes()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x04\0\0\0\0\0\0\0nope",
        b"\x02\0\0\0\0\0\0\0{}",
        b"\x02\0\0\0\0\0\0\0[]",
        saved().replace(b'"I8"', b'"Z8"'),
        saved().replace(b"[3,4]", b"[4,4]"),
        saved()[:-8],
    ],
)
def test_what_is_no_blob_is_refused(content):
    with pytest.raises(ValueError):  # noqa: PT011
        read(content)


def read(content: bytes) -> None:
    arrays = blob.Arrays(bytearray(content))
    for name in arrays.names:
        arrays.tensor(name)
