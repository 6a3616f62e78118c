"""Decoder settings, refusals, counters and pictures."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from edgepkd.config import DecodeSpec
from edgepkd.errors import ConfigError, DecodeError
from edgepkd.video.decoder import (
    CodecParams,
    DecodeCounters,
    PacketDecoder,
    PictureMaker,
    check_frame,
    check_native,
)
from edgepkd.video.gop_reader import GopReader
from tests.clips import encode_clip, moving_scene
from tests.video.reading import gops_of, motion_vectors, packets_of, plain_frames, reader_of

PARAMS = CodecParams("mpeg4", None, 64, 48, Fraction(1, 25))


def test_counters_copy_and_subtract() -> None:
    counters = DecodeCounters(packets_read=3, decode_s=1.5)
    before = counters.copy()
    counters.packets_read += 4
    counters.residuals += 1
    assert counters - before == DecodeCounters(packets_read=4, residuals=1)


@pytest.mark.parametrize(("codec", "suffix"), [("mpeg4", "avi"), ("mpeg4", "mp4"),
                                               ("mpeg2video", "mpg"), ("mpeg1video", "mpg")])
def test_b_frames_are_dropped_and_the_rest_is_exact_without_delay(
    tmp_path: Path, codec: str, suffix: str
) -> None:
    path = encode_clip(tmp_path / f"clip.{suffix}", moving_scene(22), codec=codec, max_b_frames=2)
    params, packets = packets_of(path)
    assert params.has_b_frames
    decoder = PacketDecoder(params)
    got = []
    for number, packet in enumerate(packets):
        packet.pts = packet.dts = number
        frames = decoder.decode(packet)
        assert [frame.pts for frame in frames] in ([], [number])
        got += frames
    expected = list(plain_frames(path, nonref=True))
    assert 5 < len(got) == len(expected) < 22
    assert 3 not in {frame.pict_type for frame in got}
    for one, two in zip(got, expected, strict=True):
        np.testing.assert_array_equal(one.to_ndarray(), two.to_ndarray())


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])
def test_motion_only_gives_the_same_vectors_and_key_frames(tmp_path: Path, codec: str) -> None:
    options = {"bf": "0", "refs": "1"} if codec == "libx264" else {}
    path = encode_clip(tmp_path / "clip.mkv", moving_scene(12), codec=codec, gop=6,
                       options=options, quality=4 if codec == "mpeg4" else 26)
    params, packets = packets_of(path)
    decoder = PacketDecoder(params, motion_only=True)
    changed = 0
    for packet, full in zip(packets, plain_frames(path), strict=True):
        (frame,) = decoder.decode(packet)
        a, b = motion_vectors(frame), motion_vectors(full)
        for name in ("dst_x", "dst_y", "motion_x", "motion_y", "w", "h"):
            np.testing.assert_array_equal(a[name], b[name])
        same = np.array_equal(frame.to_ndarray(), full.to_ndarray())
        assert same or not full.key_frame
        changed += not same
    assert changed > 0


@pytest.mark.parametrize("codec", ["hevc", "vp9", "av1", "mjpeg"])
def test_codecs_without_vectors_are_refused(codec: str) -> None:
    with pytest.raises(ConfigError, match=codec) as caught:
        check_native(replace(PARAMS, codec_name=codec))
    assert "normalize" in str(caught.value)


def test_h264_with_b_frames_is_refused(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "clip.mp4", moving_scene(20), codec="libx264", max_b_frames=2,
                       quality=23, options={"b-adapt": "0"})
    with pytest.raises(ConfigError, match="B-frames"):
        gops_of(path)
    # Said to have none, but has: reading stops where they begin.
    reader = reader_of(path, has_b_frames=False)
    assert list(reader) == []
    assert reader.turn is not None
    assert reader.turn.why == "b_frames"
    # And should a packet hide what it holds, the decoded frame shows it.
    frame = next(frame for frame in plain_frames(path) if frame.pict_type == 3)
    with pytest.raises(DecodeError, match="B-frame"):
        check_frame(frame, replace(PARAMS, codec_name="h264"))


@pytest.mark.parametrize("pix_fmt", ["yuv422p", "yuv444p", "yuv420p10le"])
def test_other_pixel_formats_are_refused(tmp_path: Path, pix_fmt: str) -> None:
    path = encode_clip(tmp_path / "clip.mp4", moving_scene(4), codec="libx264", pix_fmt=pix_fmt,
                       quality=23, options={"bf": "0"})
    (gop,) = gops_of(path)
    with pytest.raises(DecodeError, match=pix_fmt):
        gop.iframe()


def test_interlaced_frames_are_refused(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "clip.mp4", moving_scene(4), codec="libx264", quality=23,
                       options={"bf": "0", "x264-params": "interlaced=1"})
    (gop,) = gops_of(path)
    with pytest.raises(DecodeError, match="interlaced"):
        gop.motion(2)


def test_a_stream_of_rubbish_is_given_up(tmp_path: Path) -> None:
    """A raw stream whose headers are gone: it opens, its size is unknown, no packet decodes."""
    path = encode_clip(tmp_path / "clip.avi", moving_scene(400, (32, 32)))
    params, rubbish = packets_of(path)
    for packet in rubbish:
        packet.update(bytes(packet.size))
    counters = DecodeCounters()
    params = replace(params, extradata=None, width_px=0, height_px=0)

    def read() -> None:
        for gop in GopReader(rubbish, params=params, spec=DecodeSpec(), counters=counters):
            gop.motion(gop.num_frames - 1)

    with pytest.raises(DecodeError, match="in a row"):
        read()
    assert 100 < counters.errors <= 200


@pytest.mark.smoke
def test_rgb_equals_pyavs_own_and_resizing_keeps_the_format(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "clip.avi", moving_scene(2, (98, 66)))
    frame = next(plain_frames(path))
    pictures = PictureMaker()
    rgb = pictures.rgb(frame)
    np.testing.assert_array_equal(rgb, frame.to_ndarray(format="rgb24"))
    assert rgb.flags.c_contiguous
    small = pictures.resized(frame, width_px=49, height_px=33)
    assert (small.width, small.height, small.format.name) == (49, 33, "yuv420p")
