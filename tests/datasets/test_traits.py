"""Traits of files: what is read of them, and of the columns of an index."""

from __future__ import annotations

from pathlib import Path

from edgepkd.datasets.traits import COLUMNS, as_row, probed_traits, row_of_index
from tests.clips import encode_clip, moving_scene


def test_a_file_tells_its_size_codec_and_length(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "x.avi", moving_scene(9, seed=1))
    traits = probed_traits(path)
    assert traits is not None
    told = dict(zip(COLUMNS, as_row(traits), strict=True))
    height, width = moving_scene(9, seed=1)[0].shape[:2]
    assert (told["width"], told["height"], told["codec"]) == (width, height, "mpeg4")
    assert (told["frames"], told["bytes"]) == (9, path.stat().st_size)
    assert told["bytes_per_frame"] == round(path.stat().st_size / 9, 1)
    assert (told["b_frames"], told["audio"]) == (0, 0)
    assert traits.fps > 0


def test_what_cannot_be_read_has_none(tmp_path: Path) -> None:
    (tmp_path / "x.avi").write_bytes(b"\0" * 900)
    assert probed_traits(tmp_path / "x.avi") is None
    assert probed_traits(tmp_path / "absent.avi") is None


def test_columns_of_an_index_are_traits_where_they_are_numbers() -> None:
    row = {"path": "x", "width": "640", "fps": "29.97", "codec": "h264", "frames": "50",
           "bytes": "5000", "b_frames": "", "label": "run"}
    assert row_of_index(row) == {"width": 640.0, "fps": 29.97, "codec": "h264", "frames": 50.0,
                                 "bytes": 5000.0, "bytes_per_frame": 100.0}
    assert row_of_index({"path": "x", "label": "run"}) == {}
