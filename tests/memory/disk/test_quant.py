import pytest
import torch

from streamvlm.errors import MemoryStoreError
from streamvlm.memory.disk import quant


def cosine_loss(one: torch.Tensor, other: torch.Tensor) -> float:
    cosine = torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=-1)
    return float(1 - cosine.mean())


def there_and_back(payload: str, features: torch.Tensor) -> torch.Tensor:
    return quant.decode(payload, quant.encode(payload, features), features.dtype)


@pytest.fixture
def loud() -> torch.Tensor:
    """Tokens of 1,024 channels, six of which are ten times louder than the others."""
    features = torch.randn(400, 1024, generator=torch.Generator().manual_seed(0))
    features[:, [3, 100, 400, 401, 777, 1000]] *= 10
    return features


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_raw_gives_back_every_bit(dtype):
    features = torch.randn(5, 70, generator=torch.Generator().manual_seed(1)).to(dtype)
    back = there_and_back("raw", features)
    assert back.dtype == dtype
    assert torch.equal(back, features)


def test_int8_is_as_near_as_the_study_found(loud):
    plain = torch.randn(400, 1024, generator=torch.Generator().manual_seed(2))
    assert cosine_loss(plain, there_and_back("int8", plain)) < 2.5e-5
    assert cosine_loss(loud, there_and_back("int8", loud)) < 8e-5


def test_loud_channels_drown_the_others_only_in_their_own_block(loud):
    back = there_and_back("int8", loud)
    far_from_loud = slice(128, 384)
    error = (back - loud)[:, far_from_loud].norm() / loud[:, far_from_loud].norm()
    per_token = (loud.abs().amax(1, keepdim=True) / 127).expand_as(loud)
    per_token_error = ((loud / per_token).round() * per_token - loud)[:, far_from_loud].norm()
    assert error < 0.01
    assert error < 0.3 * per_token_error / loud[:, far_from_loud].norm()


def test_int8_error_stays_within_half_a_step_of_its_block():
    features = torch.randn(50, 100, generator=torch.Generator().manual_seed(3))
    error = (there_and_back("int8", features) - features).abs()
    for block in (slice(0, 64), slice(64, 100)):
        step = features[:, block].abs().amax(1, keepdim=True) / 127
        # The step itself is rounded to float16, which moves the largest value by a little.
        assert bool((error[:, block] <= 0.57 * step).all())


def test_int4_is_as_near_as_the_study_found(loud):
    plain = torch.randn(400, 1024, generator=torch.Generator().manual_seed(2))
    assert cosine_loss(plain, there_and_back("int4", plain)) < 5.5e-3
    assert cosine_loss(loud, there_and_back("int4", loud)) < 1.2e-2


def test_int4_error_stays_within_half_a_step_of_its_block():
    features = torch.randn(50, 50, generator=torch.Generator().manual_seed(3))
    error = (there_and_back("int4", features) - features).abs()
    for block in (slice(0, 32), slice(32, 50)):
        step = features[:, block].abs().amax(1, keepdim=True) / 7
        assert bool((error[:, block] <= 0.51 * step).all())


def test_int4_codes_lie_two_in_a_byte_the_even_channel_low():
    parts = quant.encode("int4", torch.tensor([[7.0, -7.0, 1.4, 0.0]]))
    assert parts["scales"].tolist() == [[1.0]]
    assert parts["codes"].tolist() == [[(8 + 7) + 16 * (8 - 7), (8 + 1) + 16 * 8]]


def test_int4_takes_a_little_over_half_of_int8():
    parts = quant.encode("int4", torch.randn(10, 1024).half())
    assert sum(part.nbytes for part in parts.values()) == 10 * 576


@pytest.mark.parametrize("width", [1, 2, 31, 32, 33, 70, 200])
def test_int4_takes_any_width(width):
    features = torch.randn(4, 3, width, generator=torch.Generator().manual_seed(4)).half()
    back = there_and_back("int4", features)
    assert back.shape == features.shape
    assert back.dtype == torch.float16
    assert cosine_loss(features, back) < 2e-2


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_int4_written_anew_again_and_again_loses_nothing_more(dtype):
    features = torch.randn(20, 128, generator=torch.Generator().manual_seed(6)).to(dtype)
    once = there_and_back("int4", features)
    again = once
    for _ in range(5):
        again = there_and_back("int4", again)
    assert torch.allclose(again.float(), once.float(), rtol=0.02, atol=0)


@pytest.mark.parametrize("payload", ["int8", "int4"])
def test_rounding_is_to_the_nearest_and_halves_to_even(payload):
    loudest = 127.0 if payload == "int8" else 7.0
    features = torch.tensor([[loudest, 0.5, 1.5, 2.5, -0.5, -1.5, 0.49, 0.51]])
    expected = torch.tensor([[loudest, 0.0, 2.0, 2.0, 0.0, -2.0, 0.0, 1.0]])
    assert torch.equal(there_and_back(payload, features), expected)


@pytest.mark.parametrize("payload", ["int8", "int4"])
def test_many_rows_are_each_written_as_if_alone(payload):
    features = torch.randn(300, 1000, generator=torch.Generator().manual_seed(7))
    alone = torch.cat([there_and_back(payload, row[None]) for row in features])
    assert torch.equal(there_and_back(payload, features), alone)


@pytest.mark.parametrize("payload", ["raw", "int8", "int4"])
@pytest.mark.parametrize("shape", [(0, 70), (0, 3, 64), (0, 33)])
def test_no_tokens_keep_their_width(payload, shape):
    assert there_and_back(payload, torch.zeros(shape)).shape == shape


@pytest.mark.parametrize("width", [1, 63, 64, 65, 200])
def test_int8_takes_any_width(width):
    features = torch.randn(7, width, generator=torch.Generator().manual_seed(4))
    parts = quant.encode("int8", features)
    assert parts["codes"].shape == (7, width)
    assert parts["scales"].shape == (7, -(-width // 64))
    assert there_and_back("int8", features).shape == (7, width)


def test_int8_halves_float16():
    parts = quant.encode("int8", torch.randn(10, 1024).half())
    stored = sum(part.numel() * part.element_size() for part in parts.values())
    assert stored == 10 * 1056


def test_int8_keeps_the_type_and_the_leading_axes():
    features = torch.randn(4, 3, 70, generator=torch.Generator().manual_seed(5)).bfloat16()
    back = there_and_back("int8", features)
    assert back.dtype == torch.bfloat16
    assert back.shape == (4, 3, 70)
    assert cosine_loss(features.float(), back.float()) < 1e-4


@pytest.mark.parametrize("payload", ["int8", "int4"])
def test_zeros_come_back_as_zeros(payload):
    assert torch.equal(there_and_back(payload, torch.zeros(3, 70)), torch.zeros(3, 70))


@pytest.mark.parametrize("payload", ["raw", "int8", "int4"])
def test_the_input_is_left_as_it_was(loud, payload):
    before = loud.clone()
    there_and_back(payload, loud)
    assert torch.equal(loud, before)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e9])
def test_int8_refuses_what_it_cannot_hold(value):
    features = torch.zeros(2, 64)
    features[1, 3] = value
    with pytest.raises(MemoryStoreError, match="payload='raw'"):
        quant.encode("int8", features)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e6])
def test_int4_refuses_what_it_cannot_hold(value):
    features = torch.zeros(2, 64)
    features[1, 3] = value
    with pytest.raises(MemoryStoreError, match="payload 'int4'"):
        quant.encode("int4", features)


def test_no_new_memory_is_made_with_int4():
    with pytest.raises(MemoryStoreError, match="new memories"):
        quant.check_payload("int4")
    for payload in quant.CHOICES:
        quant.check_payload(payload)
    assert set(quant.CHOICES) < set(quant.PAYLOADS)


def test_an_unknown_codec_is_refused_with_the_nearest_name():
    with pytest.raises(MemoryStoreError, match="did you mean 'int8'"):
        quant.check_payload("int")
