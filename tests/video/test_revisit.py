import logging

import numpy as np
import pytest

from streamvlm.errors import SourceError
from streamvlm.video.pictures import frame_hash
from streamvlm.video.revisit import revisit
from streamvlm.video.sources import Sampling, open_source

SAMPLING = Sampling(fps=1.0, max_side=80)


def sampled(path, sampling=SAMPLING):
    return {frame.seconds: frame.image for frame in open_source(path, sampling)}


def hashes(pictures):
    return {seconds: frame_hash(image) for seconds, image in pictures.items()}


@pytest.mark.parametrize(
    "name",
    [
        "bikes.mp4",
        "stream-of-water.webm",
        "asl_book.mkv",
        "with-gps-rot90.mov",
        "sony-a7m3.mts",
        "flir-thermal-vfr.mp4",
    ],
)
def test_the_pictures_are_the_ones_that_were_sampled(clip, name):
    """Each kind of file that people have; both found by seeking and found from the start."""
    path = clip(name)
    pictures = sampled(path)
    some = dict(list(pictures.items())[-1::-3])
    found = revisit(path, hashes(some), SAMPLING, max_side=80)
    assert found.keys() == some.keys()
    assert all(np.array_equal(found[seconds], some[seconds]) for seconds in some)


def test_times_far_apart_are_found_in_any_order(encode, read_number):
    path = encode(list(range(300)), options={"crf": "12", "g": "50"})
    wanted = hashes({s: image for s, image in sampled(path).items() if s in (27.0, 3.0, 4.0)})
    found = revisit(path, wanted, SAMPLING, max_side=80)
    assert {s: read_number(image) for s, image in found.items()} == {3.0: 30, 4.0: 40, 27.0: 270}


def test_a_larger_picture_may_be_asked_for_than_was_sampled(encode, read_number):
    path = encode(list(range(40)))
    wanted = hashes(sampled(path))
    found = revisit(path, {2.0: wanted[2.0]}, SAMPLING, max_side=120)
    assert found[2.0].shape == (68, 120, 3)
    assert read_number(found[2.0]) == 20


def test_behind_a_jump_of_the_clock_pictures_are_found_from_the_start(encode, read_number):
    """The recorder's clock starts anew: the same timestamps come twice."""
    times = [n / 10 for n in range(60)] + [6 + 100 + n / 10 for n in range(20)]
    path = encode(list(range(80)), times=times)
    pictures = sampled(path)
    late = max(pictures)
    found = revisit(path, hashes({late: pictures[late]}), SAMPLING, max_side=80)
    assert read_number(found[late]) == read_number(pictures[late])


def test_what_the_source_no_longer_shows_is_missing(encode):
    path = encode(list(range(40)))
    wanted = hashes(sampled(path))
    wanted[1.0] ^= 1
    found = revisit(path, {**wanted, 1.5: wanted[2.0], 99.0: 7}, SAMPLING, max_side=80)
    assert found.keys() == {0.0, 2.0, 3.0}


def test_reading_from_the_start_is_said_once(encode, caplog):
    path = encode(list(range(40)))
    wanted = hashes(sampled(path))
    with caplog.at_level(logging.WARNING):
        revisit(path, wanted, SAMPLING, max_side=80)
        assert not caplog.text  # all were where the clock puts them
        revisit(path, {**wanted, 1.0: 7, 99.0: 7}, SAMPLING, max_side=80)
    (record,) = caplog.records
    assert "2 of 5 pictures are not where its clock puts them; it is" in record.getMessage()


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(SourceError, match="there is no such file"):
        revisit(str(tmp_path / "gone.mp4"), {0.0: 1}, SAMPLING, max_side=80)
