"""Value mapping, crops and the resize, against slow and obvious versions of themselves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgepkd.config import MODALITIES, Modality
from edgepkd.errors import ConfigError
from edgepkd.video.transforms import (
    Geometry,
    ValueImage,
    centre_crop,
    motion_scale,
    mv_to_uint8,
    residual_to_uint8,
    ten_crop,
    to_tensor,
)

WHOLE = Geometry()


def image(modality: Modality, pixels: np.ndarray, extent=None, **kw) -> ValueImage:
    return ValueImage(modality, pixels, extent or (pixels.shape[1], pixels.shape[0]), **kw)


def slow_resize(pixels: np.ndarray, extent, origin, g: Geometry, size: int) -> np.ndarray:
    rows, columns, channels = pixels.shape
    out = np.zeros((channels, size, size))
    for i in range(size):
        for j in range(size):
            u = (size - 1 - j if g.flip else j) + 0.5
            x = origin[0] + (g.left + u / size * g.width) * extent[0] - 0.5
            y = origin[1] + (g.top + (i + 0.5) / size * g.height) * extent[1] - 0.5
            x, y = min(max(x, 0), columns - 1), min(max(y, 0), rows - 1)
            x0, y0 = math.floor(x), math.floor(y)
            x1, y1 = min(x0 + 1, columns - 1), min(y0 + 1, rows - 1)
            p = pixels.astype(float)
            top = p[y0, x0] * (1 - (x - x0)) + p[y0, x1] * (x - x0)
            low = p[y1, x0] * (1 - (x - x0)) + p[y1, x1] * (x - x0)
            out[:, i, j] = top * (1 - (y - y0)) + low * (y - y0)
    return out


def test_motion_mapping_is_the_reference_mapping() -> None:
    quarters = np.arange(-500, 501, dtype=np.int16)
    field = np.stack([quarters, -quarters], -1)[None]
    expected = [min(max(int(q / 4 * 127.5 / 20) + 128, 0), 255) for q in quarters.tolist()]
    got = mv_to_uint8(field)
    assert got.dtype == np.uint8
    assert got[0, :, 0].tolist() == expected
    assert mv_to_uint8(np.array([[[0, 0], [4, -4], [80, -84]]], np.int16)).tolist() == [
        [[128, 128], [134, 122], [255, 0]]]


def test_motion_is_counted_in_pixels_of_the_training_form() -> None:
    assert motion_scale(340, 256) == (1.0, 1.0)
    field = np.full((2, 2, 2), 40, np.int16)  # 10 px right and down
    doubled = mv_to_uint8(field, scale=motion_scale(170, 512))
    assert doubled[0, 0].tolist() == [128 + int(20 * 6.375), 128 + int(5 * 6.375)]


def test_residual_mapping_clips_and_turns_to_bgr() -> None:
    residual = np.array([[[-255, 0, 255], [-129, -128, 127]]], np.int16)
    assert residual_to_uint8(residual).tolist() == [[[255, 128, 0], [255, 0, 0]]]


@pytest.mark.smoke
def test_tensor_values_are_those_of_the_table() -> None:
    def value(modality: Modality, level: int, channels: int) -> list[float]:
        pixels = np.full((4, 4, channels), level, np.uint8)
        tensor = to_tensor(image(modality, pixels), WHOLE, crop_px=4)
        assert tensor.dtype == np.float32
        assert np.ptp(tensor, axis=(1, 2)).max() == 0
        return tensor[:, 0, 0].tolist()

    assert value("mv", 128, 2) == pytest.approx([128 / 255 - 0.5] * 2, abs=1e-6)
    assert value("residual", 200, 3) == pytest.approx(
        [(200 / 255 - 0.5) / s for s in (0.229, 0.224, 0.225)], abs=1e-6)
    assert value("iframe", 10, 3) == pytest.approx(
        [(10 / 255 - m) / s for m, s in
         zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)], abs=1e-6)


@pytest.mark.parametrize("geometry", [
    WHOLE, centre_crop(resize_px=32, crop_px=28), Geometry(0.1, 0.3, 0.4, 0.6, True)])
def test_resize_agrees_with_the_slow_one(geometry: Geometry) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (13, 17, 3), dtype=np.uint8)
    for extent, origin in (((17, 13), (0, 0)), ((16.5, 12.25), (0.5, 0.75))):
        got = to_tensor(image("residual", pixels, extent, origin=origin), geometry, crop_px=20)
        std = np.array([0.229, 0.224, 0.225])[:, None, None]
        slow = (slow_resize(pixels, extent, origin, geometry, 20) / 255 - 0.5) / std
        np.testing.assert_allclose(got, slow, atol=2e-5)


def test_same_size_is_untouched() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (24, 24, 3), dtype=np.uint8)
    got = to_tensor(image("residual", pixels), WHOLE, crop_px=24)
    back = (got * np.array([0.229, 0.224, 0.225], np.float32)[:, None, None] + 0.5) * 255
    np.testing.assert_allclose(back.transpose(1, 2, 0), pixels, atol=1e-3)


def test_cells_land_where_their_pixels_are() -> None:
    """A step at pixel 160 of 340 is at 160/340 of the square, on a grid of 42.5 cells."""
    field = np.full((32, 43, 2), 100, np.uint8)
    field[:, 20:] = 200  # cell 20 begins at pixel 160
    tensor = to_tensor(image("mv", field, (42.5, 32.0)), WHOLE, crop_px=256)
    levels = (tensor[0, 128] + 0.5) * 255
    crossing = int(np.argmax(levels >= 150))
    assert abs(crossing + 0.5 - 160 / 340 * 256) <= 1
    # Taking all 43 cells for the whole picture would put it 1.4 px to the left at this place,
    # and further off to the right.
    field[:] = 100
    field[:, 40:] = 200
    levels = (to_tensor(image("mv", field, (42.5, 32.0)), WHOLE, crop_px=256)[0, 0] + 0.5) * 255
    assert abs(int(np.argmax(levels >= 150)) + 0.5 - 320 / 340 * 256) <= 1


@pytest.mark.parametrize("modality", MODALITIES)
def test_flip_mirrors_and_negates_only_the_x_of_motion(modality: Modality) -> None:
    channels = 2 if modality == "mv" else 3
    pixels = np.random.default_rng(0).integers(1, 256, (16, 16, channels), dtype=np.uint8)
    plain = to_tensor(image(modality, pixels), WHOLE, crop_px=16)
    flipped = to_tensor(image(modality, pixels), Geometry(flip=True), crop_px=16)
    mirrored = plain[..., ::-1].copy()
    if modality == "mv":
        levels = (mirrored[0] + 0.5) * 255
        mirrored[0] = np.minimum(256 - levels, 255) / 255 - 0.5
    np.testing.assert_allclose(flipped, mirrored, atol=1e-5)


def test_flipped_zero_level_is_clipped() -> None:
    pixels = np.zeros((4, 4, 2), np.uint8)
    assert to_tensor(image("mv", pixels), Geometry(flip=True), crop_px=4)[:, 0, 0].tolist() == [
        0.5, -0.5]


def test_centre_crop_is_the_middle_of_the_square() -> None:
    crop = centre_crop(resize_px=256, crop_px=224)
    assert (crop.left, crop.width) == (16 / 256, 224 / 256)
    with pytest.raises(ConfigError, match=r"crop_px is 300.*1\.\.256"):
        centre_crop(resize_px=256, crop_px=300)


def test_ten_crops_are_corners_and_centre_twice() -> None:
    crops = ten_crop(resize_px=256, crop_px=224)
    assert len(crops) == len(set(crops)) == 10
    assert [c.flip for c in crops] == [False, True] * 5
    places = [(round(c.left * 256), round(c.top * 256)) for c in crops[::2]]
    assert places == [(0, 0), (32, 0), (0, 32), (32, 32), (16, 16)]


def test_what_the_compiled_loop_would_misread_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"geometry is .*nan"):
        Geometry(left=float("nan"))
    pixels = np.zeros((8, 8, 2), np.uint8)
    for out in (np.zeros((2, 4, 400), np.float32), np.zeros((2, 4, 4), np.float64)):
        with pytest.raises(ConfigError, match="out is"):
            to_tensor(image("mv", pixels), WHOLE, crop_px=4, out=out)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="pixels is"):
        to_tensor(image("mv", pixels[:0]), WHOLE, crop_px=4)
