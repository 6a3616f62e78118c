"""Arrays of two sizes never meet in a kernel: `fields` checks them, and nobody else calls one.

`tests/fuzz` shows the same with hostile streams.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgepkd.config import DecodeSpec
from edgepkd.errors import DecodeError
from edgepkd.video.fields import (
    Accumulator,
    chosen_references,
    no_cells,
    residual,
    vector_cells,
    working_grid,
)
from edgepkd.video.vectors import vector_words
from tests.clips import encode_clip, moving_scene
from tests.processes import ROOT
from tests.video.reading import plain_frames

CALLER = "edgepkd/video/fields.py"
ASKS_WHERE_THEY_ARE_KEPT = "edgepkd/pipeline/doctor.py"


def test_arrays_of_another_size_are_refused_before_a_kernel() -> None:
    grid = working_grid(64, 48, grid_px=8, max_short_side_px=288)
    other = working_grid(96, 64, grid_px=8, max_short_side_px=288)
    accumulator = Accumulator(grid, spec=DecodeSpec())
    with pytest.raises(DecodeError, match="cells of a frame have 96 elements; allowed: 48"):
        accumulator.advance(no_cells(other), None)
    right, wrong = np.zeros((48, 64, 3), np.uint8), np.zeros((64, 96, 3), np.uint8)
    for picture, anchor in ((right, wrong), (wrong, right)):
        with pytest.raises(DecodeError, match="pictures"):
            residual(picture, anchor, accumulator.state, grid=grid)
    with pytest.raises(DecodeError, match="field"):
        residual(right, right, accumulator.state[1:], grid=grid)
    assert not residual(right, right, accumulator.state, grid=grid).any()


def test_references_of_another_size_are_refused_before_a_kernel() -> None:
    grid = working_grid(64, 48, grid_px=8, max_short_side_px=288)
    accumulator = Accumulator(grid, spec=DecodeSpec(), num_references=4)
    with pytest.raises(DecodeError, match="cells of a frame have 47 elements; allowed: 48"):
        accumulator.advance(no_cells(grid), np.zeros(47, np.uint8))


def test_references_are_not_followed_where_only_one_state_is_kept() -> None:
    grid = working_grid(64, 48, grid_px=8, max_short_side_px=288)
    accumulator = Accumulator(grid, spec=DecodeSpec())
    moved = np.full(grid.num_cells, 8 * 65536 + 4, np.int32)
    accumulator.advance(moved, np.full(grid.num_cells, 3, np.uint8))
    assert (accumulator.field() == (-4, -8)).all()


def test_a_frame_of_another_size_is_refused_before_a_kernel(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "c.264", moving_scene(3, (96, 64)), codec="libx264",
                       options={"x264-params": "bframes=0:ref=3"})
    frames = list(plain_frames(path))
    grid = working_grid(64, 48, grid_px=8, max_short_side_px=288)
    words = vector_words(frames[2])
    assert words.size
    with pytest.raises(DecodeError, match="A frame is 96x64; allowed: 64x48"):
        chosen_references(words, frames[2], frames[:2], grid=grid)
    # Vectors may point anywhere: they are cut off at the grid.
    assert vector_cells(words, grid=grid, whole_pixels=False, limit=100).size == grid.num_cells


@pytest.mark.slow
def test_no_kernel_is_reached_but_through_the_checks() -> None:
    for path in sorted((ROOT / "edgepkd").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        tree = ast.parse(path.read_text(encoding="utf-8"))
        imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))
                   and any("_kernels" in part.split(".") for alias in node.names
                           for part in (alias.name, getattr(node, "module", None) or ""))]
        if name == ASKS_WHERE_THEY_ARE_KEPT:
            called = [node for node in ast.walk(tree) if isinstance(node, ast.Call)
                      and ast.unparse(node.func).startswith("kernels.")]
            assert not called, name
        elif name != CALLER:
            assert not imports, f"{name} reaches kernels without the checks of {CALLER}"
        else:
            assert imports


_OUT_OF_BOUNDS = """
import numpy as np
from edgepkd.video import _kernels as kernels
from edgepkd.video.fields import working_grid
grid = working_grid(64, 48, grid_px=1, max_short_side_px=288)
cells, references = np.zeros(48, np.int32), np.zeros(48, np.uint8)
for kernel, arrays in (
    ("accumulate", (np.zeros(2 * 64 * 48 - 1, np.int32), 1, 2, cells, references,
                    grid.cell_x_starts, grid.cell_y_starts, 0.25, 0.25, False)),
    ("warp_difference", (np.zeros(9216, np.uint8), np.zeros(9215, np.uint8),
                         np.full(3072, kernels.BIAS, np.int32), grid.point_x_starts,
                         grid.point_y_starts, 0.25, 0.25, np.zeros(9216, np.int16))),
):
    try:
        getattr(kernels, kernel)(*arrays)
    except IndexError:
        print(kernel)
"""


@pytest.mark.slow
def test_bounds_checks_see_vector_operations_too(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _OUT_OF_BOUNDS], capture_output=True, text=True, cwd=ROOT,
        env={**os.environ, "NUMBA_BOUNDSCHECK": "1", "NUMBA_CACHE_DIR": str(tmp_path)})
    assert done.stdout.split() == ["accumulate", "warp_difference"], done.stderr[-2000:]
