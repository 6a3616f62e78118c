"""Packed pictures are the very pictures, and damage is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepkd.errors import DataError
from edgepkd.training.packed import read_packed, write_packed

PICTURES = np.random.default_rng(0).integers(120, 136, (5, 32, 40, 3)).astype(np.uint8)


def test_each_picture_comes_back_byte_for_byte_and_takes_less_room(tmp_path: Path) -> None:
    path = tmp_path / "residual.bin"
    ends = write_packed(path, PICTURES)
    rows = read_packed(path, shape=PICTURES.shape, ends=ends)
    assert len(rows) == 5
    np.testing.assert_array_equal(rows[3], PICTURES[3])
    np.testing.assert_array_equal(rows, PICTURES)
    assert ends[-1] == path.stat().st_size < 0.6 * PICTURES.nbytes
    with pytest.raises(IndexError):
        rows[5]
    with pytest.raises(IndexError):
        rows[-1]


def test_damage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "residual.bin"
    ends = write_packed(path, PICTURES)
    content = bytearray(path.read_bytes())
    content[ends[1] + 9] ^= 0xFF
    path.write_bytes(content)
    rows = read_packed(path, shape=PICTURES.shape, ends=ends)
    np.testing.assert_array_equal(rows[1], PICTURES[1])
    with pytest.raises(DataError, match=r"residual\.bin is damaged"):
        rows[2]
    with pytest.raises(ValueError, match="bytes of 5 pictures"):
        read_packed(path, shape=PICTURES.shape, ends=(*ends[:-1], ends[-1] + 1))
