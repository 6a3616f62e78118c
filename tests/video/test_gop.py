"""GOPs: what is decoded when, and where a stream is cut."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepkd.config import DecodeSpec
from edgepkd.errors import ConfigError, DecodeError
from edgepkd.video.decoder import DecodeCounters
from edgepkd.video.gop import GopReader
from tests.clips import encode_clip, moving_scene
from tests.video.reading import gops_of, packets_of, plain_frames, reader_of

X264 = {"bf": "0", "refs": "1"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 frames, MPEG-4, GOP 12."""
    return encode_clip(tmp_path_factory.mktemp("clip") / "clip.avi", moving_scene(30))


@pytest.fixture(scope="module")
def long_gop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames, H.264, one key frame."""
    return encode_clip(tmp_path_factory.mktemp("long") / "clip.mp4", moving_scene(40),
                       codec="libx264", gop=250, quality=20, options=X264)


# -- laziness ---------------------------------------------------------------------------------


def test_reading_decodes_nothing(clip: Path) -> None:
    reader = reader_of(clip)
    gops = list(reader)
    assert [gop.num_frames for gop in gops] == [12, 12, 6]
    assert [gop.index for gop in gops] == [0, 1, 2]
    assert reader.counters == DecodeCounters(packets_read=30)


def test_an_iframe_decodes_one_packet(clip: Path) -> None:
    reader = reader_of(clip)
    gops = list(reader)
    expected = list(plain_frames(clip))
    np.testing.assert_array_equal(gops[1].iframe(), expected[12].to_ndarray(format="rgb24"))
    assert reader.counters.packets_decoded == 1
    assert reader.counters.frames_rgb == 1


def test_motion_makes_no_picture_and_stops_where_asked(clip: Path) -> None:
    reader = reader_of(clip)
    gop = list(reader)[1]
    field = gop.motion(5)
    assert field.dtype == np.int16
    assert field.shape == (*gop.grid_shape, 2)
    assert field.any()
    counters = reader.counters
    assert (counters.packets_decoded, counters.frames_rgb, counters.residuals) == (6, 0, 0)


def test_asking_twice_or_in_any_order_decodes_once(clip: Path) -> None:
    reader = reader_of(clip)
    gop, *_ = reader
    first = gop.motion(9).copy(), gop.residual(4).copy(), gop.motion(2).copy()
    gop.iframe()
    again = gop.motion(9), gop.residual(4), gop.motion(2)
    for one, two in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert reader.counters.packets_decoded == 10
    assert reader.counters.frames_rgb == 2
    assert reader.counters.residuals == 1


def test_gops_in_turns_decode_once(clip: Path) -> None:
    """Motion of all GOPs, then residuals of all, then key frames: no packet goes twice."""
    reader = reader_of(clip)
    gops = list(reader)
    for gop in gops:
        gop.plan([0, 3])
    for gop in gops:
        gop.motion(3)
    for gop in gops:
        gop.residual(3)
    for gop in gops:
        gop.iframe()
    assert reader.counters.packets_decoded == 3 * 4


def test_iframe_first_goes_on_from_there(clip: Path) -> None:
    reader = reader_of(clip)
    gops = list(reader)
    for gop in gops:
        gop.iframe()
    for gop in gops:
        gop.motion(5)
    assert reader.counters.packets_decoded == 3 * 6


def test_unplanned_positions_are_decoded_again_and_right(clip: Path) -> None:
    reader = reader_of(clip)
    gop, *_ = reader
    expected = gops_of(clip)[0].residual(3)
    gop.plan([])
    gop.motion(11)
    np.testing.assert_array_equal(gop.residual(3), expected)
    assert reader.counters.packets_decoded > 12


def test_released_gops_say_so_and_count_what_was_never_decoded(clip: Path) -> None:
    reader = reader_of(clip)
    gop, *_ = reader
    gop.motion(4)
    gop.release()
    gop.release()
    assert reader.counters.packets_skipped == 7
    for ask in (gop.iframe, lambda: gop.motion(0), lambda: gop.motion(4), lambda: gop.residual(0)):
        with pytest.raises(DecodeError, match="released"):
            ask()


def test_positions_outside_are_refused(clip: Path) -> None:
    gop = gops_of(clip)[2]
    with pytest.raises(ConfigError, match=r"0\.\.5"):
        gop.motion(6)
    assert not gop.motion(0).any()
    assert not gop.residual(0).any()


# -- motion only ------------------------------------------------------------------------------


def test_motion_only_is_equal_and_refuses_residuals(clip: Path) -> None:
    for full, lean in zip(gops_of(clip), gops_of(clip, DecodeSpec(pixels=False)), strict=True):
        np.testing.assert_array_equal(full.motion(5), lean.motion(5))
        np.testing.assert_array_equal(full.iframe(), lean.iframe())
        with pytest.raises(ConfigError, match="pixels=False"):
            lean.residual(5)


def test_motion_only_anchors_inside_a_long_gop_are_exact(long_gop: Path) -> None:
    """There, frames without their transform would be anchors, so the frames are finished."""
    frames = list(plain_frames(long_gop))
    gops = gops_of(long_gop, DecodeSpec(pixels=False))
    assert len(gops) == 4
    for gop in gops:
        np.testing.assert_array_equal(
            gop.iframe(), frames[12 * gop.index].to_ndarray(format="rgb24"))


# -- cuts -------------------------------------------------------------------------------------


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
