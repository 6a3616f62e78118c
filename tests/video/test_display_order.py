"""The order in which pictures are shown, and where a stream becomes another."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from edgepkd.config import DecodeSpec
from edgepkd.video.decode_runs import StreamDecoder
from edgepkd.video.decoder import CodecParams, DecodeCounters
from edgepkd.video.display_order import Intake, Picture, shown_pictures
from edgepkd.video.packet_kinds import Kind
from tests.clips import encode_clip, moving_scene
from tests.video.reading import packets_of

PARAMS = CodecParams("mpeg4", None, 64, 48, Fraction(1, 25), has_b_frames=True)


def _packet(data: bytes, *, is_keyframe: bool = False) -> av.Packet:
    packet = av.Packet(data)
    packet.is_keyframe = is_keyframe
    return packet


def _pictures(packets: list[av.Packet]) -> list[Picture]:
    stream = StreamDecoder(PARAMS, spec=DecodeSpec(), counters=DecodeCounters())
    return list(shown_pictures(Intake(packets, params=PARAMS, stream=stream)))


def _vop(kind: int, size: int = 64) -> bytes:
    return b"\x00\x00\x01\xb6" + bytes([kind << 6]) + bytes(size - 5)


def test_packed_bitstreams_with_fillers() -> None:
    packed = _vop(1) + _vop(2)
    packets = [_packet(_vop(0), is_keyframe=True), _packet(b"\x7f", is_keyframe=True),
               _packet(packed), _packet(_vop(1, 8)), _packet(packed), _packet(_vop(1, 8))]
    shown = [(p.number, p.kind) for p in _pictures(packets)]
    assert shown == [(0, Kind.CLOSED_KEY), (3, Kind.DROPPED), (2, Kind.REFERENCE),
                     (5, Kind.DROPPED), (4, Kind.REFERENCE)]


@pytest.mark.parametrize(("codec", "form"), [
    ("libx264", "h264"), ("mpeg4", "m4v"), ("mpeg2video", "mpeg2video"),
    ("mpeg1video", "mpeg1video"),
])
def test_pictures_of_another_size_are_a_turn(tmp_path: Path, codec: str, form: str) -> None:
    parts = [encode_clip(tmp_path / f"{width}.raw", moving_scene(10, (width, 64)), codec=codec,
                         gop=5, container_format=form).read_bytes() for width in (96, 128)]
    joined = tmp_path / "joined.raw"
    joined.write_bytes(parts[0] + parts[1])
    params, packets = packets_of(joined)
    stream = StreamDecoder(params, spec=DecodeSpec(), counters=DecodeCounters())
    intake = Intake(packets, params=params, stream=stream)
    assert len(list(shown_pictures(intake))) == 10
    assert intake.turn is not None
    assert intake.turn.why == "pictures"
    assert len(list(intake.turn.packets)) == 10
    assert stream.counters.packets_read == 10
