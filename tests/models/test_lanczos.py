"""SmolVLM's frames, against the stock processor on PIL."""

import json

import numpy as np
import pytest
import torch
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from streamvlm.errors import ModelError
from streamvlm.models._lanczos import read_twice, twice_resized

SETTINGS = {
    "size": {"longest_edge": 96},
    "max_image_size": {"longest_edge": 24},
    "resample": 1,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
    "rescale_factor": 1 / 255,
}


@pytest.fixture
def write(tmp_path):
    def make(**changes):
        settings = {k: v for k, v in {**SETTINGS, **changes}.items() if v is not None}
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
        return tmp_path

    return make


def photo(height, width, seed=0):
    """A smooth picture with some noise, nearer to video than noise alone."""
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x * 1.5, y * 2.5, (x + y) % 256], axis=-1)
    noise = np.random.default_rng(seed).normal(0, 12, smooth.shape)
    return np.clip(smooth + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("height", "width"), [(90, 160), (160, 90), (47, 47), (24, 24), (31, 97), (5, 300), (6, 2)]
)
@pytest.mark.parametrize("edge", [20, 36, 96])
def test_pixels_are_those_of_the_stock_processor(write, height, width, edge):
    folder = write(size={"longest_edge": edge})
    stock = SmolVLMImageProcessorPil.from_pretrained(folder, do_image_splitting=False)
    image = photo(height, width)
    expected = stock([[image]], return_tensors="pt")["pixel_values"][0]
    pixels, _ = next(twice_resized([image], read_twice(folder), 1))
    # Within a thousandth of a grey level: the same bytes, normalised in another order.
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-5)


def test_the_first_resize_is_not_lost(write):
    found = [
        next(twice_resized([photo(90, 160)], read_twice(write(size={"longest_edge": edge})), 1))[0]
        for edge in (20, 96)
    ]
    assert (found[0] - found[1]).abs().mean() > 0.01


@pytest.mark.parametrize("batch", [1, 2, 4, 5, 9])
def test_every_batch_is_full_and_says_how_many_of_it_are_real(write, batch):
    how = read_twice(write())
    images = [photo(30 + n, 40, seed=n) for n in range(5)]
    batches = list(twice_resized(images, how, batch))
    assert {pixels.shape for pixels, _ in batches} == {(batch, 3, 24, 24)}
    alone = torch.cat([next(twice_resized([image], how, 1))[0] for image in images])
    assert torch.equal(torch.cat([pixels[:count] for pixels, count in batches]), alone)
    pixels, count = batches[-1]
    assert torch.equal(pixels[count:], pixels[count - 1 : count].expand_as(pixels[count:]))


def test_flipped_and_read_only_frames_are_taken_as_they_are(write):
    how, image = read_twice(write()), photo(30, 40)
    flipped = image[::-1, ::-1]
    flipped.flags.writeable = False
    found, expected = (
        next(twice_resized([each], how, 1))[0] for each in (flipped, np.ascontiguousarray(flipped))
    )
    assert torch.equal(found, expected)


def test_the_size_for_images_goes_before_that_for_video_as_in_transformers(write):
    video = {"fps": 1, "max_frames": 64, "video_size": {"longest_edge": 36}}
    assert read_twice(write(video_sampling=video)).edge == 96
    assert read_twice(write(video_sampling=video, size=None)).edge == 36


def test_no_side_becomes_longer_than_4096_before_the_square(write):
    assert read_twice(write(size={"longest_edge": 9000})).edge == 4096


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_image_size": None}, "max_image_size"),
        ({"size": {"height": 24, "width": 24}}, "longest_edge"),
        ({"image_mean": [0.5]}, "image_mean"),
        ({"image_std": None}, "image_std"),
        ({"resample": 3}, "resample 3"),
        ({"do_center_crop": True}, "centre crop"),
    ],
)
def test_a_file_that_asks_for_something_else_is_refused(write, changes, said):
    with pytest.raises(ModelError, match=said):
        read_twice(write(**changes))


def test_a_checkpoint_without_the_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"preprocessor_config\.json"):
        read_twice(tmp_path)
