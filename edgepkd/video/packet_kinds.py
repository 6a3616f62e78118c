"""What kind of picture a packet holds, read from its first bytes without decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from edgepkd.video.h264 import Bits, sps_units

if TYPE_CHECKING:
    from av.packet import Packet

_HEAD_BYTES = 4096
"""Parameter sets and user data come before the picture; they fit in this."""
_PLACEHOLDER_BYTES = 20
"""A not-coded MPEG-4 picture, as packed bitstreams use it to fill a slot, is shorter than this."""
_HEADER_BYTES = 5
_MPEG4_PICTURE = b"\x00\x00\x01\xb6"
_MPEG12_PICTURE = b"\x00\x00\x01\x00"
_MPEG12_SEQUENCE = b"\x00\x00\x01\xb3"
_SLICE_HEAD_BYTES = 10
_START_CODE = b"\x00\x00\x01"


class Kind:
    """What a packet holds, as far as cutting a stream needs to know; ordered by importance.

    Plain numbers: they are compared for every packet.
    """

    H264_B: Final = -2
    """An H.264 B-frame: which frames its vectors point to is not exported."""
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


class Classifier(Protocol):
    """From a packet to its `Kind`."""

    header: bytes
    """What the stream last said of all its pictures, where it says so within the packets: an H.264
    parameter set, an MPEG-1/2 sequence header, an MPEG-4 object layer; empty until then."""

    def __call__(self, packet: Packet[Any]) -> int: ...


def classifier(codec_name: str, extradata: bytes | None, *, has_b_frames: bool) -> Classifier:
    """The classifier for streams of this codec."""
    if codec_name == "mpeg4":
        return _Mpeg4Classifier(may_be_packed=has_b_frames)
    if codec_name in ("mpeg1video", "mpeg2video"):
        return _Mpeg12Classifier()
    if codec_name == "h264":
        data = extradata or b""
        return _H264Classifier((data[4] & 3) + 1 if len(data) > 4 and data[0] == 1 else 0)
    return _FlagClassifier()


def known_header(codec_name: str, extradata: bytes) -> bytes:
    """The `Classifier.header` that a container gives before the first packet; empty: none."""
    if codec_name == "h264":
        return next(reversed(sps_units(extradata)), b"")
    if codec_name == "mpeg4":
        return _mpeg4_layer(extradata)
    return b""


class _FlagClassifier:
    """Codecs whose packets the container tells apart well enough."""

    header = b""

    def __call__(self, packet: Packet[Any]) -> int:
        return _classify_by_flag(packet)


def _classify_by_flag(packet: Packet[Any]) -> int:
    if not packet.size:
        return Kind.DROPPED_IN_ORDER
    return Kind.CLOSED_KEY if packet.is_keyframe else Kind.REFERENCE


class _Mpeg4Classifier:
    """MPEG-4 part 2, packed bitstreams (two pictures in one packet, a filler after) included."""

    def __init__(self, *, may_be_packed: bool) -> None:
        self.header = b""
        self._may_be_packed = may_be_packed
        self._is_packed = False

    def __call__(self, packet: Packet[Any]) -> int:
        if not packet.size:
            return Kind.DROPPED_IN_ORDER
        view = memoryview(packet)
        data = bytes(view[:8])
        if not data.startswith(_MPEG4_PICTURE):
            data = bytes(view[:_HEAD_BYTES])
            self.header = _mpeg4_layer(data) or self.header
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


def _mpeg4_layer(data: bytes) -> bytes:
    """Width and height of the video object layer in `data`, as bytes; empty without one.

    The rest of it (rates, buffer sizes) differs between key frames of one stream.
    """
    at = data.find(_START_CODE)
    while 0 <= at < len(data) - 3:
        if 0x20 <= data[at + 3] <= 0x2F:
            try:
                return _mpeg4_size(Bits(data[at + 4 :]))
            except IndexError:
                return b""
        at = data.find(_START_CODE, at + 3)
    return b""


def _mpeg4_size(bits: Bits) -> bytes:
    """ISO/IEC 14496-2, 6.2.3, up to the size of a rectangular layer."""
    bits.read(9)
    if bits.read(1):  # is_object_layer_identifier
        bits.read(7)
    if bits.read(4) == 15:  # aspect_ratio_info: extended
        bits.read(16)
    if bits.read(1):  # vol_control_parameters
        bits.read(3)
        if bits.read(1):  # vbv_parameters
            bits.read(79)
    if bits.read(2):  # not rectangular
        return b""
    bits.read(1)
    resolution = bits.read(16)
    bits.read(1)
    if bits.read(1):  # fixed_vop_rate
        bits.read(max(1, (resolution - 1).bit_length()))
    bits.read(1)
    width = bits.read(13)
    bits.read(1)
    return width.to_bytes(2, "big") + bits.read(13).to_bytes(2, "big")


class _Mpeg12Classifier:
    """MPEG-1 and MPEG-2 by the picture header."""

    header = b""

    def __call__(self, packet: Packet[Any]) -> int:
        if not packet.size:
            return Kind.DROPPED_IN_ORDER
        data = bytes(memoryview(packet)[:_HEAD_BYTES])
        sequence = data.find(_MPEG12_SEQUENCE)
        if sequence >= 0:
            # Width and height; what follows (rate, buffer sizes) may change at any time.
            self.header = data[sequence + 4 : sequence + 7]
        at = data.find(_MPEG12_PICTURE)
        if at < 0 or at + 5 >= len(data):
            return _classify_by_flag(packet)
        picture_type = (data[at + 5] >> 3) & 7
        return {1: Kind.CLOSED_KEY, 3: Kind.DROPPED}.get(picture_type, Kind.REFERENCE)


class _H264Classifier:
    """H.264 by the head of the first slice unit; `length_size` 0 means Annex B."""

    def __init__(self, length_size: int) -> None:
        self.header = b""
        self._length_size = length_size

    def __call__(self, packet: Packet[Any]) -> int:
        if not packet.size:
            return Kind.DROPPED_IN_ORDER
        head = self._slice_head(memoryview(packet))
        if not head:
            return Kind.OPEN_KEY if packet.is_keyframe else Kind.REFERENCE
        if head[0] & 31 == 5:
            return Kind.CLOSED_KEY
        if _is_b_slice(head):
            return Kind.H264_B
        if packet.is_keyframe:
            return Kind.OPEN_KEY
        return Kind.REFERENCE if head[0] & 0x60 else Kind.DROPPED_IN_ORDER

    def _slice_head(self, data: memoryview) -> bytes:
        """First bytes of the first slice unit; notes parameter sets that come before it."""
        size = self._length_size
        if not size or bytes(data[:4]) == b"\x00\x00\x00\x01":
            return self._annexb_slice_head(bytes(data[:_HEAD_BYTES]))
        at = 0
        while at + size < len(data):
            start = at + size
            end = start + int.from_bytes(data[at:start], "big")
            if data[start] & 31 in (1, 2, 5):
                return bytes(data[start : start + _SLICE_HEAD_BYTES])
            if data[start] & 31 == 7:
                self.header = bytes(data[start:end])
            at = end
        return b""

    def _annexb_slice_head(self, data: bytes) -> bytes:
        at = data.find(_START_CODE)
        while 0 <= at < len(data) - 3:
            kind = data[at + 3] & 31
            if kind in (1, 2, 5):
                return data[at + 3 : at + 3 + _SLICE_HEAD_BYTES]
            end = data.find(_START_CODE, at + 3)
            if kind == 7:
                self.header = data[at + 3 : end if end >= 0 else None].rstrip(b"\0")
            at = end
        return b""


def _is_b_slice(head: bytes) -> bool:
    """Whether a slice unit is of type B (7.3.3: first_mb_in_slice, then slice_type)."""
    if len(head) > 1 and head[1] & 0x80:  # a picture's first slice: first_mb_in_slice is 0
        return head[1] & 0xF0 == 0xA0 or head[1] & 0xFC == 0x9C
    try:
        bits = Bits(head[1:])
        bits.golomb()
        return bits.golomb() in (1, 6)
    except (IndexError, ValueError):
        return False
