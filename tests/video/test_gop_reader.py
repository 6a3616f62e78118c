"""Where a stream is cut into GOPs, and the times their frames get."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from edgepkd.video.decoder import CodecParams
from edgepkd.video.gop_reader import GopReader
from tests.clips import encode_clip, moving_scene
from tests.video.reading import gops_of, packets_of, plain_frames, reader_of

X264 = {"bf": "0", "refs": "1"}


@pytest.fixture(scope="module")
def long_gop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames, H.264, one key frame."""
    return encode_clip(tmp_path_factory.mktemp("long") / "clip.mp4", moving_scene(40),
                       codec="libx264", gop=250, quality=20, options=X264)


def test_no_packets() -> None:
    params = CodecParams("mpeg4", None, 64, 48, Fraction(1, 25))
    assert list(GopReader([], params=params)) == []


def test_every_frame_intra(tmp_path: Path) -> None:
    gops = gops_of(encode_clip(tmp_path / "clip.avi", moving_scene(5), gop=1))
    assert [gop.num_frames for gop in gops] == [1] * 5


def test_long_gops_get_virtual_anchors(long_gop: Path) -> None:
    reader = reader_of(long_gop)
    gops = list(reader)
    assert [gop.num_frames for gop in gops] == [12, 12, 12, 4]
    frames = [f.to_ndarray(format="rgb24") for f in plain_frames(long_gop)]
    for gop in gops:
        gop.plan([0, 3])
    for gop in gops:
        gop.motion(gop.num_frames - 1)
    for gop in gops:
        np.testing.assert_array_equal(gop.iframe(), frames[12 * gop.index])
        gop.residual(3)
    assert reader.counters.packets_decoded == 40
    # Motion is counted from the virtual anchor: 3 px and 2 px a frame for the square.
    moved = gops[1].motion(2).reshape(-1, 2)
    assert {(0, 0), (24, 16)} <= {tuple(v) for v in moved.tolist()}


def test_later_part_of_a_long_gop_alone(long_gop: Path) -> None:
    reader = reader_of(long_gop)
    gop = list(reader)[2]
    frames = [f.to_ndarray(format="rgb24") for f in plain_frames(long_gop)]
    np.testing.assert_array_equal(gop.iframe(), frames[24])
    assert reader.counters.packets_decoded == 25


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_no_key_frame_at_the_start(tmp_path: Path, codec: str) -> None:
    options = X264 if codec == "libx264" else {}
    path = encode_clip(tmp_path / "clip.mkv", moving_scene(30), codec=codec,
                       quality=20 if codec == "libx264" else 3, options=options)
    params, packets = packets_of(path)
    reader = GopReader(packets[5:], params=params)
    gops = list(reader)
    assert [gop.num_frames for gop in gops] == [12, 6]
    assert reader.counters.packets_skipped == 7
    frames = list(plain_frames(path))
    np.testing.assert_array_equal(gops[0].iframe(), frames[12].to_ndarray(format="rgb24"))


def test_intra_refresh_starts_at_its_first_frame(tmp_path: Path) -> None:
    """x264's intra refresh marks P-frames as recovery points: anchors, but no place to start."""
    path = encode_clip(tmp_path / "clip.mp4", moving_scene(36), codec="libx264", gop=10,
                       quality=20, options={**X264, "x264-params": "intra-refresh=1"})
    frames = [f.to_ndarray(format="rgb24") for f in plain_frames(path)]
    gops = gops_of(path)
    assert len(gops) > 1
    start = 0
    for gop in gops:
        np.testing.assert_array_equal(gop.iframe(), frames[start])
        start += gop.num_frames
    assert start == 36


@pytest.mark.parametrize("codec", ["mpeg4", "mpeg2video"])
def test_b_frames_hold_their_place_in_time(tmp_path: Path, codec: str) -> None:
    path = encode_clip(tmp_path / "clip.mkv", moving_scene(28), codec=codec, max_b_frames=2)
    gops = gops_of(path)
    assert sum(gop.num_frames for gop in gops) == 28
    times = [time for gop in gops for time in gop.times_s]
    assert times == sorted(times)
    np.testing.assert_allclose(times, np.arange(28) / 25, atol=0.002)
    gop = gops[0]
    kept = gop._kept
    assert kept[:3] == [0, 3, 6]
    np.testing.assert_array_equal(gop.motion(2), gop.motion(3))
    np.testing.assert_array_equal(gop.motion(4), gop.motion(3))
    moved = {tuple(v) for v in gop.motion(3).reshape(-1, 2).tolist()}
    assert (36, 24) in moved  # three frames of 3 px and 2 px


def test_times_follow_uneven_timestamps(tmp_path: Path) -> None:
    stamps = [0, 1, 2, 5, 6, 10, 11, 12]
    path = encode_clip(tmp_path / "clip.mkv", moving_scene(8), pts=stamps)
    (gop,) = gops_of(path)
    np.testing.assert_allclose(gop.times_s, np.array(stamps) / 25, atol=0.002)


def test_times_without_timestamps(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "clip.avi", moving_scene(20))
    params, packets = packets_of(path)
    for packet in packets:
        packet.pts = packet.dts = None
    gops = list(GopReader(packets, params=params))
    times = [time for gop in gops for time in gop.times_s]
    np.testing.assert_allclose(times, np.arange(20) / 25)
