"""Exported vectors: layout, absence, determinism by field, and no leak."""

from __future__ import annotations

import gc
from pathlib import Path

import av
import numpy as np
import pytest

from edgepkd.video.decoder import PacketDecoder
from edgepkd.video.vectors import vector_words
from tests.clips import encode_clip, moving_scene
from tests.video.reading import MV_DTYPE, motion_vectors, packets_of


def _decode(path: Path) -> list[av.VideoFrame]:
    params, packets = packets_of(path)
    decoder = PacketDecoder(params)
    return [frame for packet in packets for frame in decoder.decode(packet)]


def test_layout_is_ffmpegs() -> None:
    assert MV_DTYPE.itemsize == 40
    assert MV_DTYPE.fields is not None
    assert MV_DTYPE.fields["motion_x"][1] == 24


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video", "libx264", "flv", "msmpeg4v2"])
def test_p_frames_have_vectors_and_key_frames_none(tmp_path: Path, codec: str) -> None:
    suffix = {"flv": "flv", "msmpeg4v2": "avi"}.get(codec, "mkv")
    path = encode_clip(tmp_path / f"clip.{suffix}", moving_scene(6), codec=codec,
                       options={"bf": "0"} if codec == "libx264" else {},
                       quality=3 if codec != "libx264" else 23)
    frames = _decode(path)
    assert len(frames) == 6
    assert motion_vectors(frames[0]).size == 0
    for frame in frames[1:]:
        vectors = motion_vectors(frame)
        assert vectors.size > 0
        assert set(np.unique(vectors["source"])) == {-1}
        assert set(np.unique(vectors["w"])) <= {8, 16}
        assert set(np.unique(vectors["motion_scale"])) == {4 if codec == "libx264" else 2}


def test_two_decodes_agree_field_by_field(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "clip.avi", moving_scene(12))
    for one, two in zip(_decode(path), _decode(path), strict=True):
        a, b = motion_vectors(one), motion_vectors(two)
        for name in MV_DTYPE.names or ():
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.slow
def test_reading_vectors_leaves_no_cycle(tmp_path: Path) -> None:
    """`frame.side_data` would keep each frame until the cyclic collector runs."""
    path = encode_clip(tmp_path / "clip.avi", moving_scene(8))
    gc.collect()
    gc.disable()
    try:
        before = {id(o) for o in gc.get_objects()}  # of other tests, held by their failures
        for frame in _decode(path):
            vector_words(frame)
        del frame
        # Not `isinstance`: it looks through numba's weak proxies, whose objects may be gone.
        assert not [o for o in gc.get_objects()
                    if issubclass(type(o), av.VideoFrame) and id(o) not in before]
    finally:
        gc.enable()
