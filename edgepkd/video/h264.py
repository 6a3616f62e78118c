"""The few fields of an H.264 sequence parameter set (SPS) that decide how a stream is decoded.

Read from `extradata` (avcC of MP4 and Matroska, or Annex B start codes) or from a packet of a raw
stream. Clause numbers are those of ITU-T H.264 (08/2021).
"""

from __future__ import annotations

from dataclasses import dataclass

_HIGH_PROFILES = frozenset({44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244})


@dataclass(frozen=True)
class Crop:
    """Pixels along the sides of the coded picture that are not shown."""

    left: int = 0
    top: int = 0
    right: int = 0
    bottom: int = 0

    @property
    def moves_origin(self) -> bool:
        """True: the picture shown does not begin where the coded one does, as vectors do."""
        return bool(self.left or self.top)


NO_CROP = Crop()


@dataclass(frozen=True)
class Sps:
    """What edgepkd needs of a sequence parameter set (7.3.2.1.1)."""

    profile_idc: int
    chroma_format_idc: int
    """0 grey, 1 4:2:0, 2 4:2:2, 3 4:4:4."""
    bit_depth: int
    """The greater of luma and chroma."""
    num_ref_frames: int
    frame_mbs_only: bool
    """False: the stream may hold interlaced pictures."""
    coded_width_px: int
    coded_height_px: int
    crop: Crop

    @property
    def shown_size_px(self) -> tuple[int, int]:
        """Width and height of what is left of the coded picture."""
        crop = self.crop
        return (self.coded_width_px - crop.left - crop.right,
                self.coded_height_px - crop.top - crop.bottom)


def find_sps(data: bytes) -> Sps | None:
    """Return the SPS with the most reference frames in `data` (avcC or Annex B), None without one.

    A damaged SPS counts as absent.
    """
    return max(find_all_sps(data), key=lambda sps: sps.num_ref_frames, default=None)


def find_all_sps(data: bytes) -> list[Sps]:
    """Return every SPS in `data` (avcC or Annex B); a damaged one counts as absent."""
    return [sps for unit in sps_units(data) if (sps := read_sps(unit)) is not None]


def sps_units(data: bytes) -> list[bytes]:
    """The SPS units in `data` (avcC or Annex B)."""
    units = _avcc_units(data) if data[:1] == b"\x01" else _annexb_units(data)
    return [unit.rstrip(b"\0") for unit in units if unit and unit[0] & 31 == 7]


def read_sps(unit: bytes) -> Sps | None:
    """Parse one SPS unit; None if it is damaged or empty."""
    try:
        return parse_sps(unit)
    except (IndexError, ValueError):
        return None


def parse_sps(unit: bytes) -> Sps:
    """Parse one SPS NAL unit, its header byte included.

    Raises:
        IndexError: the unit ends too early.
        ValueError: a field is out of its range.
    """
    bits = Bits(unit[1:].replace(b"\x00\x00\x03", b"\x00\x00"))
    profile_idc = bits.read(8)
    bits.read(16)
    bits.golomb()
    chroma, depth, separate_planes = 1, 8, 0
    if profile_idc in _HIGH_PROFILES:
        chroma = bits.golomb()
        if chroma == 3:
            separate_planes = bits.read(1)
        depth = 8 + max(bits.golomb(), bits.golomb())
        bits.read(1)
        if bits.read(1):
            _skip_scaling_lists(bits, 12 if chroma == 3 else 8)
    bits.golomb()
    _skip_picture_order(bits)
    num_ref_frames = bits.golomb()
    if chroma > 3 or num_ref_frames > 16:
        raise ValueError(f"chroma_format_idc {chroma}, num_ref_frames {num_ref_frames}")
    bits.read(1)
    width_px, map_units = 16 * (bits.golomb() + 1), bits.golomb() + 1
    frame_mbs_only = bool(bits.read(1))
    height_px = 16 * map_units * (1 if frame_mbs_only else 2)
    bits.read(1 if frame_mbs_only else 2)
    crop = _read_crop(bits, chroma=0 if separate_planes else chroma, frame_mbs_only=frame_mbs_only)
    sps = Sps(profile_idc, chroma, depth, num_ref_frames, frame_mbs_only, width_px, height_px, crop)
    if min(sps.shown_size_px) < 1:
        raise ValueError(f"{crop} leaves nothing of {width_px}x{height_px}")
    return sps


def _read_crop(bits: Bits, *, chroma: int, frame_mbs_only: bool) -> Crop:
    """The cropping rectangle, counted in chroma samples and, where fields may be, in line pairs."""
    if not bits.read(1):
        return NO_CROP
    unit_x = 2 if chroma in (1, 2) else 1
    unit_y = (2 if chroma == 1 else 1) * (1 if frame_mbs_only else 2)
    left, right, top, bottom = (bits.golomb() for _ in range(4))
    return Crop(left * unit_x, top * unit_y, right * unit_x, bottom * unit_y)


def same_pictures(one: bytes, other: bytes, *, is_h264: bool) -> bool:
    """Whether two headers (`Classifier.header`) say the same of the pictures that follow."""
    if not is_h264:
        return one == other
    new = read_sps(other)
    # The decoder keeps to the old one too if the new one is damaged.
    return new is None or new == read_sps(one)


class Bits:
    """Reads big-endian bits and Exp-Golomb codes (9.1)."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, count: int) -> int:
        value = 0
        for _ in range(count):
            value = value << 1 | self._data[self._at >> 3] >> (7 - (self._at & 7)) & 1
            self._at += 1
        return value

    def golomb(self) -> int:
        zeros = 0
        while not self.read(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("Exp-Golomb code longer than 32 bits")
        return (1 << zeros) - 1 + self.read(zeros)

    def signed_golomb(self) -> int:
        code = self.golomb()
        return (code + 1) // 2 if code & 1 else -(code // 2)


def _skip_scaling_lists(bits: Bits, count: int) -> None:
    for index in range(count):
        if not bits.read(1):
            continue
        last = following = 8
        for _ in range(16 if index < 6 else 64):
            if following:
                following = (last + bits.signed_golomb()) % 256
            last = following or last


def _skip_picture_order(bits: Bits) -> None:
    kind = bits.golomb()
    if kind == 0:
        bits.golomb()
    elif kind == 1:
        bits.read(1)
        bits.golomb()
        bits.golomb()
        num_frames = bits.golomb()
        if num_frames > 255:
            raise ValueError(f"num_ref_frames_in_pic_order_cnt_cycle {num_frames}")
        for _ in range(num_frames):
            bits.golomb()


def _avcc_units(data: bytes) -> list[bytes]:
    units, at = [], 6
    for _ in range(data[5] & 31 if len(data) > 6 else 0):
        size = int.from_bytes(data[at:at + 2], "big")
        units.append(data[at + 2:at + 2 + size])
        at += 2 + size
    return units


def _annexb_units(data: bytes) -> list[bytes]:
    return data.split(b"\x00\x00\x01")[1:]
