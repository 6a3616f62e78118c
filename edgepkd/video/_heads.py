"""What kind of picture a packet holds, read from its first bytes without decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from av.packet import Packet

_HEAD_BYTES = 4096
"""Parameter sets and user data come before the picture; they fit in this."""
_PLACEHOLDER_BYTES = 20
"""A not-coded MPEG-4 picture, as packed bitstreams use it to fill a slot, is shorter than this."""
_HEADER_BYTES = 5
_MPEG4_PICTURE = b"\x00\x00\x01\xb6"
_MPEG12_PICTURE = b"\x00\x00\x01\x00"
_START_CODE = b"\x00\x00\x01"


class Kind:
    """What a packet holds, as far as cutting a stream needs to know; ordered by importance.

    Plain numbers: they are compared for every packet.
    """

    NOTHING: Final = -1
    """No picture at all: a filler byte that some AVI writers put where a frame comes late."""
    DROPPED: Final = 0
    """No later frame refers to it; shown before the reference frame that came before it."""
    DROPPED_IN_ORDER: Final = 1
    """No later frame refers to it; shown where it comes."""
    REFERENCE: Final = 2
    OPEN_KEY: Final = 3
    """An anchor, but what was decoded before may still be needed."""
    CLOSED_KEY: Final = 4
    """Decoding can start here, and the frame comes out exact."""


def classifier(
    codec_name: str, extradata: bytes | None, *, has_b_frames: bool
) -> Callable[[Packet[Any]], int]:
    """A function from a packet to its `Kind` for streams of this codec."""
    if codec_name == "mpeg4":
        return _Mpeg4Classifier(may_be_packed=has_b_frames)
    if codec_name in ("mpeg1video", "mpeg2video"):
        return _classify_mpeg12
    if codec_name == "h264":
        data = extradata or b""
        return _H264Classifier((data[4] & 3) + 1 if len(data) > 4 and data[0] == 1 else 0)
    return _classify_by_flag


def _classify_by_flag(packet: Packet[Any]) -> int:
    if not packet.size:
        return Kind.DROPPED_IN_ORDER
    return Kind.CLOSED_KEY if packet.is_keyframe else Kind.REFERENCE


class _Mpeg4Classifier:
    """MPEG-4 part 2, packed bitstreams (two pictures in one packet, a filler after) included."""

    def __init__(self, *, may_be_packed: bool) -> None:
        self._may_be_packed = may_be_packed
        self._is_packed = False

    def __call__(self, packet: Packet[Any]) -> int:
        if not packet.size:
            return Kind.DROPPED_IN_ORDER
        view = memoryview(packet)
        data = bytes(view[:8])
        if not data.startswith(_MPEG4_PICTURE):
            data = bytes(view[:_HEAD_BYTES])
        at = data.find(_MPEG4_PICTURE)
        if at < 0 or at + 4 >= len(data):
            return Kind.NOTHING if packet.size < _HEADER_BYTES else _classify_by_flag(packet)
        picture_type = data[at + 4] >> 6
        if picture_type == 1 and not self._may_be_packed:
            return Kind.REFERENCE
        if picture_type == 2:
            return Kind.DROPPED
        if picture_type == 0:
            return Kind.CLOSED_KEY
        if self._is_packed and packet.size <= _PLACEHOLDER_BYTES:
            return Kind.DROPPED
        if self._may_be_packed and not self._is_packed:
            self._is_packed = _holds_second_picture(bytes(packet), at + 4)
        return Kind.REFERENCE


def _holds_second_picture(data: bytes, start: int) -> bool:
    at = data.find(_MPEG4_PICTURE, start)
    return at >= 0 and at + 4 < len(data) and data[at + 4] >> 6 == 2


def _classify_mpeg12(packet: Packet[Any]) -> int:
    if not packet.size:
        return Kind.DROPPED_IN_ORDER
    data = bytes(memoryview(packet)[:_HEAD_BYTES])
    at = data.find(_MPEG12_PICTURE)
    if at < 0 or at + 5 >= len(data):
        return _classify_by_flag(packet)
    picture_type = (data[at + 5] >> 3) & 7
    return {1: Kind.CLOSED_KEY, 3: Kind.DROPPED}.get(picture_type, Kind.REFERENCE)


class _H264Classifier:
    """H.264 by the header of the first slice unit; `length_size` 0 means Annex B."""

    def __init__(self, length_size: int) -> None:
        self._length_size = length_size

    def __call__(self, packet: Packet[Any]) -> int:
        if not packet.size:
            return Kind.DROPPED_IN_ORDER
        header = self._slice_header(memoryview(packet))
        if header < 0:
            return Kind.OPEN_KEY if packet.is_keyframe else Kind.REFERENCE
        if header & 31 == 5:
            return Kind.CLOSED_KEY
        if packet.is_keyframe:
            return Kind.OPEN_KEY
        return Kind.REFERENCE if header & 0x60 else Kind.DROPPED_IN_ORDER

    def _slice_header(self, data: memoryview) -> int:
        """First byte of the first slice unit, or -1."""
        size = self._length_size
        if not size or bytes(data[:4]) == b"\x00\x00\x00\x01":
            return _annexb_slice_header(bytes(data[:_HEAD_BYTES]))
        at = 0
        while at + size < len(data):
            header = data[at + size]
            if header & 31 in (1, 2, 5):
                return header
            at += size + int.from_bytes(data[at : at + size], "big")
        return -1


def _annexb_slice_header(data: bytes) -> int:
    at = data.find(_START_CODE)
    while 0 <= at < len(data) - 3:
        if data[at + 3] & 31 in (1, 2, 5):
            return data[at + 3]
        at = data.find(_START_CODE, at + 3)
    return -1
