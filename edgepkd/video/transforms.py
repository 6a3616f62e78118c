"""From decoded signals to network inputs: value mapping, crops, flips (paper.md 1.3 and 1.5).

Training and the device share this code. A signal becomes a value image (uint8, what the reference
stores), and a value image becomes a tensor through one resize: bilinear with half-pixel centres, no
low-pass filter, picture edges repeated. Crops are fractions of the whole picture, so that one
geometry fits all modalities, whatever their grids.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from edgepkd.config import Modality, check
from edgepkd.video.jit import compiled

Uint8 = npt.NDArray[np.uint8]
Float32 = npt.NDArray[np.float32]
Int16 = npt.NDArray[np.int16]

TRAINING_WIDTH_PX, TRAINING_HEIGHT_PX = 340, 256
"""The picture size that the networks are trained on; motion is counted in its pixels."""
MAX_MOTION_PX = 20
"""Motion that saturates uint8."""

_STD = (0.229, 0.224, 0.225)
_MEAN: dict[Modality, tuple[float, ...]] = {
    "mv": (0.5, 0.5), "residual": (0.5, 0.5, 0.5), "iframe": (0.485, 0.456, 0.406),
}


@dataclass(frozen=True, eq=False)
class ValueImage:
    """One signal of one frame, as the reference stores it in memory."""

    modality: Modality
    pixels: Uint8
    """[rows, columns, channels]: mv (x, y), residual BGR, iframe RGB."""
    extent: tuple[float, float]
    """Picture width and height counted in columns and rows; less than the array's where the last
    cell is partial (340 px of 8 px cells: 42.5 of 43)."""
    origin: tuple[float, float] = (0.0, 0.0)
    """Column and row where the picture begins; not 0 where rotation put the partial cell first."""


@dataclass(frozen=True)
class Geometry:
    """A crop as fractions of the picture, then an optional mirror image."""

    left: float = 0.0
    top: float = 0.0
    width: float = 1.0
    height: float = 1.0
    flip: bool = False

    def __post_init__(self) -> None:
        sides = self.left, self.top, self.width, self.height
        check(all(map(math.isfinite, sides)), "geometry", got=sides, allowed="finite numbers")


def motion_scale(width_px: int, height_px: int) -> tuple[float, float]:
    """Return what turns pixels of a picture of this size into pixels of the 340x256 form."""
    return TRAINING_WIDTH_PX / width_px, TRAINING_HEIGHT_PX / height_px


def mv_to_uint8(quarters: Int16, *, scale: tuple[float, float] = (1.0, 1.0)) -> Uint8:
    """Map a motion field [..., 2] (x, y) in quarter pixels to uint8 (paper.md 1.3).

    int32(pixels * 127.5 / 20), truncated toward zero, plus 128, clipped. `scale` goes on the
    pixels first (see `motion_scale`); 1 reproduces the reference bit by bit.
    """
    factors = np.array(scale, np.float64) * (127.5 / MAX_MOTION_PX / 4)
    levels: npt.NDArray[np.float64] = np.trunc(quarters * factors) + 128
    return levels.clip(0, 255).astype(np.uint8)


def residual_to_uint8(residual: Int16) -> Uint8:
    """Map an RGB residual [H, W, 3] (-255..255) to uint8 BGR: r + 128, clipped (paper.md 1.3)."""
    out = np.empty(residual.shape, np.uint8)
    _residual_levels(np.ascontiguousarray(residual).reshape(-1), out.reshape(-1))
    return out


def flip_values(image: ValueImage) -> ValueImage:
    """Return `image` with the x component of motion negated about 128: v -> 256 - v, clipped.

    The mirroring itself is in the geometry; only motion also changes its values (paper.md 1.5).
    """
    if image.modality != "mv":
        return image
    pixels = image.pixels.copy()
    pixels[..., 0] = np.minimum(256 - pixels[..., 0].astype(np.int16), 255)
    return replace(image, pixels=pixels)


def centre_crop(*, resize_px: int, crop_px: int) -> Geometry:
    """Return the test geometry: squash to a square of `resize_px`, cut `crop_px` from its centre.

    Raises:
        ConfigError: the crop is larger than the square.
    """
    return _corner_crop(2, 2, resize_px=resize_px, crop_px=crop_px)


def ten_crop(*, resize_px: int, crop_px: int) -> tuple[Geometry, ...]:
    """Return corners and centre of the squashed square, each plain and mirrored (CoViAR's test).

    Raises:
        ConfigError: the crop is larger than the square.
    """
    corners = ((0, 0), (4, 0), (0, 4), (4, 4), (2, 2))
    crops = [_corner_crop(x, y, resize_px=resize_px, crop_px=crop_px) for x, y in corners]
    return tuple(replace(crop, flip=flip) for crop in crops for flip in (False, True))


def to_tensor(
    image: ValueImage, geometry: Geometry, *, crop_px: int, out: Float32 | None = None
) -> Float32:
    """Cut, resize and normalise `image` to float32 [C, crop_px, crop_px] (paper.md 1.3).

    The result is written to `out` if given.

    Raises:
        ConfigError: `out` is not what the result is, or there is no pixel.
    """
    # Sizes are checked here, for all arrays of the loop that is compiled below.
    shape = (image.pixels.shape[2], crop_px, crop_px)
    check(out is None or (out.shape == shape and out.dtype == np.float32), "out",
          got=None if out is None else (out.shape, out.dtype), allowed=f"{shape}, float32")
    check(image.pixels.size > 0, "pixels", got=image.pixels.shape, allowed="one or more")
    scale, offset = _normalisation(image.modality)
    if geometry.flip:
        image = flip_values(image)
    rows, columns = image.pixels.shape[:2]
    x = _taps(columns, image.origin[0], image.extent[0], geometry.left, geometry.width, crop_px,
              geometry.flip)
    y = _taps(rows, image.origin[1], image.extent[1], geometry.top, geometry.height, crop_px, False)
    if out is None:
        out = np.empty(shape, np.float32)
    _resize(np.ascontiguousarray(image.pixels), *y, *x, scale, offset, out)
    return out


def _corner_crop(x_quarters: int, y_quarters: int, *, resize_px: int, crop_px: int) -> Geometry:
    check(1 <= crop_px <= resize_px, "crop_px", got=crop_px, allowed=f"1..{resize_px} (resize_px)")
    step = (resize_px - crop_px) // 4
    left, top = x_quarters * step, y_quarters * step
    if (x_quarters, y_quarters) == (2, 2):
        left = top = (resize_px - crop_px) // 2
    side = crop_px / resize_px
    return Geometry(left / resize_px, top / resize_px, side, side)


@functools.cache
def _normalisation(modality: Modality) -> tuple[Float32, Float32]:
    """Return per-channel factors a, b of a*v + b for v in 0..255.

    Residual: the reference lays the RGB-ordered std on BGR data, and so do we.
    """
    mean = np.array(_MEAN[modality])
    std = np.ones(2) if modality == "mv" else np.array(_STD)
    return (1 / (255 * std)).astype(np.float32), (-mean / std).astype(np.float32)


@functools.lru_cache(maxsize=256)
def _taps(
    size: int, origin: float, extent: float, start: float, length: float, num_out: int, flip: bool
) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64], Float32]:
    """Return for each output sample its two source samples and the second one's weight."""
    centres = origin + (start + (np.arange(num_out) + 0.5) * (length / num_out)) * extent - 0.5
    centres = np.clip(centres, 0, size - 1)
    if flip:
        centres = centres[::-1]
    low = np.floor(centres)
    high = np.minimum(low + 1, size - 1)
    taps = low.astype(np.uint64), high.astype(np.uint64), (centres - low).astype(np.float32)
    for array in taps:
        array.flags.writeable = False
    return taps


@compiled
def _resize(image: Any, y0: Any, y1: Any, wy: Any, x0: Any, x1: Any, wx: Any, scale: Any,
            offset: Any, out: Any) -> None:
    channels, rows, columns = out.shape
    width = image.shape[1] * channels
    for i in range(rows):
        # One row blended vertically first: contiguous, so it vectorises.
        top, bottom, v = image[y0[i]].reshape(-1), image[y1[i]].reshape(-1), wy[i]
        row = np.empty(width, np.float32)
        for k in range(width):
            row[k] = top[k] + (np.float32(bottom[k]) - top[k]) * v
        for c in range(channels):
            a, b = scale[c], offset[c]
            for j in range(columns):
                left = row[x0[j] * np.uint64(channels) + np.uint64(c)]
                right = row[x1[j] * np.uint64(channels) + np.uint64(c)]
                out[c, i, j] = (left + (right - left) * wx[j]) * a + b


@compiled
def _residual_levels(rgb: Any, bgr: Any) -> None:
    for i in range(rgb.size // 3):
        for c in range(3):
            bgr[3 * i + 2 - c] = min(max(rgb[3 * i + c] + 128, 0), 255)
