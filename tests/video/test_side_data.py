"""What a frame carries beside its picture."""

from __future__ import annotations

import gc
from pathlib import Path

import av
import numpy as np
import pytest
from av.sidedata.sidedata import Type
from PIL import Image

from edgepkd.video.side_data import side_data
from tests.clips import encode_clip, moving_scene
from tests.video.reading import plain_frames


def test_vectors_are_found_where_a_frame_has_them(tmp_path: Path) -> None:
    frames = list(plain_frames(encode_clip(tmp_path / "clip.avi", moving_scene(3))))
    found = [side_data(frame, Type.MOTION_VECTORS) for frame in frames]
    assert found[0] is None
    assert all(len(bytes(item)) % 40 == 0 and len(bytes(item)) > 0 for item in found[1:])
    assert side_data(frames[1], Type.DISPLAYMATRIX) is None


@pytest.mark.slow
def test_an_item_keeps_its_frame_alive_and_no_longer(tmp_path: Path) -> None:
    frame = list(plain_frames(encode_clip(tmp_path / "clip.avi", moving_scene(3))))[1]
    gc.collect()
    gc.disable()
    try:
        words = np.frombuffer(side_data(frame, Type.MOTION_VECTORS), np.int32)
        expected, frame_id = words.copy(), id(frame)
        del frame
        assert _is_alive(frame_id)
        np.testing.assert_array_equal(words, expected)
        del words
        assert not _is_alive(frame_id)
    finally:
        gc.enable()


def _is_alive(frame_id: int) -> bool:
    """A frame has no weak references; `issubclass` does not look through other objects' proxies."""
    return any(id(o) == frame_id and issubclass(type(o), av.VideoFrame) for o in gc.get_objects())


def test_a_kind_that_pyav_does_not_know_is_an_error(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(tmp_path / "turned.jpg", exif=exif)
    with av.open(str(tmp_path / "turned.jpg")) as container:
        (frame,) = container.decode(video=0)
    with pytest.raises(ValueError, match="not a valid"):
        side_data(frame, Type.DISPLAYMATRIX)
