"""What packets hold, read without decoding, and the display order that follows."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest

from edgepkd.config import DecodeSpec
from edgepkd.video.decode_runs import StreamDecoder
from edgepkd.video.decoder import CodecParams, DecodeCounters
from edgepkd.video.display_order import Intake, Picture, shown_pictures
from edgepkd.video.packet_kinds import Kind, classifier
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


def test_a_filler_byte_is_no_picture(shared_data: Path) -> None:
    """DivX writes one byte, marked as key frame, where the first frame comes late."""
    path = shared_data / "clips" / "hmdb51_cartwheel.avi"
    params, packets = packets_of(path)
    classify = classifier(params.codec_name, params.extradata, has_b_frames=True)
    assert packets[1].is_keyframe
    assert classify(packets[1]) == Kind.NOTHING


@pytest.mark.parametrize(("head", "is_b"), [
    (b"\x01\xa8", True), (b"\x41\x9e", True), (b"\x41\x9a", False), (b"\x41\xe0", False),
    (b"\x61\x88", False), (b"\x01\x2a\x80", True), (b"\x01\x2b\x80", False), (b"\x41", False),
])
def test_slice_types_are_read_from_slice_heads(head: bytes, is_b: bool) -> None:
    """first_mb_in_slice as ue(v), then slice_type: B is 1 ('010') or 6 ('00111')."""
    classify = classifier("h264", None, has_b_frames=False)
    kind = classify(_packet(b"\x00\x00\x00\x01" + head + bytes(20)))
    assert (kind == Kind.H264_B) is is_b


def test_every_b_frame_of_h264_is_seen_in_its_packet(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "clip.mkv", moving_scene(30), codec="libx264", gop=15,
                       max_b_frames=3, options={"bf": "3", "b-adapt": "0", "b-pyramid": "normal"})
    params, packets = packets_of(path)
    classify = classifier("h264", params.extradata, has_b_frames=True)
    found = sum(classify(packet) == Kind.H264_B for packet in packets)
    assert found == sum(frame.pict_type == B_FRAME for frame in plain_frames(path)) > 10


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
