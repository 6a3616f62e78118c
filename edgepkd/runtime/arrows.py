"""Motion as arrows: where on a picture they stand, and how they are drawn into Y, U, V planes.

An arrow ends where something is seen and begins where that was in the I-frame, at true length.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Bytes = NDArray[np.uint8]
Float32 = NDArray[np.float32]

IN_SHORT_SIDE = 18
"""Arrows that stand along the short side of a picture."""
_MIN_SPACING_PX = 8.0
_YELLOW = (197, 23, 155)
"""Y, U, V."""
_BLACK = (16, 128, 128)
_FINER = 2
"""Drawn so many times as large and made smaller: smooth edges."""


def spacing_px(width_px: int, height_px: int) -> float:
    """From one arrow to the next."""
    return max(_MIN_SPACING_PX, min(width_px, height_px) / IN_SHORT_SIDE)


def arrows(
    field: NDArray[np.int16], *, size_px: tuple[int, int], source_size_px: tuple[int, int],
    margins: Sequence[float], unit_px: float, shortest_px: float = 1.0,
) -> Float32:
    """Arrows over a picture of `size_px` (width, height), float32 [n, 4]: x and y, from and to.

    `field` [rows, columns, 2] counts `unit_px` of pictures of `source_size_px`; `margins` are the
    parts of its outermost points (left, top, right, bottom) that lie outside the picture. Arrows
    shorter than `shortest_px` are left out.
    """
    width, height = size_px
    step = spacing_px(width, height)
    x, y = (np.arange(max(1, round(side / step)), dtype=np.float32) for side in size_px)
    x, y = (x + 0.5) * (width / x.size), (y + 0.5) * (height / y.size)
    rows, columns = field.shape[:2]
    left, top, right, bottom = margins
    column = (x / width * (columns - left - right) + left).astype(int).clip(0, columns - 1)
    row = (y / height * (rows - top - bottom) + top).astype(int).clip(0, rows - 1)
    scale = np.array([width / source_size_px[0], height / source_size_px[1]]) * unit_px
    moved = (field[np.ix_(row, column)] * scale).reshape(-1, 2)
    ends = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    found: Float32 = np.hstack([ends - moved, ends]).astype(np.float32)
    return found[np.hypot(moved[:, 0], moved[:, 1]) >= shortest_px]


def draw_arrows(planes: Sequence[Bytes], found: Float32) -> None:
    """Draw `arrows` into Y [H, W], U and V [H / 2, W / 2] in place: yellow, with a black rim."""
    if not len(found):
        return
    height, width = planes[0].shape
    line_px = max(1.0, min(width, height) / 240)
    for colour, more_px in ((_BLACK, line_px), (_YELLOW, 0.0)):
        ink = _ink(found, (width, height), line_px=line_px, more_px=more_px)
        for plane, value in zip(planes, colour, strict=True):
            part = ink if plane.shape == ink.shape else np.asarray(
                Image.fromarray(ink).resize(plane.shape[::-1], Image.Resampling.BOX))
            share = part.astype(np.float32) / 255
            plane[:] = np.rint(plane * (1 - share) + value * share).astype(np.uint8)


def _ink(found: Float32, size_px: tuple[int, int], *, line_px: float, more_px: float) -> Bytes:
    """Coverage 0..255 of all arrows, [height, width], each `more_px` wider on every side."""
    picture = Image.new("L", (size_px[0] * _FINER, size_px[1] * _FINER), 0)
    draw = ImageDraw.Draw(picture)
    width = round((line_px + 2 * more_px) * _FINER)
    for x0, y0, x1, y1 in (found * _FINER).tolist():
        draw.line((x0, y0, x1, y1), fill=255, width=width)
        tip = _tip(x0, y0, x1, y1, line_px=line_px * _FINER)
        draw.polygon(tip, fill=255)
        if more_px:
            draw.line([*tip, tip[0], tip[1]], fill=255, width=round(2 * more_px * _FINER),
                      joint="curve")
    small = picture.resize(size_px, Image.Resampling.BOX)
    return np.asarray(small)


def _tip(
    x0: float, y0: float, x1: float, y1: float, *, line_px: float
) -> list[tuple[float, float]]:
    """The triangle at the end; on a short arrow it is smaller, so that its line is still seen."""
    length = max(float(np.hypot(x1 - x0, y1 - y0)), 1e-6)
    along = (x1 - x0) / length, (y1 - y0) / length
    size = min(5 * line_px, 0.6 * length)
    x, y = x1 - along[0] * size, y1 - along[1] * size
    aside = along[1] * size / 2, -along[0] * size / 2
    return [(x1, y1), (x + aside[0], y + aside[1]), (x - aside[0], y - aside[1])]
