"""Plots as PNG files (extra `report`), 800 pixels wide and wider only where much is on them.

Colours are told apart by colour-blind readers, and series also differ by marker and dash. Every
function draws on a figure of its own; pyplot and its global state are not used.
"""

from __future__ import annotations

import io
import textwrap
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from edgepkd._optional import require
from edgepkd.config import check
from edgepkd.files import write_atomically
from edgepkd.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[tuple[float, float]]
"""(x, y) of one series."""

WIDTH_INCHES = 8.0
DOTS_PER_INCH = 100
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333")
"""Okabe and Ito's set without yellow, which is lost on white."""
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_DASHES: tuple[Literal["-", "--", "-.", ":"], ...] = ("-", "--", "-.", ":")
_INK, _GRID = "#333333", "#DDDDDD"
_MAX_CELLS_WITH_COUNTS = 25
_MAX_SERIES_INSIDE = 6  # above, the legend stands beside the axes
_MAX_POINTS_WITH_MARKERS = 40
_BARS_IN_WIDTH = 60
_LABELS_IN_WIDTH = 70  # characters that fit side by side below the axis


@dataclass(frozen=True)
class BarRow:
    """One bar and its interval."""

    label: str
    """Group along the axis, such as an exit."""
    series: str
    """Colour, such as a training method."""
    value: float
    low: float
    """Lower end of the interval."""
    high: float


def curves(
    path: Path, series: Mapping[str, Points], *, title: str, x_label: str, y_label: str
) -> Path:
    """Lines of (x, y) points, one a series; points that are not finite leave a gap.

    Raises:
        ConfigError: there is no series.
        MissingExtraError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    check(bool(series), "series", got="none", allowed="1 or more")
    figure, axes = _new_figure(title, x_label=x_label, y_label=y_label)
    for i, (name, points) in enumerate(series.items()):
        x, y = _columns(points)
        marker = _style(_MARKERS, i) if len(x) <= _MAX_POINTS_WITH_MARKERS else ""
        axes.plot(x, y, color=_style(_COLOURS, i), linestyle=_dash(i), linewidth=1.8,
                  marker=marker, markersize=4.5, label=_text(name))
    if all(float(x).is_integer() for points in series.values() for x, _ in points):
        _whole_ticks(axes)
    if len(series) > 1:
        _legend(figure, axes)
    return _save(figure, path)


def bars_with_intervals(
    path: Path, rows: Sequence[BarRow], *, title: str, y_label: str, floor: float | None = None
) -> Path:
    """Bars in groups of `label`, coloured by `series`, each with its interval.

    Groups and series stand in the order of their first row. A dashed line marks `floor`, what
    guessing gets.

    Raises:
        ConfigError: there is no row, or two rows have the same label and series.
        MissingExtraError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    check(bool(rows), "rows", got="none", allowed="1 or more")
    places = [(row.label, row.series) for row in rows]
    check(len(set(places)) == len(places), "rows", got="two of one label and series",
          allowed="one each")
    labels = list(dict.fromkeys(row.label for row in rows))
    names = list(dict.fromkeys(row.series for row in rows))
    width_inches = max(WIDTH_INCHES, WIDTH_INCHES * len(labels) * len(names) / _BARS_IN_WIDTH)
    figure, axes = _new_figure(title, x_label="", y_label=y_label, width_inches=width_inches)
    for i, name in enumerate(names):
        _draw_bars(axes, [row for row in rows if row.series == name], labels=labels, place=i,
                   num_series=len(names))
    if floor is not None:
        axes.axhline(floor, color=_INK, linestyle="--", linewidth=1.2,
                     label=f"floor {floor:.3g}", zorder=4)
    axes.grid(visible=False, axis="x")
    axes.set_xlim(-0.6, len(labels) - 0.4)
    _set_labels(axes, labels, width_inches=width_inches)
    if len(names) > 1 or floor is not None:
        _legend_above(axes)
    return _save(figure, path)


def _draw_bars(
    axes: Axes, rows: Sequence[BarRow], *, labels: Sequence[str], place: int, num_series: int
) -> None:
    width = 0.8 / num_series
    x = [labels.index(row.label) - 0.4 + (place + 0.5) * width for row in rows]
    axes.bar(x, [row.value for row in rows], width=0.92 * width, color=_style(_COLOURS, place),
             label=_text(rows[0].series), zorder=2)
    low, high = [row.low for row in rows], [row.high for row in rows]
    axes.vlines(x, low, high, color=_INK, linewidth=1.2, zorder=3)
    size = min(8.0, 300 * width / len(labels))
    for ends in (low, high):
        axes.plot(x, ends, linestyle="", marker="_", markersize=size, color=_INK, zorder=3)


def confusion(
    path: Path, counts: npt.ArrayLike, labels: Sequence[str], *, title: str
) -> Path:
    """Counts [C, C], true class down and answered class across; the shade is the row's share.

    Raises:
        ConfigError: `counts` is not square, not of as many classes as `labels`, or negative.
        MissingExtraError: matplotlib is not installed.
        StorageError: the file cannot be written.
    """
    table = np.asarray(counts)
    size = len(labels)
    check(table.shape == (size, size) and size > 0, "counts", got=table.shape,
          allowed=f"({size}, {size}) for {size} labels, 1 or more")
    check(bool((table >= 0).all()), "counts", got="a negative number", allowed="0 or more")
    shares = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    side = max(WIDTH_INCHES, 0.14 * size + 3)
    figure, axes = _new_figure(title, x_label="answer", y_label="true class", width_inches=side,
                               height_inches=0.85 * side)
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    axes.grid(visible=False)
    bar = figure.colorbar(image, ax=axes, label="share of the true class", shrink=0.8)
    bar.outline.set_visible(False)
    names, font = [_text(label) for label in labels], 10 if size <= 12 else 8 if size <= 30 else 6
    axes.set_xticks(range(size), names, rotation=0 if _fits(labels) else 45,
                    ha="center" if _fits(labels) else "right", rotation_mode="anchor",
                    fontsize=font)
    if _fits(labels):
        axes.tick_params(axis="x", pad=8)
    axes.set_yticks(range(size), names, fontsize=font)
    if size <= _MAX_CELLS_WITH_COUNTS:
        for row, column in np.ndindex(size, size):
            axes.text(column, row, f"{table[row, column]:g}", ha="center", va="center",
                      fontsize=font, color="white" if shares[row, column] > 0.5 else _INK)
    return _save(figure, path)


def _fits(labels: Sequence[str]) -> bool:
    """Whether labels can stand side by side below a matrix."""
    return max(map(len, labels)) * len(labels) <= _LABELS_IN_WIDTH * 0.6


def _set_labels(axes: Axes, labels: Sequence[str], *, width_inches: float) -> None:
    """Names below the groups: broken into lines, or slanted where words are too long for that."""
    room = int(_LABELS_IN_WIDTH * width_inches / WIDTH_INCHES / len(labels))
    longest = max(len(word) for label in labels for word in label.split() or [""])
    slanted = longest > room
    names = [
        _text(label) if slanted else _lines(textwrap.wrap(shown(label), max(room, 1)))
        for label in labels
    ]
    axes.set_xticks(range(len(labels)), names, rotation=40 if slanted else 0,
                    ha="right" if slanted else "center",
                    rotation_mode="anchor" if slanted else "default")
    axes.tick_params(axis="x", length=0)


def _new_figure(
    title: str, *, x_label: str, y_label: str,
    width_inches: float = WIDTH_INCHES, height_inches: float = 4.8,
) -> tuple[Figure, Axes]:
    require("matplotlib", purpose="Drawing a plot")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_inches, height_inches), dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(_lines(title.split("\n")), loc="left", fontsize=13, color=_INK, pad=10)
    axes.set_xlabel(_text(x_label), fontsize=11, color=_INK)
    axes.set_ylabel(_text(y_label), fontsize=11, color=_INK)
    axes.tick_params(labelsize=10, colors=_INK)
    axes.grid(visible=True, color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color("#999999")
    return figure, axes


def _legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    if len(names) > _MAX_SERIES_INSIDE:
        figure.legend(handles, names, loc="outside right upper", fontsize=10, frameon=False,
                      labelcolor=_INK, handlelength=2.8)
        return
    axes.legend(handles, names, fontsize=10, frameon=True, framealpha=0.85, edgecolor="none",
                labelcolor=_INK, handlelength=2.8)


def _legend_above(axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    order = sorted(range(len(names)), key=lambda i: handles[i] in axes.lines)  # the floor last
    axes.legend([handles[i] for i in order], [names[i] for i in order], fontsize=10,
                frameon=False, labelcolor=_INK, ncols=len(names) if len(names) <= 5 else 4,
                loc="lower left", bbox_to_anchor=(-0.01, 1.0), borderaxespad=0.2,
                handlelength=1.6, columnspacing=1.4)
    num_lines = 1 if len(names) <= 5 else -(-len(names) // 4)
    axes.set_title(axes.get_title(loc="left"), loc="left", fontsize=13, color=_INK,
                   pad=12 + 20 * num_lines)


def _whole_ticks(axes: Axes) -> None:
    """No half epochs below the axis."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _columns(points: Points) -> tuple[list[float], list[float]]:
    return [float(x) for x, _ in points], [float(y) for _, y in points]


def _style(choices: Sequence[str], index: int) -> str:
    return choices[index % len(choices)]


def _dash(index: int) -> Literal["-", "--", "-.", ":"]:
    """Another dash each time the colours start again."""
    return _DASHES[index // len(_COLOURS) % len(_DASHES)]


def _text(words: str) -> str:
    """`words` taken literally: matplotlib sets formulas between $ and hides names in _."""
    escaped = shown(words).replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def _lines(lines: Sequence[str]) -> str:
    return "\n".join(map(_text, lines))


def png_bytes(figure: Figure) -> bytes:
    """`figure` as the content of a PNG file."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        # names in a script that the font lacks are drawn as boxes, which is no reason to stop
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        figure.savefig(content, format="png", metadata={"Software": None})
    return content.getvalue()


def _save(figure: Figure, path: Path) -> Path:
    write_atomically(path, png_bytes(figure))
    return path
