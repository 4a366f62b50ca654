import io
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from streamvlm.video.pictures import Painter, fitted_size, frame_hash, small_ycc, thumbnail


@pytest.mark.parametrize(
    ("size", "aspect", "expected"),
    [
        ((1920, 1080), 1, (448, 252)),
        ((1080, 1920), 1, (252, 448)),
        ((320, 240), 1, (320, 240)),
        ((1, 1), 1, (1, 1)),
        ((4000, 2), 1, (448, 1)),
        ((720, 576), Fraction(16, 15), (448, 336)),
        ((320, 240), Fraction(2), (320, 120)),
        ((320, 240), Fraction(1, 2), (160, 240)),
    ],
)
def test_pictures_fit_with_square_pixels_and_are_never_enlarged(size, aspect, expected):
    assert fitted_size(*size, 448, Fraction(aspect)) == expected


def test_a_painted_picture_keeps_its_colours_when_made_small():
    red = np.zeros((200, 100, 3), dtype=np.uint8)
    red[..., 0] = 255
    image = Painter(50, Fraction(1))(av.VideoFrame.from_ndarray(red, format="rgb24"))
    assert image.shape == (50, 25, 3)
    assert (image == (255, 0, 0)).all()


def test_a_painted_picture_is_an_independent_writable_copy():
    source = av.VideoFrame.from_ndarray(np.zeros((8, 8, 3), dtype=np.uint8), format="rgb24")
    paint = Painter(8, Fraction(1))
    first = paint(source)
    first[:] = 9
    assert first.flags.owndata
    assert (paint(source) == 0).all()


def test_a_painter_copes_with_pictures_of_changing_size():
    paint = Painter(100, Fraction(1))
    shapes = [
        paint(av.VideoFrame.from_ndarray(np.zeros((h, w, 3), dtype=np.uint8), format="rgb24")).shape
        for h, w in [(50, 100), (400, 200), (3, 5)]
    ]
    assert shapes == [(50, 100, 3), (100, 50, 3), (3, 5, 3)]


def test_the_hash_is_fixed_for_all_machines():
    assert frame_hash(np.zeros((2, 3, 3), dtype=np.uint8)) == 0x786AF0768D20E0DB


def test_the_hash_changes_with_one_pixel_and_with_the_shape():
    image = np.zeros((4, 6, 3), dtype=np.uint8)
    other = image.copy()
    other[3, 5, 2] = 1
    hashes = {frame_hash(image), frame_hash(other), frame_hash(image.reshape(6, 4, 3))}
    assert len(hashes) == 3
    assert all(0 <= each < 2**64 for each in hashes)


def test_the_hash_does_not_depend_on_memory_order():
    image = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert (
        frame_hash(image[::-1][::-1]) == frame_hash(np.asfortranarray(image)) == frame_hash(image)
    )


def test_a_thumbnail_is_a_small_jpeg_with_the_aspect_kept():
    image = np.full((300, 600, 3), 200, dtype=np.uint8)
    data = thumbnail(image)
    with Image.open(io.BytesIO(data)) as small:
        assert (small.format, small.size) == ("JPEG", (160, 80))
        assert abs(int(np.asarray(small).mean()) - 200) <= 1
    assert data == thumbnail(image)


def test_a_thumbnail_of_a_tiny_picture_is_not_enlarged():
    with Image.open(io.BytesIO(thumbnail(np.zeros((1, 1, 3), dtype=np.uint8)))) as small:
        assert small.size == (1, 1)


def test_small_blocks_average_brightness_and_colour():
    image = np.zeros((72, 128, 3), dtype=np.uint8)
    image[:, 64:] = (0, 0, 255)
    blocks = small_ycc(image)
    assert blocks.shape == (36, 64, 3)
    assert (blocks[:, :32] == (0, 128, 128)).all()
    assert (blocks[:, 32:, 1] == 255).all()


def test_small_blocks_exist_for_a_picture_of_one_pixel():
    assert (small_ycc(np.full((1, 1, 3), 7, dtype=np.uint8))[..., 0] == 7).all()
