"""What packets hold, read without decoding, and the display order and times that follow."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import pytest

from edgepkd.config import DecodeSpec
from edgepkd.video._heads import Kind, classifier
from edgepkd.video._order import Clock, Picture, shown_pictures
from edgepkd.video._runs import Engine
from edgepkd.video.decoder import CodecParams, DecodeCounters
from tests.clips import encode_clip, moving_scene
from tests.video.reading import packets_of, plain_frames

I_FRAME, P_FRAME, B_FRAME = 1, 2, 3
PARAMS = CodecParams("mpeg4", None, 64, 48, Fraction(1, 25), has_b_frames=True)


@pytest.mark.parametrize(("codec", "suffix"), [("mpeg4", "mkv"), ("mpeg2video", "mpg"),
                                               ("mpeg1video", "mpg")])
def test_kinds_are_those_that_the_decoder_finds(tmp_path: Path, codec: str, suffix: str) -> None:
    path = encode_clip(tmp_path / f"clip.{suffix}", moving_scene(20), codec=codec, max_b_frames=2)
    params, packets = packets_of(path)
    classify = classifier(params.codec_name, params.extradata, has_b_frames=True)
    kinds = sorted(classify(packet) for packet in packets)
    types = {I_FRAME: Kind.CLOSED_KEY, P_FRAME: Kind.REFERENCE, B_FRAME: Kind.DROPPED}
    assert kinds == sorted(types[frame.pict_type] for frame in plain_frames(path))
    assert set(kinds) == set(types.values())


@pytest.mark.parametrize("suffix", ["mp4", "264"])
def test_h264_idr_frames_are_closed_keys(tmp_path: Path, suffix: str) -> None:
    path = encode_clip(tmp_path / f"clip.{suffix}", moving_scene(9), codec="libx264", gop=4,
                       quality=23, options={"bf": "0"},
                       container_format="h264" if suffix == "264" else None)
    params, packets = packets_of(path)
    classify = classifier(params.codec_name, params.extradata, has_b_frames=False)
    expected = [Kind.CLOSED_KEY if n % 4 == 0 else Kind.REFERENCE for n in range(9)]
    assert [classify(packet) for packet in packets] == expected


def _packet(data: bytes, *, is_keyframe: bool = False) -> av.Packet:
    packet = av.Packet(data)
    packet.is_keyframe = is_keyframe
    return packet


def _pictures(packets: list[av.Packet]) -> list[Picture]:
    engine = Engine(PARAMS, spec=DecodeSpec(), counters=DecodeCounters())
    return list(shown_pictures(packets, params=PARAMS, engine=engine))


def _vop(kind: int, size: int = 64) -> bytes:
    return b"\x00\x00\x01\xb6" + bytes([kind << 6]) + bytes(size - 5)


def test_packed_bitstreams_with_fillers() -> None:
    packed = _vop(1) + _vop(2)
    packets = [_packet(_vop(0), is_keyframe=True), _packet(b"\x7f", is_keyframe=True),
               _packet(packed), _packet(_vop(1, 8)), _packet(packed), _packet(_vop(1, 8))]
    shown = [(p.number, p.kind) for p in _pictures(packets)]
    assert shown == [(0, Kind.CLOSED_KEY), (3, Kind.DROPPED), (2, Kind.REFERENCE),
                     (5, Kind.DROPPED), (4, Kind.REFERENCE)]


def test_a_filler_byte_is_no_picture(shared_data: Path) -> None:
    """DivX writes one byte, marked as key frame, where the first frame comes late."""
    path = shared_data / "clips" / "hmdb51_cartwheel.avi"
    params, packets = packets_of(path)
    classify = classifier(params.codec_name, params.extradata, has_b_frames=True)
    assert packets[1].is_keyframe
    assert classify(packets[1]) == Kind.NOTHING


def _stamped(*stamps: int | None) -> list[Picture]:
    return [Picture(n, Kind.REFERENCE, pts, None, None)  # type: ignore[arg-type]
            for n, pts in enumerate(stamps)]


def test_times_are_sorted_and_never_step_back() -> None:
    clock = Clock(PARAMS)
    assert clock.times_s(_stamped(0, 3, 1)) == pytest.approx((0.0, 0.04, 0.12))
    assert clock.times_s(_stamped(2, 4)) == pytest.approx((0.12, 0.16))


def test_a_real_jump_in_time_stays() -> None:
    clock = Clock(PARAMS)
    clock.times_s(_stamped(1000, 1001))
    assert clock.times_s(_stamped(0, 1)) == pytest.approx((0.0, 0.04))


def test_times_by_count_use_the_frame_rate() -> None:
    clock = Clock(replace(PARAMS, fps=Fraction(50)))
    assert clock.times_s(_stamped(None, None)) == pytest.approx((0.0, 0.02))
    assert clock.times_s(_stamped(None)) == pytest.approx((0.04,))
