"""Working grids, accumulated motion and residuals: numpy arrays around the kernels.

The accumulated field A at a point p of frame t says that what is seen at p was at `p - A(p)` in
the anchor: + is right and down, as in CoViAR (paper.md 1.2), in quarter pixels of the source.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import numpy as np

from edgepkd.errors import DecodeError
from edgepkd.video import _kernels as kernels
from edgepkd.video.decoder import luma
from edgepkd.video.h264 import NO_CROP, Crop
from edgepkd.video.orientation import Margins

if TYPE_CHECKING:
    from collections.abc import Sequence

    from av.video.frame import VideoFrame
    from numpy.typing import NDArray

    from edgepkd.config import DecodeSpec

OUTPUT_SHORT_SIDE_PX = 256
"""Short side of the output grid for large sources, the size of CoViAR's re-encoded clips."""
_BIAS = np.int32(kernels.BIAS)
_HINT = "The stream is damaged; use --route normalize."
NUM_REFERENCES = 4
"""Decoded frames that the reference choice looks back at (decode.md 1.5)."""


@dataclass(frozen=True)
class Window:
    """The part of the decoded pictures that is shown, and the points of the field that cover it."""

    width_px: int
    height_px: int
    columns: int
    rows: int
    pixels: tuple[slice, slice]
    """Lines and columns of a picture."""
    points: tuple[slice, slice]
    """Rows and columns of a field."""
    margins: Margins
    """Parts of the outermost points of those that lie outside the picture, in points."""


@dataclass(frozen=True)
class WorkingGrid:
    """Where the field of a source of one size is accumulated and its pictures are compared.

    Up to `max_short_side_px` that is the source's own pixels, cut in `grid_px` cells; above, it
    is the output grid: one field vector per pixel of a picture with a short side of 256.
    """

    source_width_px: int
    source_height_px: int
    width_px: int
    """Of the pictures and residuals."""
    height_px: int
    columns: int
    """Of the field."""
    rows: int
    scale_x: float
    """Points of the field per quarter pixel of the source."""
    scale_y: float
    picture_scale_x: float
    """Pixels of the picture per quarter pixel of the source."""
    picture_scale_y: float
    cell_columns: int
    cell_rows: int
    num_cells: int
    cell_x_starts: NDArray[np.int32]
    cell_y_starts: NDArray[np.int32]
    point_x_starts: NDArray[np.int32]
    point_y_starts: NDArray[np.int32]

    resizes: bool
    """True where pictures are made smaller than the source."""
    is_cells: bool
    """True where every point of the field is one 8x8 cell of the source."""
    window: Window
    """What is shown of the pictures and the field."""


@lru_cache(maxsize=32)
def working_grid(
    width_px: int, height_px: int, *, grid_px: int, max_short_side_px: int, crop: Crop = NO_CROP
) -> WorkingGrid:
    """The working grid of a source of `width_px` x `height_px`.

    With `crop` that is the size of the coded picture, and the grid covers all of it: vectors refer
    to what is not shown, too. A cropped source is never made smaller.
    """
    # A raw stream without headers opens with no size; the first frame will tell.
    width_px, height_px = max(width_px, 1), max(height_px, 1)
    short = min(width_px, height_px)
    resizes = short > max_short_side_px and crop == NO_CROP
    if resizes:
        out_w = round(width_px * OUTPUT_SHORT_SIDE_PX / short)
        out_h = round(height_px * OUTPUT_SHORT_SIDE_PX / short)
        columns, rows, point_px = out_w, out_h, 1
    else:
        out_w, out_h, point_px = width_px, height_px, grid_px
        columns, rows = -(-width_px // grid_px), -(-height_px // grid_px)
    cells = (-(-width_px // kernels.CELL_PX), -(-height_px // kernels.CELL_PX))
    scale_x, scale_y = out_w / width_px / 4, out_h / height_px / 4
    return WorkingGrid(
        width_px, height_px, out_w, out_h, columns, rows,
        scale_x / point_px, scale_y / point_px, scale_x, scale_y, *cells, cells[0] * cells[1],
        _cell_starts(cells[0], columns, out_w / width_px / point_px),
        _cell_starts(cells[1], rows, out_h / height_px / point_px),
        _point_starts(columns, out_w, point_px), _point_starts(rows, out_h, point_px),
        resizes=resizes, is_cells=not resizes and grid_px == kernels.CELL_PX,
        window=_window(out_w, out_h, point_px=point_px, crop=crop))


def _window(width_px: int, height_px: int, *, point_px: int, crop: Crop) -> Window:
    x0, x1, y0, y1 = crop.left, width_px - crop.right, crop.top, height_px - crop.bottom
    column0, column1 = x0 // point_px, -(-x1 // point_px)
    row0, row1 = y0 // point_px, -(-y1 // point_px)
    return Window(
        x1 - x0, y1 - y0, column1 - column0, row1 - row0,
        (slice(y0, y1), slice(x0, x1)), (slice(row0, row1), slice(column0, column1)),
        Margins(x0 / point_px - column0, y0 / point_px - row0,
                column1 - x1 / point_px, row1 - y1 / point_px))


def _cell_starts(num_cells: int, num_points: int, points_per_px: float) -> NDArray[np.int32]:
    """First field point whose centre lies in each cell, and the end."""
    centres_px = (np.arange(num_points) + 0.5) / points_per_px
    edges_px = np.arange(num_cells) * kernels.CELL_PX
    starts = np.searchsorted(centres_px, edges_px, side="left")
    return np.append(starts, num_points).astype(np.int32)


def _point_starts(num_points: int, size_px: int, point_px: int) -> NDArray[np.int32]:
    return np.append(np.arange(num_points) * point_px, size_px).astype(np.int32)


def no_cells(grid: WorkingGrid) -> NDArray[np.int32]:
    """The map of cells of a frame without a vector."""
    return np.zeros(grid.num_cells, np.int32)


def vector_cells(
    words: NDArray[np.int32], *, grid: WorkingGrid, whole_pixels: bool, limit: int
) -> NDArray[np.int32]:
    """The exported vectors of a frame as a map of cells, int32 [cells], packed.

    `whole_pixels` truncates towards zero; no component is longer than `limit` quarter pixels.
    """
    cells = np.empty(grid.num_cells, np.int32)
    kernels.fill_cells(words, cells, grid.cell_columns, grid.cell_rows, whole_pixels, limit)
    return cells


def chosen_references(
    words: NDArray[np.int32], frame: VideoFrame, recent: Sequence[VideoFrame], *, grid: WorkingGrid
) -> NDArray[np.uint8]:
    """How many decoded frames back each cell's reference lies, uint8 [cells]; 0: the last one.

    `recent` are the frames before `frame`, newest last, looked at back to one of another size.

    Raises:
        DecodeError: `frame` is not of the size that `grid` is for.
    """
    references = np.zeros(grid.num_cells, np.uint8)
    now, stride = luma(frame)
    if (frame.width, frame.height) != (grid.source_width_px, grid.source_height_px):
        raise DecodeError(
            f"A frame is {frame.width}x{frame.height}; allowed: "
            f"{grid.source_width_px}x{grid.source_height_px}, as the frames before it.", hint=_HINT)
    alike = takewhile(lambda back: (back.width, back.height) == (frame.width, frame.height),
                      reversed(recent[-NUM_REFERENCES:]))
    planes = [plane for plane, _ in takewhile(lambda pair: pair[1] == stride, map(luma, alike))]
    if not planes:
        return references
    _check_sizes("luma planes", stride * grid.source_height_px, now, *planes, at_least=True)
    one, two, three, four = planes + [planes[-1]] * (NUM_REFERENCES - len(planes))
    kernels.choose_references(
        words, references, grid.cell_columns, grid.cell_rows, now, one, two, three, four,
        len(planes), stride, grid.source_width_px, grid.source_height_px)
    return references


def _check_sizes(
    what: str, size: int, *arrays: NDArray[Any], at_least: bool = False
) -> None:
    """Kernels index without looking: arrays that are not of one geometry must not reach them.

    Raises:
        DecodeError: an array has not `size` elements.
    """
    for array in arrays:
        if array.size != size and not (at_least and array.size > size):
            raise DecodeError(f"The {what} of a frame have {array.size} elements; allowed: {size}, "
                              "as the picture size says.", hint=_HINT)


class Accumulator:
    """The accumulated field of one GOP, moved on frame by frame."""

    def __init__(self, grid: WorkingGrid, *, spec: DecodeSpec, num_references: int = 1) -> None:
        self.grid = grid
        self._keep_outside = spec.arithmetic == "coviar"
        self._num_slots = num_references + 1
        self._size = grid.columns * grid.rows
        self._ring = np.empty(self._num_slots * self._size, np.int32)
        self._one_reference = np.zeros(grid.num_cells, np.uint8)
        self.restart()

    def restart(self) -> None:
        """Back to the anchor: no motion."""
        self._slot = 0
        self._ring[: self._size] = kernels.BIAS

    def advance(self, cells: NDArray[np.int32], references: NDArray[np.uint8] | None) -> None:
        """Go on by one decoded frame with the vectors `cells` (int32 [cells], packed).

        `references` (uint8 [cells], each below `num_references`) as `chosen_references` gives them.

        Raises:
            DecodeError: the arrays are not those of this grid.
        """
        self._slot = (self._slot + 1) % self._num_slots
        grid = self.grid
        # States of frames further back are not kept for streams with one reference.
        if references is None or self._num_slots <= NUM_REFERENCES:
            references = self._one_reference
        if cells.size != grid.num_cells or references.size != grid.num_cells:  # for every frame
            _check_sizes("cells", grid.num_cells, cells, references)
        if grid.is_cells:
            kernels.accumulate_cells(self._ring, self._slot, self._num_slots, cells, references,
                                     grid.columns, grid.rows, self._keep_outside)
            return
        kernels.accumulate(
            self._ring, self._slot, self._num_slots, cells, references,
            grid.cell_x_starts, grid.cell_y_starts, grid.scale_x, grid.scale_y,
            self._keep_outside)

    @property
    def state(self) -> NDArray[np.int32]:
        """The packed state, int32 [rows * columns]; a view, valid until the next `advance`."""
        return self._ring[self._slot * self._size : (self._slot + 1) * self._size]

    def field(self) -> NDArray[np.int16]:
        """int16 [rows, columns, 2] (x, y) in quarter pixels; the caller's own array."""
        plain = np.bitwise_xor(self.state, _BIAS)
        return plain.view(np.int16).reshape(self.grid.rows, self.grid.columns, 2)


def residual(
    picture: NDArray[np.uint8],
    anchor: NDArray[np.uint8],
    state: NDArray[np.int32],
    *,
    grid: WorkingGrid,
) -> NDArray[np.int16]:
    """`picture` minus the anchor warped by `state`, int16 [H, W, 3], -255..255.

    `picture[y, x] == anchor[y - A_y, x - A_x] + residual[y, x]` holds exactly, with A rounded to
    whole pixels of the picture (half up) and the look-up clamped to the picture (paper.md 1.2).

    Raises:
        DecodeError: the arrays are not those of one geometry.
    """
    _check_sizes("pictures", 3 * grid.width_px * grid.height_px, picture, anchor)
    _check_sizes("field", grid.columns * grid.rows, state)
    out = np.empty(picture.shape, np.int16)
    kernels.warp_difference(
        picture.reshape(-1), anchor.reshape(-1), state, grid.point_x_starts, grid.point_y_starts,
        grid.picture_scale_x, grid.picture_scale_y, out.reshape(-1))
    return out
