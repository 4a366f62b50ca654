"""A film is really encoded, always into the same bytes, and shows what its plan says."""

import json

import av
import numpy as np
import pytest

from streamvlm.bench.drawing import picture, thing_cover, write_film
from streamvlm.bench.storyboard import storyboard
from streamvlm.bench.world import COLOURS, HELD_OUT, SHAPES, Thing, plan_film

SIZE = 384


@pytest.fixture(scope="module")
def film():
    return plan_film(HELD_OUT + 3, 2)


@pytest.fixture(scope="module")
def written(film, tmp_path_factory):
    return write_film(film, tmp_path_factory.mktemp("film") / "clip.mp4", fps=2, size=SIZE)


def test_the_same_plan_gives_the_same_bytes(film, written, tmp_path):
    again = write_film(film, tmp_path / "again.mp4", fps=2, size=SIZE)
    assert again.read_bytes() == written.read_bytes()


def test_another_plan_gives_other_bytes(written, tmp_path):
    other = write_film(plan_film(HELD_OUT + 4, 2), tmp_path / "other.mp4", fps=2, size=SIZE)
    assert other.read_bytes() != written.read_bytes()


def test_the_file_is_h264_of_the_planned_length(film, written):
    with av.open(str(written)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height) == (SIZE, SIZE)
        assert float(container.duration / av.time_base) == pytest.approx(film.seconds, abs=0.05)


def test_the_truth_beside_the_file_names_the_colour_that_is_decoded_there(written):
    truth = json.loads(written.with_suffix(".json").read_text())
    looked_at = 0
    with av.open(str(written)) as container:
        for frame in container.decode(video=0):
            if frame.time != int(frame.time):
                continue
            image = frame.to_ndarray(format="rgb24")
            for entry in (thing for scene in truth["scenes"] for thing in scene["things"]):
                thing = Thing(**entry)
                if not thing.is_seen(frame.time):
                    continue
                inside = thing_cover(thing, frame.time, SIZE) == 1
                found = np.median(image[inside], axis=0)
                nearest = min(COLOURS, key=lambda name: np.abs(found - COLOURS[name]).sum())
                assert nearest == thing.colour
                looked_at += 1
    assert looked_at > 5


def test_a_thing_is_not_in_the_picture_before_it_appears():
    film = storyboard()
    square = next(thing for thing in film.things if thing.name == "red square")
    inside = thing_cover(square, square.appears, SIZE) == 1

    def distance(seconds):
        found = picture(film, seconds, SIZE)[inside].mean(axis=0)
        return np.abs(found - COLOURS["red"]).mean()

    assert distance(square.appears) < 10 < 40 < distance(square.appears - 1)


def test_a_picture_depends_on_plan_and_time_only(film):
    assert np.array_equal(picture(film, 2.5, SIZE), picture(film, 2.5, SIZE))


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_differ_from_one_another(shape):
    def cover(name):
        return thing_cover(Thing("red", name, 0.3, 0.5, 0.5, None, 0, 0, 1), 0, 64)

    assert 0.08 < cover(shape).mean() < 0.3
    for other in set(SHAPES) - {shape}:
        assert np.abs(cover(shape) - cover(other)).mean() > 0.02
