"""The bar at the bottom of a picture: where it is, what it leaves alone, text of any length."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from edgepkd.runtime.caption import Caption, CaptionBar

SHORT = Caption("wave  90%", "mv 1")
Planes = list[NDArray[np.uint8]]


def planes(width: int, height: int) -> Planes:
    """A grey picture with some colour, 4:2:0."""
    return [np.full((height, width), 128, np.uint8),
            *(np.full((height // 2, width // 2), 160, np.uint8) for _ in range(2))]


def test_the_bar_is_dark_with_bright_text_and_the_rest_is_untouched() -> None:
    luma, *chroma = drawn = planes(320, 240)
    CaptionBar(SHORT, width=320, height=240).draw(drawn)
    changed = np.flatnonzero((luma != 128).any(axis=1))
    assert changed[-1] == 239
    assert 10 < len(changed) < 60
    assert len(changed) == 240 - changed[0]
    bar = luma[changed[0]:]
    assert bar.min() == 48  # a quarter of the grey, and 16
    assert bar.max() > 220
    for plane in chroma:
        assert (plane[: changed[0] // 2] == 160).all()
        assert (plane[-1] == 136).all()


def test_text_stands_at_both_ends() -> None:
    luma = (drawn := planes(640, 240))[0]
    CaptionBar(SHORT, width=640, height=240).draw(drawn)
    bright = np.flatnonzero((luma > 200).any(axis=0))
    assert bright[0] < 40
    assert bright[-1] > 600
    assert not (set(range(250, 500)) & set(bright.tolist()))


@pytest.mark.parametrize("size", [(320, 240), (64, 48), (16, 16), (2, 2)])
def test_a_long_label_on_any_size_is_cut_off_not_an_error(size: tuple[int, int]) -> None:
    width, height = size
    long = Caption("a label that is much longer than the picture is wide " * 3, "iframe 4")
    drawn = planes(width, height)
    CaptionBar(long, width=width, height=height).draw(drawn)
    assert [plane.shape for plane in drawn] == [
        (height, width), (height // 2, width // 2), (height // 2, width // 2)]
    assert (drawn[0] != 128).any()


def test_a_bar_serves_its_own_text_and_size() -> None:
    bar = CaptionBar(SHORT, width=320, height=240)
    assert bar.fits(Caption("wave  90%", "mv 1"), width=320, height=240)
    assert not bar.fits(Caption("wave  91%", "mv 1"), width=320, height=240)
    assert not bar.fits(SHORT, width=320, height=238)
