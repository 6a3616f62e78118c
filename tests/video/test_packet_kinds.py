"""What packets hold, read from their first bytes without decoding."""

from __future__ import annotations

from pathlib import Path

import av
import pytest

from edgepkd.video.packet_kinds import Kind, classifier
from tests.clips import encode_clip, moving_scene
from tests.video.reading import packets_of, plain_frames

I_FRAME, P_FRAME, B_FRAME = 1, 2, 3


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
    kind = classify(av.Packet(b"\x00\x00\x00\x01" + head + bytes(20)))
    assert (kind == Kind.H264_B) is is_b


def test_every_b_frame_of_h264_is_seen_in_its_packet(tmp_path: Path) -> None:
    path = encode_clip(tmp_path / "clip.mkv", moving_scene(30), codec="libx264", gop=15,
                       max_b_frames=3, options={"bf": "3", "b-adapt": "0", "b-pyramid": "normal"})
    params, packets = packets_of(path)
    classify = classifier("h264", params.extradata, has_b_frames=True)
    found = sum(classify(packet) == Kind.H264_B for packet in packets)
    assert found == sum(frame.pict_type == B_FRAME for frame in plain_frames(path)) > 10
