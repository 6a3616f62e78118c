"""The route that a stream takes, and the reason that is told."""

from __future__ import annotations

import dataclasses

import pytest

from edgepkd.video.routes import choose_route
from tests.video.reading import look


@pytest.mark.smoke
def test_training_form_is_native(tmp_path) -> None:
    info = look(tmp_path)
    assert (info.codec, info.pix_fmt, info.width_px, info.height_px) == (
        "mpeg4", "yuv420p", 96, 64)
    assert (info.gop_min, info.gop_max, info.num_keyframes_seen) == (12, 12, 4)
    assert (info.fps, info.num_packets_seen, info.seen_all) == (25.0, 40, True)
    assert info.exports_vectors
    assert not any((info.has_b_frames, info.interlaced, info.variable_fps, info.is_live))
    assert info.num_ref_frames is None
    assert choose_route(info).route == "native"


@pytest.mark.parametrize(("codec", "name", "kw"), [
    ("mpeg1video", "c.mpg", {}), ("mpeg2video", "c.mpg", {}), ("msmpeg4", "c.avi", {}),
    ("flv", "c.flv", {}), ("wmv2", "c.avi", {}), ("msmpeg4v2", "c.avi", {}),
])
def test_old_codecs_are_native(tmp_path, codec: str, name: str, kw) -> None:
    info = look(tmp_path, name, codec=codec, **kw)
    assert info.exports_vectors
    assert choose_route(info).route == "native"


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video"])
def test_b_frames_that_are_no_references_stay_native(tmp_path, codec: str) -> None:
    info = look(tmp_path, "c.mkv", codec=codec, max_b_frames=2)
    assert info.has_b_frames
    choice = choose_route(info)
    assert choice.route == "native"
    assert "B-frames" in choice.reason


@pytest.mark.slow
@pytest.mark.parametrize(("params", "b_frames", "refs", "route"), [
    ("ref=1:bframes=0", False, 1, "native"), ("ref=4:bframes=0", False, 4, "native"),
    ("ref=2:bframes=2:b-adapt=0", True, None, "normalize"),
    ("ref=4:bframes=3:b-adapt=0:b-pyramid=normal", True, None, "normalize"),
    ("ref=1:bframes=0:intra-refresh=1", False, None, "native"),
    ("ref=1:bframes=2:b-adapt=0:open-gop=1", True, None, "normalize"),
    ("ref=1:bframes=0:interlaced=1", False, None, "normalize"),
])
@pytest.mark.parametrize("suffix", ["mp4", "264", "avi"])
def test_h264_goes_native_only_without_b_frames(
    tmp_path, suffix: str, params: str, b_frames: bool, refs: int | None, route: str
) -> None:
    info = look(tmp_path, f"c.{suffix}", codec="libx264", options={"x264-params": params})
    assert info.has_b_frames is b_frames
    assert refs is None or info.num_ref_frames == refs
    assert info.interlaced is ("interlaced" in params)
    choice = choose_route(info)
    assert choice.route == route, choice
    assert choice.native_possible is (route == "native")


@pytest.mark.parametrize(("codec", "name", "kw", "reason"), [
    ("mjpeg", "c.avi", {"pix_fmt": "yuvj420p"}, "mjpeg exports no motion vectors"),
    ("libx264", "c.mp4", {"pix_fmt": "yuv444p"}, "yuv444p is not 8-bit 4:2:0"),
    ("libx264", "d.mp4", {"pix_fmt": "yuv420p10le"}, "yuv420p10le is not 8-bit 4:2:0"),
    ("mpeg4", "e.mp4", {"gop": 1}, "every frame is a key frame"),
    ("mpeg4", "f.mp4", {"gop": 3}, "key frames come every 3 frames"),
])
def test_the_rest_is_normalized_with_the_reason(
    tmp_path, codec: str, name: str, kw, reason: str
) -> None:
    choice = choose_route(look(tmp_path, name, codec=codec, **kw))
    assert choice.route == "normalize"
    assert reason in choice.reason


def test_a_stream_shorter_than_a_short_gop_is_not_called_intra(tmp_path) -> None:
    for count in (1, 2):
        assert choose_route(look(tmp_path, num_frames=count)).route == "native"


def test_rotation_that_is_no_quarter_turn_is_not_native(tmp_path) -> None:
    info = dataclasses.replace(look(tmp_path), rotation_deg=45)
    assert not choose_route(info).native_possible
