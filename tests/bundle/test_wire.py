"""The wire format: what a lenient reader takes, and what a file could do to it, is refused."""

from __future__ import annotations

import struct
import time

import pytest

from edgepkd.bundle.wire import Message, WireError, read_message

INNER = Message("Inner", {1: ("number", "int"), 2: ("text", "text")})
OUTER = Message("Outer", {
    1: ("number", "int"), 2: ("numbers", "ints"), 3: ("real", "float"), 4: ("reals", "floats"),
    5: ("name", "text"), 6: ("data", "bytes"), 7: ("inner", INNER), 8: ("many", INNER),
    9: ("doc", "ignored"), 10: ("names", "text")}, frozenset({"many", "names"}))


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    made = b""
    while value >= 0x80:
        made, value = made + bytes([value & 0x7F | 0x80]), value >> 7
    return made + bytes([value])


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value)


def block(field: int, content: bytes) -> bytes:
    return varint(field << 3 | 2) + varint(len(content)) + content


def test_all_kinds_are_read() -> None:
    content = (number(1, -5) + number(2, 7) + block(2, varint(300) + varint(-1))
               + varint(3 << 3 | 5) + struct.pack("<f", 1.5)
               + varint(4 << 3 | 5) + struct.pack("<f", 2.0) + block(4, struct.pack("<2f", 3, 4))
               + block(5, "é".encode()) + block(6, b"\0\1") + block(7, number(1, 1 << 62))
               + block(8, b"") + block(8, block(2, b"x")) + block(9, b"\xff") + number(9, 3)
               + block(10, b"a") + block(10, b"b"))
    read = read_message(content, OUTER)
    assert (read["number"], read["numbers"]) == (-5, [7, 300, -1])
    assert read["real"] == 1.5
    assert struct.unpack("<3f", read["reals"]) == (2, 3, 4)
    assert (read["name"], bytes(read["data"]), read["names"]) == ("é", b"\0\1", ["a", "b"])
    assert read["inner"] == {"number": 1 << 62}
    assert read["many"] == [{}, {"text": "x"}]
    assert "doc" not in read
    assert read_message(b"", OUTER) == {"many": [], "names": []}


@pytest.mark.parametrize(("content", "reason"), [
    (b"\x80", "cut off within a number"),
    (b"\x08", "cut off within a number"),
    (b"\x08" + b"\xff" * 9 + b"\x02", "more than 64 bits"),
    (b"\x08" + b"\x80" * 10 + b"\x00", "more than ten bytes"),
    (b"\x08" + b"\x80" * 10**6, "more than ten bytes"),
    (number(0, 1), "with the number 0"),
    (varint(1 << 32), "with the number 536870912"),
    (varint(1 << 3 | 3), "wire type 3"),
    (varint(1 << 3 | 4), "wire type 4"),
    (varint(1 << 3 | 7), "wire type 7"),
    (block(1, b"x"), r"Outer.number has the wire type 2"),
    (number(5, 1), r"Outer.name has the wire type 0"),
    (number(7, 1), r"Outer.inner has the wire type 0"),
    (varint(3 << 3 | 1) + b"12345678", r"Outer.real has the wire type 1"),
    (varint(3 << 3 | 5) + b"123", "cut off: 4 bytes are announced, 3 are there"),
    (varint(5 << 3 | 2) + varint(1 << 63) + b"x", "cut off"),
    (block(7, varint(2 << 3 | 2) + varint(5) + b"abc") + b"more", "Inner is cut off"),
    (block(2, b"\xff"), r"Outer.numbers is cut off"),
    (block(4, b"12345"), "no list of float32"),
    (block(5, b"\xff"), "no UTF-8"),
    (block(5, b"x" * 1001), "has 1001 bytes; allowed: 1000"),
    (number(11, 1), "the field 11, which is not known"),
    (block(7, block(7, b"")), "Inner has the field 7"),
    (number(1, 1) + number(1, 1), r"Outer.number is given twice"),
    (block(7, b"") + block(7, b""), r"Outer.inner is given twice"),
    (block(6, b"") + block(6, b""), r"Outer.data is given twice"),
])
def test_what_is_malformed_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        read_message(content, OUTER)


@pytest.mark.slow
@pytest.mark.parametrize("content", [
    number(2, 1) * 300_001, block(2, b"\1" * 300_001), block(8, b"") * 150_001,
    number(9, 1) * 150_001])
def test_values_without_end_are_refused_in_time(content: bytes) -> None:
    started = time.process_time()
    with pytest.raises(WireError, match="more than 300000 values"):
        read_message(content, OUTER)
    assert time.process_time() - started < 10
