"""The kernels against slow, obvious numpy or Python versions of themselves."""

from __future__ import annotations

import numpy as np
import pytest

from edgepkd.config import DecodeSpec
from edgepkd.video import _kernels as kernels
from edgepkd.video.fields import Accumulator, residual, working_grid
from tests.video.reading import MV_DTYPE


def _pack(x: int, y: int) -> int:
    return y * 65536 + x


def _words(rows: list[dict[str, int]]) -> np.ndarray:
    vectors = np.zeros(len(rows), MV_DTYPE)
    for vector, row in zip(vectors, rows, strict=True):
        for name, value in {"source": -1, "w": 16, "h": 16, "motion_scale": 4, **row}.items():
            vector[name] = value
    return vectors.view(np.int32)


def _fill(rows: list[dict[str, int]], *, whole: bool = False, limit: int = 8000) -> np.ndarray:
    cells = np.full(6 * 4, 99, np.int32)
    kernels.fill_cells(_words(rows), cells, 6, 4, whole, limit)
    return cells.reshape(4, 6)


def test_a_block_fills_its_cells_and_nothing_else() -> None:
    cells = _fill([{"dst_x": 16, "dst_y": 8, "motion_x": -5, "motion_y": 7}])
    expected = np.zeros((4, 6), np.int32)
    expected[0:2, 1:3] = _pack(-5, 7)
    np.testing.assert_array_equal(cells, expected)


@pytest.mark.parametrize(("scale", "factor"), [(1, 4), (2, 2), (4, 1)])
def test_vectors_come_out_in_quarter_pixels(scale: int, factor: int) -> None:
    cells = _fill([{"w": 8, "h": 8, "dst_x": 4, "dst_y": 4, "motion_x": 3, "motion_y": -3,
                    "motion_scale": scale}])
    assert cells[0, 0] == _pack(3 * factor, -3 * factor)


def test_list_1_padding_and_limits() -> None:
    cells = _fill([
        {"source": 1, "dst_x": 8, "dst_y": 8, "motion_x": 4},
        {"dst_x": 56, "dst_y": 8, "motion_x": 4},  # wholly beyond the right border
        {"dst_x": -8, "dst_y": 8, "motion_x": 4},
        {"dst_x": 8, "dst_y": 24, "motion_x": 30_000, "motion_y": -30_000},
    ], limit=100)
    expected = np.zeros((4, 6), np.int32)
    expected[2:4, 0:2] = _pack(100, -100)
    np.testing.assert_array_equal(cells, expected)


@pytest.mark.parametrize(("quarter", "whole"), [(3, 0), (-3, 0), (4, 4), (-5, -4), (7, 4),
                                                (-8, -8)])
def test_whole_pixels_are_cut_towards_zero(quarter: int, whole: int) -> None:
    cells = _fill([{"dst_x": 8, "dst_y": 8, "motion_x": quarter, "motion_y": quarter}], whole=True)
    assert cells[0, 0] == _pack(whole, whole)


def _slow_accumulate(old: np.ndarray, cells: np.ndarray, *, keep_outside: bool) -> np.ndarray:
    """Per pixel: A_new(p) = A_old(p + m) - m; `old` is [H, W, 2] in quarter pixels."""
    height, width = old.shape[:2]
    new = old.copy()
    for y in range(height):
        for x in range(width):
            mx, my = cells[y // 8, x // 8]
            sx, sy = x + (int(mx) + 2) // 4, y + (int(my) + 2) // 4
            qx, qy = min(max(sx, 0), width - 1), min(max(sy, 0), height - 1)
            if keep_outside and (qx, qy) != (sx, sy):
                continue
            new[y, x] = old[qy, qx] - (mx, my)
    return new


@pytest.mark.parametrize("size", [(48, 32), (50, 37), (9, 7)])
@pytest.mark.parametrize("arithmetic", ["subpel", "coviar"])
def test_full_resolution_field_equals_the_slow_one(size: tuple[int, int], arithmetic: str) -> None:
    rng = np.random.default_rng(3)
    grid = working_grid(*size, grid_px=1, max_short_side_px=288)
    spec = DecodeSpec(grid_px=1, arithmetic=arithmetic)  # type: ignore[arg-type]
    accumulator = Accumulator(grid, spec=spec)
    field = np.zeros((size[1], size[0], 2), np.int64)
    for _ in range(6):
        moved = rng.integers(-90, 90, (grid.cell_rows, grid.cell_columns, 2))
        moved[rng.random(moved.shape[:2]) < 0.4] = 0
        moved[:, 1:][rng.random(moved[:, 1:].shape[:2]) < 0.4] = moved[0, 0]  # runs of equals
        if arithmetic == "coviar":
            moved = moved // 4 * 4
        cells = (moved[..., 1] * 65536 + moved[..., 0]).astype(np.int32).reshape(-1)
        accumulator.advance(cells, None)
        field = _slow_accumulate(field, moved, keep_outside=arithmetic == "coviar")
        np.testing.assert_array_equal(accumulator.field(), field)


@pytest.mark.parametrize("keep_outside", [False, True])
def test_the_cell_kernel_equals_the_general_one(keep_outside: bool) -> None:
    rng = np.random.default_rng(5)
    grid = working_grid(338, 250, grid_px=8, max_short_side_px=288)
    count = grid.columns * grid.rows
    slots = 5
    rings = [rng.integers(-3000, 3000, slots * count).astype(np.int32) for _ in range(2)]
    rings[1][:] = rings[0]
    for slot in range(slots):
        x, y = rng.integers(-700, 700, (2, count))
        cells = (y * 65536 + x).astype(np.int32)
        cells[::3] = 0
        references = rng.integers(0, 4, count).astype(np.uint8)
        kernels.accumulate(rings[0], slot, slots, cells, references, grid.cell_x_starts,
                           grid.cell_y_starts, grid.scale_x, grid.scale_y, keep_outside)
        kernels.accumulate_cells(rings[1], slot, slots, cells, references, grid.columns,
                                 grid.rows, keep_outside)
        np.testing.assert_array_equal(rings[0], rings[1])


@pytest.mark.smoke
@pytest.mark.parametrize(("size", "grid_px", "largest"),
                         [((50, 37), 1, 288), ((50, 37), 4, 288), ((338, 250), 8, 288),
                          ((1280, 720), 8, 288)])
def test_residual_is_the_difference_to_the_looked_up_pixel(
    size: tuple[int, int], grid_px: int, largest: int
) -> None:
    rng = np.random.default_rng(7)
    grid = working_grid(*size, grid_px=grid_px, max_short_side_px=largest)
    now, anchor = rng.integers(0, 256, (2, grid.height_px, grid.width_px, 3), dtype=np.uint8)
    moved = rng.integers(-160, 160, (grid.rows, grid.columns, 2))
    moved[:, 1::2] = moved[:, : moved[:, 1::2].shape[1] * 2 : 2]  # runs of two
    state = (moved[..., 1] * 65536 + moved[..., 0] + kernels.BIAS).astype(np.int32).reshape(-1)
    got = residual(now, anchor, state, grid=grid)
    y, x = np.mgrid[0 : grid.height_px, 0 : grid.width_px]
    point = moved[y // (1 if grid.resizes else grid_px), x // (1 if grid.resizes else grid_px)]
    dx = np.floor(point[..., 0] * grid.picture_scale_x + 0.5).astype(int)
    dy = np.floor(point[..., 1] * grid.picture_scale_y + 0.5).astype(int)
    warped = anchor[np.clip(y - dy, 0, grid.height_px - 1), np.clip(x - dx, 0, grid.width_px - 1)]
    np.testing.assert_array_equal(got, now.astype(np.int16) - warped)


@pytest.mark.slow
def test_reference_choice_finds_the_frame_a_block_came_from() -> None:
    rng = np.random.default_rng(11)
    width, height = 64, 48
    backs = rng.integers(0, 256, (4, height, width), dtype=np.uint8)
    now = np.zeros((height, width), np.uint8)
    rows, expected = [], np.zeros((6, 8), np.uint8)
    for number, (left, top) in enumerate([(0, 0), (16, 0), (32, 16), (48, 32)]):
        dx, dy = [(3, 2), (-4, 5), (1, -6), (-2, -3)][number]
        now[top : top + 16, left : left + 16] = backs[
            number, top + dy : top + dy + 16, left + dx : left + dx + 16]
        rows.append({"dst_x": left + 8, "dst_y": top + 8, "motion_x": 4 * dx, "motion_y": 4 * dy})
        expected[top // 8 : top // 8 + 2, left // 8 : left // 8 + 2] = number
    references = np.full(48, 9, np.uint8)
    kernels.choose_references(
        _words(rows), references, 8, 6, now.reshape(-1), *(b.reshape(-1) for b in backs), 4,
        width, width, height)
    np.testing.assert_array_equal(references.reshape(6, 8), expected)
