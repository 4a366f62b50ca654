"""Frames to pixels, against the formula of transformers' processors and against PIL."""

import json

import numpy as np
import pytest
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import (
    Qwen2VLImageProcessorPil,
    smart_resize,
)
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from streamvlm.errors import ModelError
from streamvlm.pixels import (
    PixelBudget,
    normalise,
    patchify,
    pixel_batches,
    read_preprocessing,
    resize,
)

SETTINGS = {
    "size": {"height": 24, "width": 24},
    "resample": 3,
    "image_mean": [0.48, 0.46, 0.41],
    "image_std": [0.27, 0.26, 0.28],
    "rescale_factor": 1 / 255,
}


@pytest.fixture
def write(tmp_path):
    def make(settings, name="preprocessor_config.json"):
        (tmp_path / name).write_text(json.dumps(settings))
        return tmp_path

    return make


@pytest.fixture
def how(write):
    return read_preprocessing(write(SETTINGS), "image")


@pytest.fixture
def photos():
    """Smooth pictures with some noise, nearer to video than noise alone."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[0:90, 0:160]
    smooth = np.stack([x * 1.5, y * 2.5, (x + y) % 256], axis=-1)
    return [
        np.clip(smooth + rng.normal(0, 12, smooth.shape), 0, 255).astype(np.uint8) for _ in range(5)
    ]


def test_preprocessing_is_bit_equal_to_the_formula_of_the_stock_processors(how, photos):
    """torchvision's resize of a uint8 batch is this call; transformers then fuses scale and mean.

    torchvision itself is not needed to run StreamVLM, so it is not here to be compared with.
    """
    batch = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2).contiguous()
    resized = torch.nn.functional.interpolate(batch, (24, 24), mode="bicubic", antialias=True)
    mean = torch.tensor(SETTINGS["image_mean"]) * (1.0 / SETTINGS["rescale_factor"])
    std = torch.tensor(SETTINGS["image_std"]) * (1.0 / SETTINGS["rescale_factor"])
    expected = resized.float().sub(mean[:, None, None]).div(std[:, None, None])
    found = torch.cat([pixels[:count] for pixels, count in pixel_batches(photos, how, 2)])
    assert torch.equal(found, expected)


@pytest.mark.parametrize("size", [24, 90, 200])
def test_preprocessing_is_within_one_grey_level_of_the_stock_pil_processor(write, photos, size):
    settings = SETTINGS | {"size": {"height": size, "width": size}}
    stock = SiglipImageProcessorPil(**settings)(photos[0], return_tensors="pt")["pixel_values"][0]
    how = read_preprocessing(write(settings), "image")
    found = normalise(resize(photos[0], how.size, how.resample), how)
    levels = (found - stock).abs() * torch.tensor(how.std)[:, None, None] * 255
    print(f"{size} px: largest difference {levels.max():.3f} grey levels of 255")  # noqa: T201
    assert levels.max() <= 1.001
    assert levels.mean() < 0.2


@pytest.mark.parametrize("batch", [1, 2, 4, 5, 9])
def test_every_batch_is_full_and_says_how_many_of_it_are_real(how, photos, batch):
    batches = list(pixel_batches(photos, how, batch))
    assert {pixels.shape for pixels, _ in batches} == {(batch, 3, 24, 24)}
    assert sum(count for _, count in batches) == 5
    pixels, count = batches[-1]
    assert torch.equal(pixels[count:], pixels[count - 1 : count].expand_as(pixels[count:]))


def test_a_picture_of_the_right_size_is_not_touched(photos):
    found = resize(photos[0][:24, :24], (24, 24), "bicubic")
    assert np.array_equal(found.permute(1, 2, 0).numpy(), photos[0][:24, :24])


def test_read_only_and_flipped_pictures_are_taken(photos):
    flipped = photos[0][:, ::-1]
    flipped.flags.writeable = False
    expected = resize(flipped.copy(), (24, 24), "bilinear")
    assert torch.equal(resize(flipped, (24, 24), "bilinear"), expected)


def test_a_single_pixel_becomes_a_plain_picture(how):
    pixels, _ = next(pixel_batches([np.full((1, 1, 3), 7, np.uint8)], how, 1))
    assert pixels.std(dim=(2, 3)).max() == 0


def test_a_file_for_videos_wins_over_that_for_images(write):
    write(SETTINGS)
    folder = write(SETTINGS | {"resample": 2}, "video_preprocessor_config.json")
    assert read_preprocessing(folder, "video").resample == "bilinear"
    assert read_preprocessing(folder, "image").resample == "bicubic"


def test_the_processors_file_of_transformers_5_wins_over_older_ones(write):
    write(SETTINGS)
    newer = {"video_processor": SETTINGS | {"resample": 2}, "image_processor": SETTINGS}
    folder = write(newer, "processor_config.json")
    assert read_preprocessing(folder, "video").resample == "bilinear"
    assert read_preprocessing(folder, "image").resample == "bicubic"


def test_a_processors_file_without_pictures_leaves_it_to_the_older_files(write):
    write({"processor_class": "LlavaOnevisionProcessor"}, "processor_config.json")
    assert read_preprocessing(write(SETTINGS), "video").size == (24, 24)


def test_a_checkpoint_may_limit_patches_instead_of_the_size(write):
    limited = {**SETTINGS, "size": None, "max_num_patches": 256}
    how = read_preprocessing(write(limited), "image")
    assert (how.size, how.patches) == (None, 256)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"resample": 1}, "asks for resample 1, which is not supported"),
        ({"do_center_crop": True}, "asks for a centre crop, which is not supported"),
        ({"size": {"shortest_edge": 24}}, 'gives no "size" with height and width'),
        ({"image_mean": None}, 'gives no "image_mean" of three numbers'),
        ({"image_std": [1.0]}, 'gives no "image_std" of three numbers'),
    ],
)
def test_what_cannot_be_followed_is_refused(write, change, sentence):
    with pytest.raises(ModelError, match=sentence):
        read_preprocessing(write(SETTINGS | change), "image")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"has no preprocessor_config.json.*add the file"):
        read_preprocessing(tmp_path, "image")


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(ModelError, match="is not JSON"):
        read_preprocessing(tmp_path, "image")


@pytest.mark.parametrize("cell", [28, 32])
def test_a_budget_gives_every_picture_the_size_that_the_stock_processor_gives_it(cell):
    least, most = 16 * cell**2, 300 * cell**2
    budget = PixelBudget(cell, least, most)
    rng = np.random.default_rng(0)
    sizes = [(360, 640), (1080, 1920), (28, 28), (14, 2000), *rng.integers(20, 3000, (300, 2))]
    for height, width in sizes:
        expected = smart_resize(int(height), int(width), cell, least, most)
        assert budget.size(int(height), int(width)) == expected


def test_a_budget_holds_for_every_picture_that_is_not_very_long():
    budget = PixelBudget(28, 4 * 28**2, 100 * 28**2)
    for height, width in np.random.default_rng(1).integers(10, 2000, (200, 2)):
        if 1 / 8 < height / width < 8:
            rows, columns = budget.size(int(height), int(width))
            assert rows % 28 == columns % 28 == 0
            assert budget.least <= rows * columns <= budget.most


@pytest.mark.parametrize(("least", "most"), [(783, 2000), (2000, 1999)])
def test_a_budget_that_fits_no_picture_is_refused(least, most):
    with pytest.raises(ValueError, match=r"must rise from 784 \(one token\)"):
        PixelBudget(28, least, most)


def test_patches_are_those_of_the_stock_processor(write, photos):
    """The stock video processor needs torchvision; that for images does not, and repeats a frame.

    It computes in float64 and rounds once more, so the last place may differ.
    """
    settings = {key: value for key, value in SETTINGS.items() if key != "size"}
    stock = Qwen2VLImageProcessorPil(**settings, do_resize=False, patch_size=4, merge_size=2)
    picture = photos[0][:32, :48]
    found = stock(picture, return_tensors="pt")
    how = read_preprocessing(write(settings), "image", sized=False)
    frames = torch.from_numpy(picture.copy()).permute(2, 0, 1).expand(2, -1, -1, -1)
    patches = patchify(normalise(frames, how), 4, 2, 2)
    assert found["image_grid_thw"].tolist() == [[1, 8, 12]]
    torch.testing.assert_close(patches, found["pixel_values"], rtol=0, atol=1e-6)


def test_patches_hold_the_frames_of_their_step_in_order():
    pictures = torch.arange(4.0)[:, None, None, None].expand(4, 3, 8, 8)
    patches = patchify(pictures, 4, 2, 2).reshape(2, 4, 3, 2, 16)
    assert patches[0, :, :, 0].unique().tolist() == [0]
    assert patches[0, :, :, 1].unique().tolist() == [1]
    assert patches[1, :, :, 0].unique().tolist() == [2]


def test_pictures_without_a_fixed_size_take_the_one_they_are_given(write, photos):
    how = read_preprocessing(write(SETTINGS | {"size": {"longest_edge": 9}}), "video", sized=False)
    pixels, _ = next(pixel_batches(photos, how, 2, (8, 16)))
    assert (how.size, pixels.shape) == (None, (2, 3, 8, 16))
