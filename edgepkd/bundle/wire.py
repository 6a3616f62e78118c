"""Messages of Protocol Buffers, read strictly, by a description of what they may hold.

A file is read here before a library sees it. So what another reader would skip, take twice or take
as something else is refused: unknown fields, a second value where there is one, lengths that lead
out of the message. Messages nest as deep as their description does, and no deeper.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["int", "ints", "float", "floats", "text", "bytes", "ignored"]

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIRE_TYPES: Mapping[Kind, tuple[int, ...]] = {
    "int": (_VARINT,), "ints": (_VARINT, _BYTES), "float": (_FIXED32,),
    "floats": (_FIXED32, _BYTES), "text": (_BYTES,), "bytes": (_BYTES,),
    "ignored": (_VARINT, _FIXED64, _BYTES, _FIXED32),
}
MAX_VALUES = 300_000
"""Fields and packed integers in one file; large tensors are one value each."""
MAX_TEXT = 1_000
"""Bytes of a name."""


class WireError(ValueError):
    """The bytes are no such message; the text says where and why."""


@dataclass(frozen=True)
class Message:
    """What a message may hold: field number -> name and kind; `many` are lists of messages or
    texts, all else is there once or not at all (`ints` and `floats` are lists by themselves)."""

    name: str
    fields: Mapping[int, tuple[str, Kind | Message]]
    many: frozenset[str] = frozenset()


def read_message(content: bytes, message: Message) -> dict[str, Any]:
    """Values by name; `ints` is a list of int64, `floats` the bytes of little-endian float32,
    `bytes` a view of `content`; a list of messages or texts is [] where there are none.

    Raises:
        WireError: it is no such message.
    """
    return _Reader().read(memoryview(content), message)


class _Reader:
    """Reads one file; counts what it meets."""

    def __init__(self) -> None:
        self._num_values = 0

    def read(self, view: memoryview, message: Message) -> dict[str, Any]:
        values: dict[str, Any] = {name: [] for name in message.many}
        for number, wire_type, raw in self._fields(view, message.name):
            if number not in message.fields:
                raise WireError(f"{message.name} has the field {number}, which is not known or not"
                                " allowed")
            name, kind = message.fields[number]
            expected = (_BYTES,) if isinstance(kind, Message) else _WIRE_TYPES[kind]
            if wire_type not in expected:
                raise WireError(f"{message.name}.{name} has the wire type {wire_type}")
            if kind != "ignored":
                self._add(values, name, self._value(raw, kind, f"{message.name}.{name}"),
                          where=message)
        return values

    def _add(self, values: dict[str, Any], name: str, value: Any, *, where: Message) -> None:
        if name in where.many:
            values[name].append(value)
        elif isinstance(value, (list, bytearray)) and name in values:
            values[name] += value
        elif name in values:
            raise WireError(f"{where.name}.{name} is given twice")
        else:
            values[name] = value

    def _value(self, raw: int | memoryview, kind: Kind | Message, where: str) -> Any:
        if isinstance(kind, Message):
            assert isinstance(raw, memoryview)
            return self.read(raw, kind)
        if kind == "ints":
            return [_signed(raw)] if isinstance(raw, int) else list(self._packed(raw, where))
        if isinstance(raw, int):
            return _signed(raw)
        if kind == "float":
            return struct.unpack("<f", raw)[0]
        if kind == "floats":
            if len(raw) % 4:
                raise WireError(f"{where} is no list of float32")
            return bytearray(raw)
        return _text(raw, where) if kind == "text" else raw

    def _packed(self, view: memoryview, where: str) -> Iterator[int]:
        at = 0
        while at < len(view):
            value, at = self._varint(view, at, where)
            yield _signed(value)

    def _fields(
        self, view: memoryview, where: str
    ) -> Iterator[tuple[int, int, int | memoryview]]:
        """(field number, wire type, value) one after the other."""
        at, raw = 0, None
        while at < len(view):
            tag, at = self._varint(view, at, where)
            number, wire_type = tag >> 3, tag & 7
            if not 1 <= number < 1 << 29:
                raise WireError(f"{where} has a field with the number {number}")
            if wire_type == _VARINT:
                raw, at = self._varint(view, at, where)
                yield number, wire_type, raw
                continue
            if wire_type == _BYTES:
                length, at = self._varint(view, at, where)
            elif wire_type in (_FIXED32, _FIXED64):
                length = 4 if wire_type == _FIXED32 else 8
            else:
                raise WireError(f"{where} has a field of the wire type {wire_type}")
            if length > len(view) - at:
                raise WireError(f"{where} is cut off: {length} bytes are announced,"
                                f" {len(view) - at} are there")
            yield number, wire_type, view[at : at + length]
            at += length

    def _varint(self, view: memoryview, at: int, where: str) -> tuple[int, int]:
        self._num_values += 1
        if self._num_values > MAX_VALUES:
            raise WireError(f"it holds more than {MAX_VALUES} values")
        value = shift = 0
        while True:
            if at >= len(view):
                raise WireError(f"{where} is cut off within a number")
            byte = view[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if value >> 64:
                raise WireError(f"{where} holds a number of more than 64 bits")
            if byte < 0x80:
                return value, at
            shift += 7
            if shift > 63:
                raise WireError(f"{where} holds a number of more than ten bytes")


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _text(view: memoryview, where: str) -> str:
    if len(view) > MAX_TEXT:
        raise WireError(f"{where} has {len(view)} bytes; allowed: {MAX_TEXT}")
    try:
        return str(view, "utf-8")
    except UnicodeDecodeError as error:
        raise WireError(f"{where} is no UTF-8") from error
