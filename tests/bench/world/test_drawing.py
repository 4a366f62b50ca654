"""A film is really encoded, always into the same bytes, and shows what its plan says."""

import json
from itertools import combinations

import av
import numpy as np
import pytest

from streamvlm.bench.world import BACKGROUNDS, COLOURS, NUMBERS, SHAPES, Film, Scene, Thing
from streamvlm.bench.world.drawing import picture, pictures, thing_cover, write_film
from streamvlm.bench.world.needles import plan_needles
from streamvlm.bench.world.planning import plan_film
from streamvlm.bench.world.storyboard import storyboard
from streamvlm.errors import BadOption

SIZE = 384
TEXTURES = ("clouds", "stripes", "checks", "grain")


@pytest.fixture(scope="module")
def film():
    """A film with a number, a change of colour and something that moves."""
    for seed in range(100):
        found = plan_film(seed, 2, split="seeds")
        if (
            all(scene.number for scene in found.scenes)
            and any(thing.turns for thing in found.things)
            and any(thing.heading for thing in found.things)
        ):
            return found
    raise AssertionError("no film of a hundred has all that is looked at here")


@pytest.fixture(scope="module")
def written(film, tmp_path_factory):
    return write_film(film, tmp_path_factory.mktemp("film") / "clip.mp4", fps=2, size=SIZE)


def empty(background, texture="clouds", *things, seed=7, number=None):
    return Film(0, "seeds", (Scene(0, 8, background, texture, seed, things, number),))


def still(name, radius=0.3, turns=None):
    return Thing(*name.split(), radius, 0.5, 0.5, None, 0.0, 0, 8, turns)


def nearest(colour):
    """The name of the colour that is most like an RGB one."""
    return min(COLOURS, key=lambda name: np.abs(colour - COLOURS[name]).sum())


def read(entry):
    """A thing as it is written into the truth."""
    return Thing(**{**entry, "turns": tuple(entry["turns"]) if entry["turns"] else None})


def test_the_same_plan_gives_the_same_bytes(film, written, tmp_path):
    again = write_film(film, tmp_path / "again.mp4", fps=2, size=SIZE)
    assert again.read_bytes() == written.read_bytes()


def test_another_plan_gives_other_bytes(written, tmp_path):
    another = plan_film(4, 2, split="seeds")
    other = write_film(another, tmp_path / "other.mp4", fps=2, size=SIZE)
    assert other.read_bytes() != written.read_bytes()


def test_the_file_is_h264_of_the_planned_length(film, written):
    with av.open(str(written)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert (stream.width, stream.height) == (SIZE, SIZE)
        assert float(container.duration / av.time_base) == pytest.approx(film.seconds, abs=0.05)


def test_the_truth_beside_the_file_is_the_whole_plan(film, written):
    truth = json.loads(written.with_suffix(".json").read_text())
    scenes = tuple(
        Scene(
            **{
                **entry,
                "things": tuple(read(thing) for thing in entry["things"]),
                "number": read(entry["number"]) if entry["number"] else None,
            }
        )
        for entry in truth.pop("scenes")
    )
    assert Film(**truth, scenes=scenes) == film


def test_the_truth_beside_the_file_names_the_colour_that_is_decoded_there(written):
    truth = json.loads(written.with_suffix(".json").read_text())
    entries = [thing for scene in truth["scenes"] for thing in (*scene["things"], scene["number"])]
    looked_at = set()
    with av.open(str(written)) as container:
        for frame in container.decode(video=0):
            image = frame.to_ndarray(format="rgb24")
            for index, entry in enumerate(entries):
                if entry["appears"] <= frame.time < entry["vanishes"]:
                    later = entry["turns"] and frame.time >= entry["turns"][0]
                    inside = thing_cover(read(entry), frame.time, SIZE) == 1
                    found = nearest(np.median(image[inside], axis=0))
                    assert found == (entry["turns"][1] if later else entry["colour"])
                    looked_at.add((index, bool(later)))
    # Everything, and what turns in both its colours.
    assert len(looked_at) == len(entries) + sum(bool(entry["turns"]) for entry in entries)


def test_a_file_may_start_at_any_second_of_its_plan(tmp_path):
    late = plan_film(3, 1, split="seeds", start=1000)
    path = write_film(late, tmp_path / "late.mp4", fps=1, size=96)
    with av.open(str(path)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == [*range(late.seconds - 1000)]


def test_a_thing_is_not_in_the_picture_before_it_appears():
    film = storyboard()
    square = next(thing for thing in film.things if thing.name == "red square")
    inside = thing_cover(square, square.appears, SIZE) == 1

    def distance(seconds):
        found = picture(film, seconds, SIZE)[inside].mean(axis=0)
        return np.abs(found - COLOURS["red"]).mean()

    assert distance(square.appears) < 10 < 40 < distance(square.appears - 1)


def test_a_thing_is_drawn_in_its_new_colour_from_its_turn_on():
    film = empty("still", "clouds", still("red square", turns=(3, "cyan")))
    colours = [nearest(picture(film, second, 64)[32, 32]) for second in range(6)]
    assert colours == ["red"] * 3 + ["cyan"] * 3


def test_what_moves_is_drawn_where_it_is_at_that_time():
    runner = Thing("blue", "circle", 0.1, 0.2, 0.5, "right", 0.1, 0, 8)
    film = empty("still", "clouds", runner)
    for second in (0, 2.5, 6):
        image = picture(film, second, 100)
        assert nearest(image[50, round(100 * (0.2 + 0.1 * second))]) == "blue"
    assert nearest(picture(film, 6, 100)[50, 20]) != "blue"


def test_a_picture_depends_on_plan_and_time_only(film):
    second = [picture(film, moment, 96) for moment in range(film.seconds)]
    for moment in reversed(range(film.seconds)):
        picture(storyboard(), moment, 96)
        assert np.array_equal(picture(film, moment, 96), second[moment])


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_a_picture_is_the_callers_own(background):
    film = empty(background, "clouds", still("red star"))
    before = picture(film, 1, 64).copy()
    picture(film, 1, 64)[:] = 0
    assert np.array_equal(picture(film, 1, 64), before)


def test_pictures_are_all_of_a_film_in_order(film):
    every = list(pictures(film, 2, 96))
    assert len(every) == 2 * film.seconds
    assert np.array_equal(every[5], picture(film, 2.5, 96))


@pytest.mark.parametrize("texture", TEXTURES)
@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_background_is_drawn_as_bytes_of_the_asked_size(background, texture):
    image = picture(empty(background, texture), 3, 50)
    assert image.shape == (50, 50, 3)
    assert image.dtype == np.uint8
    assert image.std(axis=(0, 1)).max() > 2


@pytest.mark.parametrize("texture", TEXTURES)
def test_a_still_background_is_always_the_same(texture):
    film = empty("still", texture)
    assert np.array_equal(picture(film, 0, 96), picture(film, 7.5, 96))


@pytest.mark.parametrize("texture", TEXTURES)
def test_backgrounds_of_two_seeds_differ(texture):
    one, other = (picture(empty("still", texture, seed=seed), 0, 96) for seed in (1, 2))
    assert np.abs(one.astype(int) - other).mean() > 5


def test_two_textures_of_one_seed_differ():
    images = [picture(empty("still", texture), 0, 96).astype(int) for texture in TEXTURES]
    for one, other in combinations(images, 2):
        assert np.abs(one - other).mean() > 5


@pytest.mark.parametrize("texture", TEXTURES)
def test_noise_is_new_in_every_picture_and_grey(texture):
    base = picture(empty("still", texture), 0, 96).astype(int)
    one, other = (picture(empty("noisy", texture), second, 96) - base for second in (1, 2))
    for noise in (one, other):
        assert noise.std() == pytest.approx(7, abs=0.5)
        assert abs(noise.mean()) < 1
        # The same in red, green and blue, but for rounding.
        assert np.ptp(noise, axis=2).max() <= 1
    assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 0.1


@pytest.mark.parametrize("texture", TEXTURES)
def test_flickering_makes_the_whole_picture_brighter_or_darker(texture):
    base = picture(empty("still", texture), 0, 96).astype(float)
    factors = []
    for second in np.arange(0, 8, 0.25):
        ratio = picture(empty("flickering", texture), second, 96) / np.maximum(base, 1)
        assert ratio[base > 60].std() < 0.02
        factors.append(float(np.median(ratio)))
    assert len(set(factors)) > 8
    assert 0.84 < min(factors) < 0.88 < 1.12 < max(factors) < 1.16


@pytest.mark.parametrize("texture", TEXTURES)
def test_panning_moves_the_background_by_three_hundredths_a_second(texture):
    film = empty("panning", texture)
    start = picture(film, 0, 100).astype(int)
    assert np.array_equal(start, picture(empty("still", texture), 0, 100))
    for second in (1, 4, 7):
        later = picture(film, second, 100).astype(int)
        unlike = np.abs(later[:, : 100 - 3 * second] - start[:, 3 * second :]) > 1
        # A rounding error may move the border of a check by a pixel.
        assert unlike.mean() < 0.02
        assert np.abs(later - start).mean() > 1


def test_panning_does_not_move_the_things():
    film = empty("panning", "clouds", still("white square"))
    inside = thing_cover(still("white square"), 0, 96) == 1
    for second in (0, 7):
        assert (picture(film, second, 96)[inside] == 240).all()


@pytest.mark.parametrize("size", [64, 192])
@pytest.mark.parametrize("shape", [*SHAPES, *NUMBERS])
def test_exactly_what_is_covered_is_drawn(shape, size):
    thing = still(f"cyan {shape}", radius=0.15)
    bare, image = (
        picture(empty("still", "clouds", *things), 0, size).astype(int) for things in ((), (thing,))
    )
    cover = thing_cover(thing, 0, size)[..., None]
    expected = bare + cover * (np.array(COLOURS["cyan"]) - bare)
    assert np.abs(image - expected).max() <= 1


def test_a_number_on_screen_is_drawn():
    digit = still("white four", radius=0.15)
    image = picture(empty("still", number=digit), 0, 96)
    assert (image[thing_cover(digit, 0, 96) == 1] == 240).all()


@pytest.mark.parametrize(("one", "other"), list(combinations((*SHAPES, *NUMBERS), 2)))
def test_shapes_and_numbers_differ_from_one_another(one, other):
    def cover(name):
        return thing_cover(still(f"red {name}"), 0, 64)

    assert np.abs(cover(one) - cover(other)).mean() > 0.008


@pytest.mark.parametrize("shape", [*SHAPES, *NUMBERS])
def test_a_shape_lies_within_its_radius_and_is_large_enough_to_see(shape):
    cover = thing_cover(still(f"red {shape}"), 0, 100)
    assert 0.03 < cover.mean() < 0.3
    assert cover[:19].max() == cover[81:].max() == cover[:, :19].max() == cover[:, 81:].max() == 0


def test_a_path_may_be_a_string_and_the_truth_may_name_the_needles(tmp_path):
    planned, needles = plan_needles(1, 30, 2)
    path = write_film(planned, str(tmp_path / "film.mp4"), fps=1, size=64, needles=needles)
    assert path == tmp_path / "film.mp4"
    truth = json.loads(path.with_suffix(".json").read_text())
    assert [tuple(each["span"]) for each in truth["needles"]] == [each.span for each in needles]
    assert truth["needles"][0]["question"]["answer"] == needles[0].question.answer
    write_film(planned, path, fps=1, size=64)
    assert "needles" not in json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("film", {}, "name of an .mp4"),
        ("nowhere/film.mp4", {}, "a folder that is there"),
        ("film.mp4", {"fps": 0}, "at least 1 fps"),
        ("film.mp4", {"size": 95}, "an even number of pixels"),
        ("film.mp4", {"crf": 52}, "a CRF of 0 to 51"),
    ],
)
def test_what_cannot_be_written_is_refused_with_a_sentence(film, tmp_path, name, options, message):
    with pytest.raises(BadOption, match=message):
        write_film(film, tmp_path / name, **options)
    assert list(tmp_path.iterdir()) == []
