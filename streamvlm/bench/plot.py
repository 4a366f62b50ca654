"""Pictures of measurements: accuracy against the share of tokens that is really kept."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from streamvlm.errors import MissingDependency

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from streamvlm.bench.intervals import Interval

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#6a51a3")
"""Told apart by colour-blind readers too (Okabe and Ito 2008), and two more."""
_MARKERS = "osD^vP*Xp<>h"
_LINES = ("-", "-.", ":")
_GREYS = ("#000000", "#777777")
_FAINT = "#cccccc"


@dataclass(frozen=True, slots=True)
class Curve:
    """One method at several budgets."""

    name: str
    """What to call it."""
    kept: tuple[float, ...]
    """Shares of the tokens that are really kept, each more than 0 and at most 1."""
    accuracy: tuple[Interval, ...]
    """What comes of each of them, 0 to 1."""
    is_baseline: bool = False
    """Whether it is drawn in grey, as what the others are compared with."""
    is_faint: bool = False
    """Whether it is one of many behind the others: a pale line without name and bars."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One plot in two formats."""

    svg: bytes
    """For documents; its words are text."""
    png: bytes
    """For everything else."""


def check_plotting() -> None:
    """Find out whether plots can be drawn, before anything is measured for them.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise MissingDependency(
            "plots need matplotlib, which is not installed; install the extra: pip install "
            '"streamvlm[bench]"'
        ) from None


def draw_curves(
    curves: Sequence[Curve], *, floor: Interval, ceiling: Interval, title: str, caption: str
) -> Picture:
    """Draw accuracy against tokens really kept, with intervals, between a floor and a ceiling.

    Args:
        curves: the methods, at least one.
        floor: accuracy without any visual token.
        ceiling: accuracy with all of them.
        title: stands above.
        caption: stands below: sizes, conditions, how the intervals were made.

    Returns:
        The plot; the same arguments give the same bytes.

    Raises:
        MissingDependency: matplotlib is not installed.
    """
    check_plotting()
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.transforms import ScaledTranslation

    style = mpl.rc_context(
        {
            "font.family": "DejaVu Sans",
            "font.size": 9,
            # Words stay words: the file is small, can be searched and be read aloud.
            "svg.fonttype": "none",
            # The same figures give the same file.
            "svg.hashsalt": "streamvlm",
        }
    )
    # A figure of its own, not pyplot's: no window, no current figure.
    with style:
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.add_subplot()
        # Where curves seldom are: they start low on the left and end high on the right.
        _bound(axes, ceiling, "all tokens", "#2e7d32", side="left")
        _bound(axes, floor, "blind", "#b71c1c", side="right")
        _crowd(axes, [curve for curve in curves if curve.is_faint])
        plain = [curve for curve in curves if not curve.is_faint]
        for number, (curve, look) in enumerate(zip(plain, _looks(plain), strict=True)):
            # Side by side by a hair, or the bars at one share would hide one another.
            aside = (number - (len(plain) - 1) / 2) * min(2.5, 16 / len(plain))
            step = ScaledTranslation(aside / 72, 0, figure.dpi_scale_trans)
            _curve(axes, curve, {**look, "transform": axes.transData + step})
        _dress(axes, curves)
        axes.set_title(title, loc="left", fontweight="bold")
        figure.supxlabel(caption, fontsize=7, color="#555555", x=0.01, ha="left")
        about = {"Title": title, "Description": caption}
        return Picture(
            svg=_saved(figure, "svg", {**about, "Date": None}),
            png=_saved(figure, "png", {**about, "Software": None}),
        )


def _looks(curves: Sequence[Curve]) -> list[dict[str, Any]]:
    """How each curve is drawn: no two of up to 24 methods and 2 baselines alike."""
    looks: list[dict[str, Any]] = []
    methods = baselines = 0
    for curve in curves:
        if curve.is_baseline:
            looks.append({"color": _GREYS[baselines % 2], "marker": "+x"[baselines % 2]})
            looks[-1] |= {"linestyle": "--", "zorder": 3}
            baselines += 1
        else:
            rounds, colour = divmod(methods, len(_COLOURS))
            looks.append({"color": _COLOURS[colour], "marker": _MARKERS[methods % len(_MARKERS)]})
            looks[-1] |= {"linestyle": _LINES[rounds % len(_LINES)], "zorder": 4}
            methods += 1
    return looks


def _bound(
    axes: Axes, value: Interval, label: str, colour: str, *, side: Literal["left", "right"]
) -> None:
    axes.axhspan(value.low, value.high, color=colour, alpha=0.1, linewidth=0)
    axes.axhline(value.mean, color=colour, linewidth=1, linestyle=":", zorder=2)
    at, inwards = (0, 3) if side == "left" else (1, -3)
    axes.annotate(
        f"{label} {value.mean:.3f}",
        (at, value.mean),
        xycoords=axes.get_yaxis_transform(),
        xytext=(inwards, 2),
        textcoords="offset points",
        ha=side,
        fontsize=8,
        color=colour,
    )


def _crowd(axes: Axes, curves: Sequence[Curve]) -> None:
    """Many curves behind the others, with one name for all."""
    others = "1 other" if len(curves) == 1 else f"{len(curves)} others"
    for number, curve in enumerate(curves):
        points = _points(curve)
        axes.plot(
            [kept for kept, _ in points],
            [value.mean for _, value in points],
            color=_FAINT,
            linewidth=0.9,
            marker=".",
            markersize=3,
            zorder=1.5,
            label="_" if number else others,
        )


def _points(curve: Curve) -> list[tuple[float, Interval]]:
    """From left to right."""
    return sorted(zip(curve.kept, curve.accuracy, strict=True), key=lambda point: point[0])


def _curve(axes: Axes, curve: Curve, look: dict[str, Any]) -> None:
    ordered = _points(curve)
    kept = [share for share, _ in ordered]
    means = [value.mean for _, value in ordered]
    below = [value.mean - value.low for _, value in ordered]
    above = [value.high - value.mean for _, value in ordered]
    drawn = axes.errorbar(
        kept,
        means,
        yerr=[below, above],
        label=curve.name,
        markersize=5,
        linewidth=1.4,
        elinewidth=0.8,
        capsize=2,
        **look,
    )
    for bar in (*drawn.lines[1], *drawn.lines[2]):
        bar.set_alpha(0.45)


def _dress(axes: Axes, curves: Sequence[Curve]) -> None:
    """Scales, ticks, grid and a legend in the order in which the curves start on the left."""
    from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

    ticks = [0.01, 0.02, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0]
    least = min(share for curve in curves for share in curve.kept)
    axes.set_xscale("log")
    axes.set_xlim(least / 1.15, 1.15)
    axes.xaxis.set_major_locator(FixedLocator([tick for tick in ticks if tick >= least / 1.15]))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.set_xlabel("tokens really kept (logarithmic)")
    axes.set_ylabel("accuracy, exact match")
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    leftmost = {curve.name: _points(curve)[0][1].mean for curve in curves if not curve.is_faint}
    # What has no curve of its own stands last.
    order = sorted(range(len(labels)), key=lambda index: -leftmost.get(labels[index], 0.0))
    axes.legend(
        [handles[index] for index in order],
        [labels[index] for index in order],
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=8,
    )


def _saved(figure: Figure, kind: str, metadata: dict[str, Any]) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format=kind, dpi=160, metadata=metadata)
    return file.getvalue()
