"""Headers as fields of single bits and Exp-Golomb codes, to be changed one by one."""

from __future__ import annotations

import contextlib
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

_ESCAPED = re.compile(rb"\x00\x00(?=[\x00-\x03])")
INTERESTING = (0, 1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 32, 63, 64, 127, 128, 255, 256, 511, 1023, 4095,
               8191, 16383, 32767, 32768, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1)


def escaped(data: bytes) -> bytes:
    """`data` without anything that looks like a start code."""
    return _ESCAPED.sub(b"\x00\x00\x03", data)


def unescaped(data: bytes) -> bytes:
    return data.replace(b"\x00\x00\x03", b"\x00\x00")


@dataclass
class Header:
    """A row of fields, read from bits and written again with one of them changed."""

    bits: str
    at: int = 0
    fields: list[tuple[str, int, int]] = field(default_factory=list)
    """(kind, length in bits where fixed, value): 'u', or 'e' for Exp-Golomb."""

    @classmethod
    def of(cls, data: bytes) -> Header:
        return cls(f"{int.from_bytes(b'1' + data, 'big'):b}"[6:] if data else "")

    def u(self, length: int) -> int:
        """Read a field of `length` bits."""
        text = self.bits[self.at : self.at + length]
        if len(text) < length:
            raise ValueError("the header ends")
        self.at += length
        self.fields.append(("u", length, int(text, 2) if text else 0))
        return self.fields[-1][2]

    def e(self) -> int:
        """Read an Exp-Golomb code."""
        one = self.bits.index("1", self.at)
        zeros = one - self.at
        if zeros > 32 or one + zeros >= len(self.bits):
            raise ValueError("no Exp-Golomb code")
        value = int(self.bits[one : one + zeros + 1], 2) - 1
        self.at = one + zeros + 1
        self.fields.append(("e", 0, value))
        return value

    def written(self) -> bytes:
        """The fields as they are now and what follows them."""
        text = "".join(_coded(*item) for item in self.fields) + self.bits[self.at :]
        text += "0" * (-len(text) % 8)
        return int("1" + text, 2).to_bytes(len(text) // 8 + 1, "big")[1:] if text else b""

    def change(self, rng: random.Random) -> None:
        """Give one field another value."""
        if not self.fields:
            return
        at = rng.randrange(len(self.fields))
        kind, length, value = self.fields[at]
        if kind == "u":
            new = rng.getrandbits(length) if rng.random() < 0.5 else value ^ 1 << rng.randrange(
                max(length, 1))
            new &= (1 << length) - 1
        else:
            new = rng.choice((value + 1, max(value - 1, 0), value * 2 + 1, rng.randrange(40),
                              rng.choice(INTERESTING)))
        self.fields[at] = kind, length, new


def _coded(kind: str, length: int, value: int) -> str:
    if kind == "u":
        return f"{value:0{length}b}" if length else ""
    code = f"{min(value, (1 << 32) - 2) + 1:b}"
    return "0" * (len(code) - 1) + code


# -- H.264 (7.3) ---------------------------------------------------------------------------------

_HIGH_PROFILES = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}


def read_sps(header: Header) -> int | None:
    """Returns where in the fields the width stands; None where the unit is unusual."""
    profile = header.u(8)
    header.u(8)
    header.u(8)
    header.e()
    if profile in _HIGH_PROFILES:
        if header.e() == 3:
            header.u(1)
        header.e()
        header.e()
        header.u(1)
        if header.u(1):
            return None
    header.e()
    order = header.e()
    if order == 0:
        header.e()
    elif order == 1:
        return None
    header.e()
    header.u(1)
    size_at = len(header.fields)
    header.e()
    header.e()
    if not header.u(1):
        header.u(1)
    header.u(1)
    if header.u(1):
        for _ in range(4):
            header.e()
    header.u(1)
    return size_at


def read_pps(header: Header) -> None:
    header.e()
    header.e()
    header.u(1)
    header.u(1)
    if header.e():
        return
    header.e()
    header.e()
    header.u(1)
    header.u(2)
    for _ in range(3):
        header.e()
    for _ in range(3):
        header.u(1)


def read_slice(header: Header) -> None:
    for _ in range(3):
        header.e()
    for length in (4, 1, 3, 1, 4, 4, 8):
        header.u(length)


_READERS = {7: read_sps, 8: read_pps, 1: read_slice, 5: read_slice}


def with_changed_unit(unit: bytes, rng: random.Random) -> bytes:
    """An H.264 NAL unit (without start code) with one or two header fields changed."""
    reader = _READERS.get(unit[0] & 31 if unit else 0)
    if reader is None or rng.random() < 0.1:
        return with_flips(unit, rng, within=16)
    header = Header.of(unescaped(unit[1:]))
    with contextlib.suppress(ValueError):
        reader(header)
    for _ in range(rng.choice((1, 1, 1, 2))):
        header.change(rng)
    return unit[:1] + escaped(header.written())


def sps_with_size(unit: bytes, width_mbs: int, height_mbs: int) -> bytes:
    """An SPS with the picture size given in macroblocks; the unit itself where it is unusual."""
    header = Header.of(unescaped(unit[1:]))
    try:
        at = read_sps(header)
    except ValueError:
        return unit
    if at is None:
        return unit
    header.fields[at : at + 2] = [("e", 0, width_mbs - 1), ("e", 0, height_mbs - 1)]
    return unit[:1] + escaped(header.written())


# -- MPEG-4 part 2 and MPEG-1/2 -------------------------------------------------------------------

def read_mpeg4_layer(header: Header) -> None:
    """A video object layer up to the size of a rectangular one (14496-2, 6.2.3)."""
    header.u(9)
    if header.u(1):
        header.u(7)
    if header.u(4) == 15:
        header.u(16)
    if header.u(1):
        header.u(3)
        if header.u(1):
            header.u(79)
    header.u(2)
    header.u(1)
    resolution = header.u(16)
    header.u(1)
    if header.u(1):
        header.u(max(1, (resolution - 1).bit_length()))
    for length in (1, 13, 1, 13, 1, 1, 1, 1):  # width, height, interlaced, obmc, sprites
        header.u(length)


def read_mpeg4_picture(header: Header) -> None:
    for length in (2, 1, 1, 5, 1, 1, 3, 5, 3):
        header.u(length)


def read_mpeg12_sequence(header: Header) -> None:
    for length in (12, 12, 4, 4, 18, 1, 10, 1):
        header.u(length)


def read_mpeg12_picture(header: Header) -> None:
    for length in (10, 3, 16, 1, 3, 1, 3):
        header.u(length)


def read_mpeg12_extension(header: Header) -> None:
    for length in (4, 4, 4, 4, 4, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1):
        header.u(length)


def with_changed_mpeg_unit(unit: bytes, rng: random.Random, *, is_mpeg4: bool) -> bytes:
    """A unit after its start code 00 00 01, with a header field changed."""
    kind = unit[0] if unit else 0
    if is_mpeg4:
        reader = (read_mpeg4_picture if kind == 0xB6
                  else read_mpeg4_layer if 0x20 <= kind <= 0x2F else None)
    else:
        reader = {0: read_mpeg12_picture, 0xB3: read_mpeg12_sequence,
                  0xB5: read_mpeg12_extension}.get(kind)
    if reader is None:
        return with_flips(unit, rng, within=12)
    header = Header.of(unit[1:])
    with contextlib.suppress(ValueError):
        reader(header)
    header.change(rng)
    return unit[:1] + header.written()


# -- plain bytes ---------------------------------------------------------------------------------

def with_flips(data: bytes, rng: random.Random, *, within: int | None = None) -> bytes:
    """`data` with a few bits turned, all of them in the first `within` bytes."""
    out = bytearray(data)
    size = len(out) if within is None else min(len(out), within)
    for _ in range(rng.choice((1, 1, 2, 4)) if size else 0):
        out[rng.randrange(size)] ^= 1 << rng.randrange(8)
    return bytes(out)


def start_code_units(data: bytes) -> list[bytes]:
    """What stands between the start codes 00 00 01, without them; what is before the first one
    is left out."""
    return [unit for unit in data.split(b"\x00\x00\x01")[1:] if unit]


def with_start_codes(units: Sequence[bytes]) -> bytes:
    return b"".join(b"\x00\x00\x01" + unit for unit in units)


def nal_units(data: bytes) -> Iterator[bytes]:
    """NAL units of Annex B data, without the zero that a long start code begins with."""
    for unit in start_code_units(data):
        yield unit.rstrip(b"\0") or unit[:1]
