"""Arrows: where they stand, how long they are, and that they are drawn there."""

from __future__ import annotations

import numpy as np
import pytest

from edgepkd.runtime.arrows import arrows, draw_arrows, spacing_px

SIZE = (160, 96)
NO_MARGINS = (0.0, 0.0, 0.0, 0.0)


def field(x: int, y: int, *, rows: int = 12, columns: int = 20) -> np.ndarray:
    return np.full((rows, columns, 2), (x, y), np.int16)


def found(motion: np.ndarray, **changes: object) -> np.ndarray:
    settings = {"size_px": SIZE, "source_size_px": SIZE, "margins": NO_MARGINS, "unit_px": 0.25,
                **changes}
    return arrows(motion, **settings)  # type: ignore[arg-type]


def test_arrows_end_on_an_even_grid_and_begin_where_it_was() -> None:
    got = found(field(16, -8))
    assert got.shape == (20 * 12, 4)
    np.testing.assert_allclose(got[:, 2:] - got[:, :2], [[4, -2]] * len(got))
    assert sorted(set(got[:, 2].tolist())) == [4 + 8 * n for n in range(20)]
    assert sorted(set(got[:, 3].tolist())) == [4 + 8 * n for n in range(12)]


def test_motion_is_scaled_to_the_picture() -> None:
    got = found(field(16, 16), source_size_px=(320, 96))
    np.testing.assert_allclose(got[0, 2:] - got[0, :2], [2, 4])


def test_what_does_not_move_has_no_arrow() -> None:
    assert len(found(field(0, 0))) == 0
    assert len(found(field(3, 0))) == 0
    assert len(found(field(3, 0), shortest_px=0.5)) == 240


def test_each_arrow_shows_the_point_below_it() -> None:
    motion = field(0, 0)
    motion[3, 5] = (40, 0)
    (one,) = found(motion)
    assert one.tolist() == [44 - 10, 28, 44, 28]


def test_margins_lie_outside_the_picture() -> None:
    """The picture begins half a point to the right and ends half a point before the last."""
    motion = field(0, 0, columns=21)
    motion[:, 10] = (40, 0)
    assert {float(arrow[2]) for arrow in found(motion, margins=(0.5, 0, 0.5, 0))} == {76}
    assert {float(arrow[2]) for arrow in found(motion, margins=(1, 0, 0, 0))} == {76}
    assert {float(arrow[2]) for arrow in found(motion, margins=(0, 0, 1, 0))} == {84}


def test_arrows_are_as_dense_on_large_pictures() -> None:
    assert spacing_px(1920, 1080) == 60
    assert spacing_px(100, 64) == 8, "not less than a block"


def test_an_arrow_is_yellow_with_a_black_rim() -> None:
    planes = [np.full((96, 160), 120, np.uint8), np.full((48, 80), 128, np.uint8),
              np.full((48, 80), 128, np.uint8)]
    draw_arrows(planes, np.array([[40, 48, 100, 48]], np.float32))
    luma, blue, red = planes
    assert luma[48, 50:95].min() > 170, "the line"
    assert blue[24, 30:45].max() < 90
    assert red[24, 30:45].min() > 130
    assert luma[44:53, 70].min() < 60, "its rim"
    assert luma[45:52, 97].max() > 170, "the tip is wider than the line"
    far = np.ones_like(luma, bool)
    far[40:57, 34:106] = False
    assert (luma[far] == 120).all()


@pytest.mark.parametrize("size", [(2, 2), (16, 16), (640, 32), (48, 200)])
def test_any_size(size: tuple[int, int]) -> None:
    width, height = size
    planes = [np.zeros((height, width), np.uint8), np.zeros((height // 2, width // 2), np.uint8),
              np.zeros((height // 2, width // 2), np.uint8)]
    draw_arrows(planes, found(field(400, -400), size_px=size, source_size_px=size))
    assert planes[0].max() > 100
