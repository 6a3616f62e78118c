"""Writes H.264 sequence parameter sets anew with another crop or size, as a camera, an editor or an
attacker would."""

from __future__ import annotations

import re
from pathlib import Path

_HIGH_PROFILES = (44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244)
_SPS = re.compile(rb"\x00\x00\x01([\x27\x47\x67].*?)(?=\x00\x00\x00\x01|\x00\x00\x01|$)", re.DOTALL)


def with_crop(path: Path, *, left: int, top: int, right: int = 0, bottom: int = 0,
              name: str = "cropped.264") -> Path:
    """A copy of a raw 4:2:0 progressive stream whose parameter sets crop by so many pixels."""
    crop = (left // 2, right // 2, top // 2, bottom // 2)

    def replaced(match: re.Match[bytes]) -> bytes:
        return b"\x00\x00\x01" + cropped_sps(match[1], crop)

    out = path.with_name(name)
    out.write_bytes(_SPS.sub(replaced, path.read_bytes()))
    return out


def cropped_sps(unit: bytes, crop: tuple[int, int, int, int]) -> bytes:
    """An SPS unit with the offsets `crop` (left, right, top, bottom) in crop units."""
    raw = unit[1:].replace(b"\x00\x00\x03", b"\x00\x00")
    bits = "".join(f"{byte:08b}" for byte in raw)
    flag = _crop_flag(bits)
    after = flag + 1
    if bits[flag] == "1":
        for _ in range(4):
            after = _after_golomb(bits, after)
    return unit[:1] + escaped(bits[:flag] + "1" + "".join(map(golomb, crop)) + bits[after:])


def golomb(value: int) -> str:
    code = bin(value + 1)[2:]
    return "0" * (len(code) - 1) + code


def escaped(bits: str) -> bytes:
    """Bits, their stop bit included, as bytes in which nothing looks like a start code."""
    bits = bits.rstrip("0")
    bits += "0" * (-len(bits) % 8)
    out, zeros = bytearray(), 0
    for at in range(0, len(bits), 8):
        byte = int(bits[at : at + 8], 2)
        if zeros >= 2 and byte <= 3:
            out.append(3)
            zeros = 0
        out.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return bytes(out)


def _crop_flag(bits: str) -> int:
    """Where frame_cropping_flag stands."""
    at = _size(bits)
    at = _after_golomb(bits, _after_golomb(bits, at))
    assert bits[at] == "1", "frames only"
    return at + 2


def _size(bits: str) -> int:
    """Where the picture's width stands in what x264 writes: no scaling lists, order 0 or 2."""
    at = _after_golomb(bits, 24)
    if int(bits[:8], 2) in _HIGH_PROFILES:
        for _ in range(3):
            at = _after_golomb(bits, at)
        assert bits[at : at + 2] == "00"
        at += 2
    at = _after_golomb(bits, at)
    order = bits[at : _after_golomb(bits, at)]
    assert order in ("1", "011")
    at = _after_golomb(bits, at)
    if order == "1":
        at = _after_golomb(bits, at)
    return _after_golomb(bits, at) + 1


def _after_golomb(bits: str, at: int) -> int:
    zeros = bits.index("1", at) - at
    return at + 2 * zeros + 1


def with_size(data: bytes, width_px: int, height_px: int) -> bytes:
    """A raw stream of x264 whose parameter sets say another size; the slices stay as they are."""
    return _SPS.sub(lambda match: b"\x00\x00\x01" + sized_sps(match[1], width_px, height_px), data)


def sized_sps(unit: bytes, width_px: int, height_px: int) -> bytes:
    """An SPS unit that says another size, a multiple of 16 px."""
    bits = "".join(f"{byte:08b}" for byte in unit[1:].replace(b"\x00\x00\x03", b"\x00\x00"))
    size = _size(bits)
    after = _after_golomb(bits, _after_golomb(bits, size))
    return unit[:1] + escaped(bits[:size] + golomb(width_px // 16 - 1)
                              + golomb(height_px // 16 - 1) + bits[after:])
