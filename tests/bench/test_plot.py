import re
import struct
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from streamvlm.bench.intervals import Interval
from streamvlm.bench.plot import Curve, check_plotting, draw_curves
from streamvlm.errors import MissingDependency

SVG = "{http://www.w3.org/2000/svg}"


def around(mean: float) -> Interval:
    return Interval(mean, mean - 0.05, mean + 0.05, 0.025)


def curve(name: str, *means: float, is_baseline: bool = False) -> Curve:
    kept = (0.05, 0.25, 1.0)[: len(means)]
    return Curve(name, kept, tuple(around(mean) for mean in means), is_baseline)


CURVES = [
    curve("sharp", 0.4, 0.6, 0.7),
    curve("blunt", 0.3, 0.5, 0.7),
    curve("random", 0.25, 0.45, 0.7, is_baseline=True),
]


def draw(curves):
    bounds = {"floor": around(0.2), "ceiling": around(0.7)}
    return draw_curves(curves, **bounds, title="What it costs", caption="12 clips · commit abc")


@pytest.fixture(scope="module")
def picture():
    return draw(CURVES)


def words(svg: bytes) -> list[str]:
    return ["".join(text.itertext()) for text in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def markers(svg: bytes) -> list[list[tuple[float, float]]]:
    """The places of the markers of each curve, in the order of drawing."""
    found = []
    for group in ElementTree.fromstring(svg).iter(f"{SVG}g"):
        uses = [use for child in group if child.tag == f"{SVG}g" for use in child.iter(f"{SVG}use")]
        direct = [use for use in uses if "clip-path" in ElementTree.tostring(group).decode()]
        if re.fullmatch(r"line2d_\d+", group.get("id", "")) and len(direct) == 3:
            found.append([(float(use.get("x")), float(use.get("y"))) for use in direct])
    return found


def test_the_plot_names_curves_bounds_axes_and_conditions(picture):
    text = " ".join(words(picture.svg))
    for expected in ("sharp", "blunt", "random", "blind 0.200", "all tokens 0.700"):
        assert expected in text
    for expected in ("What it costs", "12 clips · commit abc", "accuracy", "tokens really kept"):
        assert expected in text


def test_the_legend_lists_the_best_at_the_smallest_share_first(picture):
    text = words(picture.svg)
    assert text.index("sharp") < text.index("blunt") < text.index("random")
    turned = words(draw([CURVES[1], CURVES[2], CURVES[0]]).svg)
    assert turned.index("sharp") < turned.index("blunt") < turned.index("random")


def test_the_picture_for_everything_else_is_a_large_png(picture):
    assert picture.png.startswith(b"\x89PNG\r\n\x1a\n")
    width, height = struct.unpack(">II", picture.png[16:24])
    assert width > 1000
    assert height > 600


def test_the_same_figures_give_the_same_bytes(picture):
    assert draw(CURVES) == picture


def test_other_figures_give_other_bytes(picture):
    moved = replace(CURVES[0], accuracy=tuple(around(mean) for mean in (0.4, 0.61, 0.7)))
    again = draw([moved, *CURVES[1:]])
    assert again.svg != picture.svg
    assert again.png != picture.png


def test_more_tokens_lie_to_the_right_and_more_right_answers_higher(picture):
    found = markers(picture.svg)
    sharp = found[0]
    assert [x for x, _ in sharp] == sorted(x for x, _ in sharp)
    assert [y for _, y in sharp] == sorted((y for _, y in sharp), reverse=True)


def test_points_in_any_order_are_joined_from_left_to_right():
    backwards = Curve("sharp", CURVES[0].kept[::-1], CURVES[0].accuracy[::-1])
    assert draw([backwards]).svg == draw([CURVES[0]]).svg


def test_a_baseline_is_grey_and_a_method_is_not():
    grey, colourful = b"#000000", b"#0072b2"
    assert colourful not in draw([CURVES[2]]).svg.lower()
    assert colourful in draw([CURVES[0]]).svg.lower()
    dashed = b"stroke-dasharray"
    assert draw([CURVES[2]]).svg.count(dashed) > draw([CURVES[0]]).svg.count(dashed)
    assert grey in draw([CURVES[2]]).svg.lower()


def test_a_method_that_was_measured_once_is_a_single_point():
    assert "once" in " ".join(words(draw([curve("once", 0.5), CURVES[2]]).svg))


def test_a_missing_matplotlib_is_named_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingDependency, match=r'pip install "streamvlm\[bench\]"'):
        check_plotting()
    with pytest.raises(MissingDependency, match="matplotlib"):
        draw(CURVES)


def test_nothing_is_loaded_before_something_is_drawn():
    code = "import sys, streamvlm.bench.plot; print('matplotlib' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False"


def test_many_are_pale_behind_the_others_and_share_one_name():
    pale = [replace(curve(f"pale{n}", 0.2, 0.3, 0.4), is_faint=True) for n in range(9)]
    text = words(draw([*CURVES, *pale]).svg)
    assert "9 others" in text
    assert not any("pale" in word for word in text)
    assert text.index("random") < text.index("9 others")
    svg = draw([*CURVES, *pale]).svg.decode().lower()
    assert svg.count("#cccccc") >= 9
    assert "#cccccc" not in draw(CURVES).svg.decode().lower()


def test_one_pale_curve_is_one_other():
    pale = replace(curve("pale", 0.2, 0.3, 0.4), is_faint=True)
    assert "1 other" in words(draw([*CURVES, pale]).svg)
