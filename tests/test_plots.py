"""Plots: what is drawn, read off the figure; that a file comes out, read off the file."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from edgepkd import plots
from edgepkd.errors import ConfigError, MissingExtraError, StorageError
from edgepkd.plots import BarRow, bars_with_intervals, confusion, curves

NAN = float("nan")


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Figures, as they are when they would be saved."""
    kept: list[Any] = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: kept.append(figure) or path)
    return kept


def legend_texts(figure: Any) -> list[str]:
    legend = figure.axes[0].get_legend() or figure.legends[0]
    return [text.get_text() for text in legend.get_texts()]


def test_a_png_of_800_pixels_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "loss.png"
    curves(path, {"a $x_{$ b": [(0, 1.0), (1, NAN), (2, 0.5)]}, title="_loss $_{$", x_label="epoch",
           y_label="loss")
    with Image.open(path) as image:
        assert (image.format, image.width) == ("PNG", 800)
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10
    assert [p.name for p in path.parent.iterdir()] == ["loss.png"]


@pytest.mark.smoke
def test_names_the_font_has_no_glyphs_for_are_no_error(tmp_path: Path) -> None:
    assert confusion(tmp_path / "c.png", [[1]], ["\u6253\u67b6"], title="t").is_file()


def test_curves_keep_their_points_and_names(figures: list[Any]) -> None:
    series = {"training": [(0, 2.0), (1, 1.0)], "_calibration": [(0, 3.0), (1, NAN)]}
    curves(Path("x"), series, title="Loss", x_label="epoch", y_label="loss")
    first, second = figures[0].axes[0].lines
    np.testing.assert_array_equal(first.get_xydata(), [(0, 2), (1, 1)])
    np.testing.assert_array_equal(second.get_xydata(), [(0, 3), (1, NAN)])
    assert legend_texts(figures[0]) == ["training", " _calibration"]
    assert first.get_color() != second.get_color()
    ticks = figures[0].axes[0].get_xticks()
    np.testing.assert_array_equal(ticks, np.round(ticks))


def test_more_series_than_colours_differ_by_dash(figures: list[Any]) -> None:
    curves(Path("x"), {f"s{i}": [(0, i)] for i in range(12)}, title="", x_label="", y_label="")
    looks = {(line.get_color(), line.get_linestyle()) for line in figures[0].axes[0].lines}
    assert len(looks) == 12
    assert len(legend_texts(figures[0])) == 12


def test_bars_stand_in_groups_with_their_intervals(figures: list[Any]) -> None:
    rows = [BarRow("MV1", "CE", 40, 35, 48), BarRow("MV1", "PKD", 50, 45, 52),
            BarRow("MV2", "PKD", 60, 58, 71)]
    bars_with_intervals(Path("x"), rows, title="t", y_label="accuracy, %", floor=10.0)
    axes = figures[0].axes[0]
    places = [(round(b.get_x() + b.get_width() / 2, 3), b.get_height()) for b in axes.patches]
    assert places == [(-0.2, 40), (0.2, 50), (1.2, 60)]
    spans = [tuple(s[:, 1]) for c in axes.collections for s in c.get_segments()]
    assert spans == [(35, 48), (45, 52), (58, 71)]
    assert legend_texts(figures[0]) == ["CE", "PKD", "floor 10"]
    assert [t.get_text() for t in axes.get_xticklabels()] == ["MV1", "MV2"]


def test_long_names_are_broken_into_lines(figures: list[Any]) -> None:
    name = "plain sums without lateral connections"
    rows = [BarRow(f"{name} {i}", "", 1, 1, 1) for i in range(4)]
    bars_with_intervals(Path("x"), rows, title="", y_label="")
    label = figures[0].axes[0].get_xticklabels()[0]
    assert label.get_text().replace("\n", " ") == f"{name} 0"
    assert "\n" in label.get_text()
    assert label.get_rotation() == 0


def test_confusion_shades_shares_and_prints_counts(figures: list[Any]) -> None:
    confusion(Path("x"), [[3, 1], [0, 0]], ["fight", "none"], title="t")
    axes = figures[0].axes[0]
    np.testing.assert_array_equal(axes.images[0].get_array(), [[0.75, 0.25], [0, 0]])
    assert [text.get_text() for text in axes.texts] == ["3", "1", "0", "0"]


def test_many_classes_get_a_larger_plot_without_counts(figures: list[Any]) -> None:
    confusion(Path("x"), np.eye(101), [f"class {i}" for i in range(101)], title="t")
    assert not figures[0].axes[0].texts
    assert figures[0].get_figwidth() > plots.WIDTH_INCHES


def test_tables_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"counts is \(2, 3\); allowed: \(2, 2\) for 2 labels"):
        confusion(tmp_path / "x", np.zeros((2, 3)), ["a", "b"], title="")
    with pytest.raises(ConfigError, match="a negative number"):
        confusion(tmp_path / "x", [[-1]], ["a"], title="")
    with pytest.raises(ConfigError, match="series is 'none'"):
        curves(tmp_path / "x", {}, title="", x_label="", y_label="")
    with pytest.raises(ConfigError, match="two of one label and series"):
        bars_with_intervals(tmp_path / "x", [BarRow("a", "b", 1, 1, 1)] * 2, title="", y_label="")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"x\.png cannot be written"):
        curves(tmp_path / "file" / "x.png", {"a": [(1, 1)]}, title="", x_label="", y_label="")


def test_the_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"Drawing a plot needs .*edgepkd\[report\]"):
        curves(tmp_path / "x.png", {"a": [(1, 1)]}, title="", x_label="", y_label="")


def test_names_and_titles_are_drawn_as_text(figures: list[Any]) -> None:
    curves(Path("x"), {"a\x1b[31m\nb": [(0, 1)], "c": [(0, 2)]}, title="one\ntwo\x07",
           x_label="\u202ex", y_label="y")
    confusion(Path("x"), [[1, 0], [0, 1]], ["a\nb", "c\x00"], title="t")
    bars_with_intervals(Path("x"), [BarRow("a\nb", "s", 1, 0, 2)], title="t", y_label="y")
    first, second, third = figures
    assert legend_texts(first) == [r"a\x1b[31m\nb", "c"]
    assert first.axes[0].get_title(loc="left") == "one\ntwo\\x07"
    assert first.axes[0].get_xlabel() == r"\u202ex"
    assert [label.get_text() for label in second.axes[0].get_yticklabels()] == [r"a\nb", r"c\x00"]
    assert [label.get_text() for label in third.axes[0].get_xticklabels()] == [r"a\nb"]
