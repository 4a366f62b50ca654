"""The strip says which picture it is, also after H.264, and nothing else is read as one."""

import numpy as np
import pytest

from streamvlm.bench.world.drawing import picture, write_film
from streamvlm.bench.world.planning import plan_film
from streamvlm.bench.world.strip import read_strip, stamp
from streamvlm.video.sources import Sampling, open_source

SIZE = 384


def grey(size=SIZE):
    return np.full((size, size, 3), 127, np.uint8)


@pytest.mark.parametrize("size", [64, 96, 100, 192, 384, 720])
@pytest.mark.parametrize(
    ("number", "milliseconds"), [(0, 0), (1, 1), (86_399, 86_399_000), (2**24 - 1, 2**32 - 1)]
)
def test_what_is_stamped_is_read(size, number, milliseconds):
    image = grey(size)
    stamp(image, number, milliseconds)
    assert read_strip(image) == (number, milliseconds)


@pytest.mark.parametrize(("number", "milliseconds"), [(2**24, 0), (0, 2**32)])
def test_what_is_too_large_is_not_stamped(number, milliseconds):
    with pytest.raises(OverflowError):
        stamp(grey(), number, milliseconds)


def test_only_the_lowest_rows_are_drawn_into():
    image = grey()
    stamp(image, 5, 5000)
    assert (image[: -(SIZE // 24)] == 127).all()
    assert set(np.unique(image[-(SIZE // 24) :])) == {0, 255}


@pytest.mark.parametrize("light", [0, 127, 255])
def test_a_picture_of_one_colour_has_no_strip(light):
    assert read_strip(np.full((SIZE, SIZE, 3), light, np.uint8)) is None


def test_pictures_of_films_have_no_strip():
    for seed in range(12):
        for split in ("training", "backgrounds"):
            film = plan_film(seed, 2, split=split)
            for second in range(0, film.seconds, 3):
                assert read_strip(picture(film, second, 96)) is None


def test_what_looks_like_a_strip_by_chance_is_not_read():
    random = np.random.default_rng(0)
    dull = 127 + 45 * random.choice([-1, 1], (2000, 1, 64, 1)).repeat(24, 1).repeat(3, 3)
    assert all(read_strip(image.astype(np.uint8)) is None for image in dull)


def test_a_damaged_strip_is_not_read():
    image = grey()
    stamp(image, 1000, 40_000)
    block = SIZE // 64
    for index in range(64):
        damaged = image.copy()
        damaged[:, index * block : (index + 1) * block] ^= 255
        assert read_strip(damaged) is None


@pytest.mark.parametrize("size", [192, SIZE])
def test_the_strip_survives_h264_and_agrees_with_the_decoded_times(tmp_path, size):
    film = plan_film(4, 4, split="seeds")
    path = write_film(film, tmp_path / "film.mp4", fps=4, size=size, crf=28, strip=True)
    frames = list(open_source(str(path), Sampling(fps=2)))
    assert len(frames) == 2 * film.seconds
    for frame in frames:
        milliseconds = round(1000 * frame.seconds)
        assert read_strip(frame.image) == (4 * milliseconds // 1000, milliseconds)


def test_without_being_asked_for_there_is_no_strip(tmp_path):
    path = write_film(plan_film(4, 1, split="seeds"), tmp_path / "film.mp4", fps=1, size=192)
    assert all(read_strip(frame.image) is None for frame in open_source(str(path), Sampling()))
