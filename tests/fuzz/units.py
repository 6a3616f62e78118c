"""Files as what their format is made of: boxes, chunks, elements, tags, packets, NAL units.

`parse` never fails: what is not understood is one unit of plain bytes. Written again, a unit has
the length that it really has, unless a mutator has set another.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

_PARENT_BOXES = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex",
                           b"edts", b"dinf", b"udta"})
_PARENT_ELEMENTS = frozenset({0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0, 0x1F43B675, 0xA0,
                              0x1C53BB6B, 0xBB, 0xB7, 0x114D9B74, 0x4DBB})
_START_CODE = re.compile(rb"\x00\x00\x01")
_DEEPEST, _MOST_UNITS = 8, 3000
_TS_PACKET = 188


@dataclass
class Unit:
    """A piece of a file.

    Attributes:
        write: head and tail of the piece around its content, by the content's length.
        content: bytes, or the pieces that it is made of.
        false_length: what it says its length is instead of the truth.
    """

    write: Callable[[int], tuple[bytes, bytes]]
    content: bytes | list[Unit] = b""
    false_length: int | None = None
    name: bytes = field(default=b"")

    def to_bytes(self) -> bytes:
        """The piece as it stands in a file."""
        content = self.content if isinstance(self.content, bytes) else to_bytes(self.content)
        length = len(content) if self.false_length is None else self.false_length
        try:
            head, tail = self.write(length)
        except OverflowError:
            head, tail = self.write(len(content))
        return head + content + tail


def to_bytes(units: list[Unit]) -> bytes:
    """A file made of `units`."""
    return b"".join(unit.to_bytes() for unit in units)


def parse(data: bytes) -> list[Unit]:
    """The units of a file, by what it begins with."""
    if data[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"styp"):
        return _boxes(data, 0)
    if data[:4] == b"RIFF":
        return _chunks(data, 0)
    if data[:4] == b"\x1aE\xdf\xa3":
        return _elements(data, 0)
    if data[:3] == b"FLV":
        return _tags(data)
    if data[:1] == b"G" and data[_TS_PACKET:_TS_PACKET + 1] in (b"G", b""):
        return [_plain(data[at:at + _TS_PACKET]) for at in range(0, len(data), _TS_PACKET)]
    if _START_CODE.search(data[:64]):
        return _start_codes(data)
    return [_plain(data)]


def flat(units: list[Unit]) -> list[tuple[list[Unit], int]]:
    """Every unit with the list it stands in: what mutators choose from."""
    found: list[tuple[list[Unit], int]] = []
    waiting = [units]
    while waiting and len(found) < _MOST_UNITS:
        here = waiting.pop()
        for number, unit in enumerate(here):
            found.append((here, number))
            if isinstance(unit.content, list):
                waiting.append(unit.content)
    return found


def _plain(data: bytes, name: bytes = b"") -> Unit:
    return Unit(lambda _: (b"", b""), data, name=name)


def _boxes(data: bytes, depth: int) -> list[Unit]:
    units, at = [], 0
    while at + 8 <= len(data):
        size, name = int.from_bytes(data[at:at + 4], "big"), data[at + 4:at + 8]
        if size < 8 or at + size > len(data):
            break
        inner = data[at + 8:at + size]
        deeper = name in _PARENT_BOXES and depth < _DEEPEST
        units.append(Unit(_box(name), _boxes(inner, depth + 1) if deeper else inner, name=name))
        at += size
    return [*units, _plain(data[at:])] if at < len(data) else units


def _box(name: bytes) -> Callable[[int], tuple[bytes, bytes]]:
    return lambda length: ((length + 8).to_bytes(4, "big") + name, b"")


def _chunks(data: bytes, depth: int) -> list[Unit]:
    units, at = [], 0
    while at + 8 <= len(data):
        name, size = data[at:at + 4], int.from_bytes(data[at + 4:at + 8], "little")
        inner = data[at + 8:at + 8 + size]
        if len(inner) < size and name != b"RIFF":
            break
        if name in (b"RIFF", b"LIST") and depth < _DEEPEST:
            kind = inner[:4]
            units.append(Unit(_list(name, kind), _chunks(inner[4:], depth + 1), name=kind))
        else:
            units.append(Unit(_chunk(name), inner, name=name))
        at += 8 + size + size % 2
    return [*units, _plain(data[at:])] if at < len(data) else units


def _chunk(name: bytes) -> Callable[[int], tuple[bytes, bytes]]:
    return lambda length: (name + length.to_bytes(4, "little"), b"\0" * (length % 2))


def _list(name: bytes, kind: bytes) -> Callable[[int], tuple[bytes, bytes]]:
    return lambda length: (name + (length + 4).to_bytes(4, "little") + kind, b"")


def _elements(data: bytes, depth: int) -> list[Unit]:
    units, at = [], 0
    while at < len(data):
        id_length = _vint_length(data[at])
        if id_length > 4 or at + id_length >= len(data):
            break
        identity = int.from_bytes(data[at:at + id_length], "big")
        size_at = at + id_length
        length = _vint_length(data[size_at])
        if length > 8 or size_at + length > len(data):
            break
        size = int.from_bytes(data[size_at:size_at + length], "big") & ((1 << 7 * length) - 1)
        begin = size_at + length
        size = min(size, len(data) - begin)
        inner = data[begin:begin + size]
        deeper = identity in _PARENT_ELEMENTS and depth < _DEEPEST
        head = data[at:size_at]
        units.append(Unit(_element(head), _elements(inner, depth + 1) if deeper else inner,
                          name=head))
        at = begin + size
    return [*units, _plain(data[at:])] if at < len(data) else units


def _vint_length(first: int) -> int:
    return 9 - first.bit_length()


def _element(head: bytes) -> Callable[[int], tuple[bytes, bytes]]:
    return lambda length: (head + (length | 1 << 56).to_bytes(8, "big"), b"")


def _tags(data: bytes) -> list[Unit]:
    units, at = [_plain(data[:13], b"FLV")], 13
    while at + 11 <= len(data):
        size = int.from_bytes(data[at + 1:at + 4], "big")
        if at + 11 + size + 4 > len(data):
            break
        units.append(Unit(_tag(data[at:at + 1], data[at + 4:at + 11]),
                          data[at + 11:at + 11 + size], name=data[at:at + 1]))
        at += 11 + size + 4
    return [*units, _plain(data[at:])] if at < len(data) else units


def _tag(kind: bytes, rest: bytes) -> Callable[[int], tuple[bytes, bytes]]:
    return lambda length: (kind + length.to_bytes(3, "big") + rest,
                           (length + 11).to_bytes(4, "big"))


def _start_codes(data: bytes) -> list[Unit]:
    places = [match.start() for match in _START_CODE.finditer(data)]
    borders = [*([0] if places[0] else []), *places, len(data)]
    return [_plain(data[begin:end], data[begin:begin + 4])
            for begin, end in pairwise(borders)]
