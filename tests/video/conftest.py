"""Real encoded videos for the tests: found beside the repository, or made here."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

CLIPS = Path(__file__).parents[3] / "shared" / "videos"
NUM_BITS = 10


def draw_number(number, width, height):
    """A picture that says its own number in white and black bars: the oracle of these tests."""
    bits = [(number >> bit) & 1 for bit in range(NUM_BITS)]
    row = np.repeat(np.array(bits, dtype=np.uint8) * 255, -(-width // NUM_BITS))[:width]
    return np.ascontiguousarray(np.broadcast_to(row[None, :, None], (height, width, 3)))


@pytest.fixture
def read_number():
    """Read the number that `draw_number` drew back from a decoded picture."""

    def read(image):
        bar = -(-image.shape[1] // NUM_BITS)
        centres = [min(bit * bar + bar // 2, image.shape[1] - 1) for bit in range(NUM_BITS)]
        return sum(int(image[:, c].mean() > 128) << bit for bit, c in enumerate(centres))

    return read


@pytest.fixture
def clip():
    """Path of a real clip by its name in shared/videos; skips where that folder is missing."""

    def find(name):
        path = CLIPS / name
        if not path.exists():
            pytest.skip(f"no {path}")
        return str(path)

    return find


@pytest.fixture
def encode(tmp_path):
    """Encode pictures to a file; pictures are arrays (H, W, 3) or numbers to draw."""

    def make(
        pictures, *, name="made.mp4", times=None, size=(160, 90), codec="libx264", options=None
    ):
        path = tmp_path / name
        pictures = [
            draw_number(each, *size) if isinstance(each, int) else each for each in pictures
        ]
        times = [n / 10 for n in range(len(pictures))] if times is None else times
        height, width = pictures[0].shape[:2]
        pixels = "yuvj420p" if codec == "mjpeg" else "rgb24" if codec == "png" else "yuv420p"
        if width % 2 or height % 2:
            pixels = "rgb24" if codec == "png" else "yuv444p"
        with av.open(str(path), "w") as container:
            stream = container.add_stream(codec, rate=25, options=options or {"crf": "12"})
            stream.width, stream.height, stream.pix_fmt = width, height, pixels
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
            stream.codec_context.thread_count = 1
            for picture, time in zip(pictures, times, strict=True):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts, frame.time_base = round(time * 1000), Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return str(path)

    return make
