"""GOPs: what is decoded when, and what they give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgepkd.config import DecodeSpec
from edgepkd.errors import ConfigError, DecodeError
from edgepkd.video.decoder import DecodeCounters
from tests.clips import encode_clip, moving_scene
from tests.video.reading import gops_of, plain_frames, reader_of

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
