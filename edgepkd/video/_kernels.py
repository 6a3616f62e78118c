"""The inner loops, compiled by numba; each works on a whole frame per call.

Units. A vector is quarter pixels of the source. A *cell* is an 8x8 block of the source: no codec
here exports a smaller block, so one vector per cell loses nothing (decode.md 2). A vector of a
cell is packed in one int32 as `y * 65536 + x`. A *state* is the accumulated field on the working
grid, packed as `y * 65536 + (x + 32768)`: the bias keeps borrows out of y, so that one int32
subtraction works on both components and the row loops vectorise.

Index arithmetic is unsigned where it matters: numba's wrap-around check for negative indices
keeps LLVM from vectorising.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from edgepkd.video.jit import compiled

# Element arithmetic follows numba's typing, which mypy does not know.
I16 = Any
"""int16 [n]"""
I32 = Any
"""int32 [n]"""
U8 = Any
"""uint8 [n]"""

BIAS = 0x8000
"""State of a point that has not moved."""
WORDS = 10
"""32-bit words of one AVMotionVector."""
CELL_PX = 8
_LANES = 8
_IS_CHECKED = bool(numba.config.BOUNDSCHECK)  # type: ignore[attr-defined]
"""Whether accesses are checked (NUMBA_BOUNDSCHECK=1): the vector operations below check nothing by
themselves, so that their first and last element are looked at before. Costs nothing otherwise."""

_inline = partial(compiled, inline="always")


def _intrinsic(function: Callable[..., Any]) -> Any:
    return intrinsic(function)


@_inline
def _unpack_x(packed: int) -> int:
    return ((packed + 0x8000) & 0xFFFF) - 0x8000


@_inline
def _unpack_y(packed: int) -> int:
    return (packed + 0x8000) >> 16


@compiled
def fill_cells(raw: I32, cells: I32, columns: int, rows: int, whole: bool, limit: int) -> None:
    """Write the vectors of one frame into its map of cells; no vector is 0.

    `raw` are the exported vectors as 32-bit words: 0 source, 1 w|h|src_x, 2 src_y|dst_x,
    3 dst_y|padding, 6 motion_x, 7 motion_y, 8 motion_scale. List 1 (source > 0) is ignored.
    `whole` truncates to whole pixels towards zero, as CoViAR's loader does.
    """
    cells[:] = 0
    for base in range(0, raw.size - WORDS + 1, WORDS):
        mx = raw[base + 6]
        my = raw[base + 7]
        if (mx == 0 and my == 0) or raw[base] >= 0:
            continue
        scale = raw[base + 8] & 0xFFFF
        if scale == 2:
            mx, my = mx * 2, my * 2
        elif scale != 4:
            mx, my = mx * 4 // max(scale, 1), my * 4 // max(scale, 1)
        if whole:
            mx = (mx >> 2) * 4 if mx >= 0 else -((-mx >> 2) * 4)
            my = (my >> 2) * 4 if my >= 0 else -((-my >> 2) * 4)
        mx = min(max(mx, -limit), limit)
        my = min(max(my, -limit), limit)
        size = raw[base + 1]
        left = (raw[base + 2] >> 16) - ((size & 0xFF) >> 1)
        top = (((raw[base + 3] & 0xFFFF) ^ 0x8000) - 0x8000) - (((size >> 8) & 0xFF) >> 1)
        x0, x1 = max(left >> 3, 0), min((left + (size & 0xFF) + 7) >> 3, columns)
        y0, y1 = max(top >> 3, 0), min((top + ((size >> 8) & 0xFF) + 7) >> 3, rows)
        packed = np.int32(my * 65536 + mx)
        for y in range(y0, y1):
            for x in range(x0, x1):
                cells[y * columns + x] = packed


@compiled
def _block_sad(
    now: U8, then: U8, stride: int, width: int, height: int,
    left: int, top: int, w: int, h: int, dx: int, dy: int, best: int,
) -> int:
    """Sum of absolute differences of a block and its displaced look-up; stops above `best`."""
    x0, x1 = max(left, -dx, 0), min(left + w, width - dx, width)
    y0, y1 = max(top, -dy, 0), min(top + h, height - dy, height)
    if x1 <= x0 or y1 <= y0:
        return best
    total = 0
    count = np.uint64(x1 - x0)
    for y in range(y0, y1):
        a = np.uint64(y * stride + x0)
        b = np.uint64((y + dy) * stride + x0 + dx)
        line: Any = np.int32(0)
        for i in range(count):
            line += np.int32(abs(np.int32(now[a + i]) - np.int32(then[b + i])))
        total += line
        if total >= best:
            return best
    return total


@compiled
def choose_references(
    raw: I32, references: U8, columns: int, rows: int,
    now: U8, back1: U8, back2: U8, back3: U8, back4: U8, num_back: int,
    stride: int, width: int, height: int,
) -> None:
    """For each block, which of the last decoded frames (0 = the previous one) it was taken from.

    FFmpeg does not export the reference index, so the frame whose displaced block differs least
    from the decoded one is taken (decode.md 1.5).
    """
    references[:] = 0
    for base in range(0, raw.size - WORDS + 1, WORDS):
        if raw[base] >= 0:
            continue
        size = raw[base + 1]
        w, h = size & 0xFF, (size >> 8) & 0xFF
        left = (raw[base + 2] >> 16) - (w >> 1)
        top = (((raw[base + 3] & 0xFFFF) ^ 0x8000) - 0x8000) - (h >> 1)
        scale = max(raw[base + 8] & 0xFFFF, 1)
        dx = (raw[base + 6] * 2 + scale) // (2 * scale)
        dy = (raw[base + 7] * 2 + scale) // (2 * scale)
        worst = 1 << 30
        best = _block_sad(now, back1, stride, width, height, left, top, w, h, dx, dy, worst)
        if best <= w * h >> 1 or best == worst:
            continue  # as good as equal: the nearest frame it is
        chosen = 0
        for back in range(1, num_back):
            then = back2 if back == 1 else (back3 if back == 2 else back4)
            sad = _block_sad(now, then, stride, width, height, left, top, w, h, dx, dy, best)
            if sad < best:
                best, chosen = sad, back
        if chosen:
            for y in range(max(top >> 3, 0), min((top + h + 7) >> 3, rows)):
                for x in range(max(left >> 3, 0), min((left + w + 7) >> 3, columns)):
                    references[y * columns + x] = chosen


@_intrinsic
def _store_less_8(typing_context: Any, ring: Any, to: Any, start: Any, m: Any) -> Any:
    """ring[to + i] = ring[start + i] - m for i < 8, as one vector operation.

    Runs are short, mostly one to four cells of eight points: LLVM's own loop vectoriser takes
    thirty-two points a step and leaves such runs to its scalar remainder. The portable vector
    type becomes AVX2 or NEON code.
    """
    lanes = ir.VectorType(ir.IntType(32), _LANES)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        source = builder.bitcast(builder.gep(data, [args[2]]), lanes.as_pointer())
        target = builder.bitcast(builder.gep(data, [args[1]]), lanes.as_pointer())
        splat = ir.Constant(lanes, ir.Undefined)
        for lane in range(_LANES):
            splat = builder.insert_element(splat, args[3], ir.IntType(32)(lane))
        builder.store(builder.sub(builder.load(source, align=4), splat), target, align=4)
        return context.get_dummy_value()

    return types.void(ring, types.uint64, types.uint64, types.int32), generate


@_intrinsic
def _store_difference_8(
    typing_context: Any, out: Any, to: Any, now: Any, anchor: Any, start: Any
) -> Any:
    """out[to + i] = now[to + i] - anchor[start + i] for i < 8: bytes in, int16 out."""
    lanes = ir.VectorType(ir.IntType(8), _LANES)
    wide = ir.VectorType(ir.IntType(16), _LANES)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def pointer(array: int, index: int, kind: Any) -> Any:
            made = context.make_array(signature.args[array])(context, builder, args[array])
            return builder.bitcast(builder.gep(made.data, [args[index]]), kind.as_pointer())

        now8 = builder.zext(builder.load(pointer(2, 1, lanes), align=1), wide)
        anchor8 = builder.zext(builder.load(pointer(3, 4, lanes), align=1), wide)
        builder.store(builder.sub(now8, anchor8), pointer(0, 1, wide), align=2)
        return context.get_dummy_value()

    return types.void(out, types.uint64, now, anchor, types.uint64), generate


@compiled
def _shift_run(
    ring: I32, target: int, source: int, keep: int, width: int, height: int,
    x0: int, x1: int, y0: int, y1: int, ox: int, oy: int, packed: int, keep_outside: bool,
) -> None:
    """state_new(p) = state_old(p + o) - m on the rectangle x0..x1, y0..y1.

    A look-up outside the picture takes the nearest point of it, or, with `keep_outside` (CoViAR),
    leaves the point as it was.
    """
    m = np.int32(packed)
    in0 = min(max(x0, -ox), x1)  # in0..in1 looks up inside the picture
    in1 = max(min(x1, width - ox), in0)
    for y in range(y0, y1):
        row = target + y * width
        inside = 0 <= y + oy < height
        if keep_outside and not inside:
            for x in range(x0, x1):
                ring[row + x] = ring[keep + y * width + x]
            continue
        old = source + min(max(y + oy, 0), height - 1) * width
        a, b = row + in0, old + in0 + ox
        for _ in range((in1 - in0) >> 3):
            if _IS_CHECKED:
                ring[np.uint64(a)] = ring[np.uint64(a + 7)] = ring[np.uint64(b)] - m
                ring[np.uint64(a)] = ring[np.uint64(b + 7)] - m
            _store_less_8(ring, np.uint64(a), np.uint64(b), m)
            a += _LANES
            b += _LANES
        for i in range((in1 - in0) & 7):
            ring[np.uint64(a + i)] = ring[np.uint64(b + i)] - m
        if in0 > x0 or in1 < x1:
            for x in range(x0, x1):
                if in0 <= x < in1:
                    continue
                if keep_outside:
                    ring[row + x] = ring[keep + y * width + x]
                else:
                    ring[row + x] = ring[old + min(max(x + ox, 0), width - 1)] - m


@compiled
def accumulate(
    ring: I32, slot: int, num_slots: int, cells: I32, references: U8,
    x_starts: I32, y_starts: I32, scale_x: float, scale_y: float, keep_outside: bool,
) -> None:
    """One P-frame: state_new(p) = state_reference(p + m) - m (decode.md 4.1).

    `ring` holds the states of the last frames, one after the other; `slot` is written, the
    reference of a cell is `references[cell] + 1` slots before. `x_starts` and `y_starts` are the
    first working-grid column and row of each cell (one more entry: the end). `scale` turns
    quarter pixels of the source into points of the working grid. Runs of cells that moved alike
    are copied as one.
    """
    columns, rows = x_starts.size - 1, y_starts.size - 1
    width, height = x_starts[columns], y_starts[rows]
    size = width * height
    target, last = slot * size, (slot + num_slots - 1) % num_slots
    for row in range(rows):
        y0, y1 = y_starts[row], y_starts[row + 1]
        start = 0
        while start < columns:
            packed, reference = cells[row * columns + start], references[row * columns + start]
            stop = start + 1
            while (stop < columns and cells[row * columns + stop] == packed
                   and references[row * columns + stop] == reference):
                stop += 1
            x0, x1 = x_starts[start], x_starts[stop]
            start = stop
            back = last - int(reference)
            source = (back if back >= 0 else back + num_slots) * size
            ox, oy = 0, 0
            if packed:
                ox = int(np.floor(_unpack_x(packed) * scale_x + 0.5))
                oy = int(np.floor(_unpack_y(packed) * scale_y + 0.5))
            _shift_run(ring, target, source, last * size, width, height,
                       x0, x1, y0, y1, ox, oy, packed, keep_outside)


@compiled
def accumulate_cells(
    ring: I32, slot: int, num_slots: int, cells: I32, references: U8, columns: int, rows: int,
    keep_outside: bool,
) -> None:
    """`accumulate` where the working grid is the cells themselves: one point a cell."""
    size = columns * rows
    target, last = slot * size, (slot + num_slots - 1) % num_slots
    at = 0
    for y in range(rows):
        for x in range(columns):
            packed = int(cells[at])
            source = last
            if references[at]:
                source -= int(references[at])
                if source < 0:
                    source += num_slots
            px = x + ((_unpack_x(packed) + 16) >> 5)
            py = y + ((_unpack_y(packed) + 16) >> 5)
            qx, qy = min(max(px, 0), columns - 1), min(max(py, 0), rows - 1)
            if keep_outside and (qx != px or qy != py):
                source, qx, qy, packed = last, x, y, 0
            ring[np.uint64(target + at)] = (
                ring[np.uint64(source * size + qy * columns + qx)] - packed)
            at += 1


@compiled
def warp_difference(
    now: U8, anchor: U8, state: I32, x_starts: I32, y_starts: I32,
    scale_x: float, scale_y: float, out: I16,
) -> None:
    """out(p) = now(p) - anchor(p - state(p)) on RGB pictures; look-ups stop at the border.

    `x_starts` and `y_starts` are the first pixel column and row of each state point. Runs of
    points with one state are subtracted as one.
    """
    columns, rows = x_starts.size - 1, y_starts.size - 1
    width, height = int(x_starts[columns]), int(y_starts[rows])
    for row in range(rows):
        start = 0
        while start < columns:
            packed = state[row * columns + start]
            stop = start + 1
            while stop < columns and state[row * columns + stop] == packed:
                stop += 1
            x0, x1 = int(x_starts[start]), int(x_starts[stop])
            start = stop
            sx = -int(np.floor(((packed & 0xFFFF) - 0x8000) * scale_x + 0.5))
            sy = -int(np.floor((packed >> 16) * scale_y + 0.5))
            in0 = min(max(x0, -sx), x1)
            in1 = max(min(x1, width - sx), in0)
            for y in range(int(y_starts[row]), int(y_starts[row + 1])):
                old = min(max(y + sy, 0), height - 1) * width
                a, b, count = (y * width + in0) * 3, (old + in0 + sx) * 3, (in1 - in0) * 3
                for _ in range(count >> 3):
                    if _IS_CHECKED:
                        for i in (0, 7):
                            out[np.uint64(a + i)] = np.int16(now[np.uint64(a + i)]) - np.int16(
                                anchor[np.uint64(b + i)])
                    _store_difference_8(out, np.uint64(a), now, anchor, np.uint64(b))
                    a += _LANES
                    b += _LANES
                for i in range(count & 7):
                    out[a + i] = np.int16(now[a + i]) - np.int16(anchor[b + i])
                if in0 > x0 or in1 < x1:
                    for x in range(x0, x1):
                        if in0 <= x < in1:
                            continue
                        p = (y * width + x) * 3
                        q = (old + min(max(x + sx, 0), width - 1)) * 3
                        for c in range(3):
                            out[p + c] = np.int16(now[p + c]) - np.int16(anchor[q + c])
