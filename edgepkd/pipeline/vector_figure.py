"""One figure of a vector file: arrows over the I-frame, and the residual beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgepkd._optional import require
from edgepkd.pipeline.vector_arrays import KINDS, Arrays
from edgepkd.plots import DOTS_PER_INCH, png_bytes
from edgepkd.runtime.arrows import arrows, spacing_px
from edgepkd.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIX = ".png"
_PANEL_INCHES, _PICTURE_INCHES = 6.0, 4.7
_FACTORS = (50, 20, 10, 5, 2, 1)
_SHORTEST_PX = 0.5
_LONG = 95
"""Percent of the arrows that are shorter than what the drawing is scaled to."""


def require_plots() -> None:
    """Refuse now what would fail when the first file is drawn.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", purpose="--plot png")


def vector_figure(arrays: Arrays, *, name: str) -> bytes:
    """A PNG of the last frame of a file's middle GOP, the file called `name`.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    gop, t = _middle(arrays)
    panels = [kind for kind in KINDS if kind in arrays]
    if len(panels) > 1 and "iframe" in panels:
        panels.remove("iframe")  # motion stands on it
    figure, all_axes = _new_figure(arrays, len(panels))
    times_s = arrays["times_s"]
    first = int(np.searchsorted(arrays["iframe_index"], gop))
    figure.suptitle(
        f"{shown(str(arrays['source'])).rpartition('/')[2]}   {name}   "
        f"{times_s[0]:.2f} to {times_s[-1]:.2f} s   ({arrays['route']})",
        fontsize=12, parse_math=False)
    for axes, panel in zip(all_axes, panels, strict=True):
        when = f"{times_s[first]:.2f} s to {times_s[t]:.2f} s"
        if panel == "motion":
            _draw_motion(figure, axes, arrays, gop=gop, t=t, when=when)
        elif panel == "residual":
            _draw_residual(figure, axes, arrays["residual"][t], when=f"{times_s[t]:.2f} s")
        else:
            axes.imshow(arrays["iframe"][gop])
            axes.set_title(f"I-frame at {times_s[first]:.2f} s", fontsize=11)
    return png_bytes(figure)


def _middle(arrays: Arrays) -> tuple[int, int]:
    """The middle GOP in the file, and its last frame."""
    of_frames = arrays["iframe_index"]
    gop = int(of_frames[-1]) // 2
    return gop, int(np.searchsorted(of_frames, gop, side="right")) - 1


def _new_figure(arrays: Arrays, num_panels: int) -> tuple[Figure, list[Axes]]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ratio = float(arrays["height_px"]) / float(arrays["width_px"])
    height = min(max(_PICTURE_INCHES * ratio, 2.0), 2 * _PICTURE_INCHES)
    figure = Figure(figsize=(_PANEL_INCHES * num_panels, height + 1.0), dpi=DOTS_PER_INCH,
                    layout="compressed")
    FigureCanvasAgg(figure)
    return figure, list(figure.subplots(1, num_panels, squeeze=False)[0])


def _draw_motion(
    figure: Figure, axes: Axes, arrays: Arrays, *, gop: int, t: int, when: str
) -> None:
    width, height = int(arrays["width_px"]), int(arrays["height_px"])
    counted_size = int(arrays["motion_width_px"]), int(arrays["motion_height_px"])
    if "iframe" in arrays:
        # Paler, so that arrows of any colour are seen.
        axes.imshow(arrays["iframe"][gop], alpha=0.6)
    found = arrows(arrays["motion"][t], size_px=(width, height), source_size_px=counted_size,
                   margins=arrays["motion_margins"].tolist(),
                   unit_px=float(arrays["motion_unit_px"]), shortest_px=_SHORTEST_PX)
    moved = found[:, 2:] - found[:, :2]
    lengths = np.hypot(moved[:, 0], moved[:, 1])
    factor = _factor(lengths, spacing_px(width, height))
    drawn = axes.quiver(
        found[:, 2], found[:, 3], moved[:, 0], moved[:, 1], lengths, cmap="plasma", pivot="tip",
        angles="xy", scale_units="xy", scale=1 / factor, width=0.0045, headwidth=4,
        headlength=4.5, headaxislength=4, edgecolor="black", linewidth=0.4,
        clim=(0.0, max(1.0, float(lengths.max(initial=0.0)))))
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_aspect("equal")
    longer = f", arrows x{factor}" if factor > 1 else ""
    axes.set_title(f"Motion since the I-frame, {when}{longer}", fontsize=11)
    scaled = "" if counted_size == (width, height) else f" of {width}x{height}"
    figure.colorbar(drawn, ax=axes, shrink=0.8, label=f"displacement, pixels{scaled}")


def _factor(lengths: NDArray[Any], spacing: float) -> int:
    """By how much arrows are drawn longer, so that most reach to the next one at most."""
    if not lengths.size:
        return 1
    long = float(np.percentile(lengths, _LONG))
    return next((factor for factor in _FACTORS if long * factor <= 1.5 * spacing), 1)


def _draw_residual(
    figure: Figure, axes: Axes, residual: NDArray[np.int16], *, when: str
) -> None:
    size = np.abs(residual).mean(axis=2)
    drawn = axes.imshow(size, cmap="magma", vmin=0, vmax=max(16.0, float(np.percentile(size, 99))))
    axes.set_title(f"Residual at {when}", fontsize=11)
    figure.colorbar(drawn, ax=axes, shrink=0.8, label="|residual|, grey levels of 255")
