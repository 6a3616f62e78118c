"""From a seed and a number to one hostile file; the same file every time.

First what a stream is made of is changed (NAL units, headers, packets, their times, pieces of a
stream of another size), and FFmpeg puts it into a container, so that the container is right. Then
the container is changed piece by piece, then single bytes; or any of the three alone.
"""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av
from av.packet import Packet

from tests.fuzz.seeds import FORMATS, LARGEST_BYTES, Chunk, Elementary, Seeds
from tests.fuzz.units import Unit, flat, parse, to_bytes

_LIMITS = (0, 1, 2, 7, 8, 15, 16, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000,
           0xFFFFFFFF, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)
_TIMES = (0, -1, 1, 1 << 31, -(1 << 31), 1 << 40, 1 << 62, -(1 << 62), (1 << 63) - 2, 90_000)
_HEAD_BYTES = 48


def make_input(seeds: Seeds, *, seed: int, number: int) -> bytes:
    """Input `number` of the series `seed`."""
    rng = random.Random(seed << 40 | number)
    if seeds.files and rng.random() < 0.15:
        data = rng.choice(seeds.files)
        data = _container_changed(data, seeds, rng) if rng.random() < 0.6 else data
        return _bytes_changed(data, rng) if rng.random() < 0.7 else data
    stream = rng.choice(seeds.streams)
    chunks = list(stream.chunks)
    in_stream = rng.random() < 0.7
    if in_stream:
        chunks = _stream_changed(chunks, stream, seeds, rng)
    data = _muxed(stream, chunks, seeds, rng)
    if not in_stream or rng.random() < 0.4:
        data = _container_changed(data, seeds, rng)
    if rng.random() < 0.3:
        data = _bytes_changed(data, rng)
    return data[:LARGEST_BYTES]


# ---- the coded stream


def _stream_changed(
    chunks: list[Chunk], stream: Elementary, seeds: Seeds, rng: random.Random
) -> list[Chunk]:
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        change = rng.choice(_STREAM_CHANGES)
        chunks = change(chunks, stream, seeds, rng) or chunks
    return chunks


def _relatives(stream: Elementary, seeds: Seeds) -> list[Elementary]:
    return [one for one in seeds.streams if one.codec == stream.codec]


def _spliced(chunks: list[Chunk], stream: Elementary, seeds: Seeds,
             rng: random.Random) -> list[Chunk]:
    """Packets of another stream of the same codec, perhaps of another size, in the middle."""
    other = list(rng.choice(_relatives(stream, seeds)).chunks)
    at, begin = rng.randrange(len(chunks) + 1), rng.randrange(len(other))
    end = rng.randint(begin + 1, len(other))
    rest = chunks[at:] if rng.random() < 0.6 else []
    return [*chunks[:at], *other[begin:end], *rest]


def _dropped(chunks: list[Chunk], stream: Elementary, seeds: Seeds,
             rng: random.Random) -> list[Chunk]:
    at = rng.randrange(len(chunks))
    return chunks[:at] + chunks[at + rng.randint(1, 3):]


def _repeated(chunks: list[Chunk], stream: Elementary, seeds: Seeds,
              rng: random.Random) -> list[Chunk]:
    at = rng.randrange(len(chunks))
    return chunks[:at] + [chunks[at]] * rng.randint(2, 4) + chunks[at + 1:]


def _shuffled(chunks: list[Chunk], stream: Elementary, seeds: Seeds,
              rng: random.Random) -> list[Chunk]:
    a, b = rng.randrange(len(chunks)), rng.randrange(len(chunks))
    chunks = list(chunks)
    chunks[a], chunks[b] = chunks[b], chunks[a]
    return chunks


def _retimed(chunks: list[Chunk], stream: Elementary, seeds: Seeds,
             rng: random.Random) -> list[Chunk]:
    at, chunks = rng.randrange(len(chunks)), list(chunks)
    old = chunks[at]
    chunks[at] = Chunk(old.content, rng.choice(_TIMES), old.dts if rng.random() < 0.5 else
                       rng.choice(_TIMES), old.is_keyframe)
    return chunks


def _relabelled(chunks: list[Chunk], stream: Elementary, seeds: Seeds,
                rng: random.Random) -> list[Chunk]:
    at, chunks = rng.randrange(len(chunks)), list(chunks)
    old = chunks[at]
    chunks[at] = Chunk(old.content, old.pts, old.dts, not old.is_keyframe)
    return chunks


def _recoded(chunks: list[Chunk], stream: Elementary, seeds: Seeds,
             rng: random.Random) -> list[Chunk]:
    """Bits of a header changed, or NAL units moved about, within one packet."""
    at, chunks = rng.randrange(len(chunks)), list(chunks)
    old = chunks[at]
    content = _header_bits(old.content, rng) if rng.random() < 0.6 else _units_changed(
        old.content, rng.choice(rng.choice(_relatives(stream, seeds)).chunks).content, rng)
    chunks[at] = Chunk(content, old.pts, old.dts, old.is_keyframe)
    return chunks


_STREAM_CHANGES: tuple[Callable[[list[Chunk], Elementary, Seeds, random.Random],
                                list[Chunk]], ...] = (
    _spliced, _spliced, _dropped, _repeated, _shuffled, _retimed, _relabelled, _recoded, _recoded,
    _recoded)


def _header_bits(content: bytes, rng: random.Random) -> bytes:
    """A few bits of the first bytes of one unit flipped: parameter sets, slice headers, sizes."""
    data = bytearray(content)
    places = _unit_places(content)
    begin = rng.choice(places)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = begin + rng.randrange(_HEAD_BYTES if rng.random() < 0.7 else 600)
        if at < len(data):
            data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def _unit_places(content: bytes) -> list[int]:
    """Where NAL units or start codes begin: as lengths of four bytes, or behind 00 00 01."""
    places, at = [], 0
    while at + 5 <= len(content) and len(places) < 32:
        length = int.from_bytes(content[at:at + 4], "big")
        if not 0 < length <= len(content) - at - 4:
            break
        places.append(at + 4)
        at += 4 + length
    at = content.find(b"\0\0\1")
    while at >= 0 and len(places) < 64:
        places.append(at + 3)
        at = content.find(b"\0\0\1", at + 3)
    return places or [0]


def _units_changed(content: bytes, other: bytes, rng: random.Random) -> bytes:
    """NAL units of `content` dropped, doubled, or replaced by some of `other`."""
    units, others = _split(content), _split(other)
    at = rng.randrange(len(units))
    how = rng.randrange(4)
    if how == 0:
        del units[at]
    elif how == 1:
        units.insert(at, units[at])
    elif how == 2:
        units[at:at + 1] = others[:rng.randint(1, 3)]
    else:
        units.insert(rng.randrange(len(units) + 1), rng.choice(others))
    return b"".join(units)


def _split(content: bytes) -> list[bytes]:
    places = sorted({max(place - 4, 0) for place in _unit_places(content)} | {0})
    return [content[a:b] for a, b in zip(places, [*places[1:], len(content)], strict=True)]


# ---- the container


def _muxed(stream: Elementary, chunks: list[Chunk], seeds: Seeds, rng: random.Random) -> bytes:
    """The packets in a container that takes them, as far as it takes them."""
    raw = b"".join(chunk.content for chunk in chunks)
    header = rng.choice(_relatives(stream, seeds)) if rng.random() < 0.15 else stream
    if rng.random() < 0.08:
        return raw
    wanted = rng.choice(FORMATS)
    content = io.BytesIO()
    with av.open(io.BytesIO(header.file)) as source:
        options = {"fflags": "+bitexact"}  # else Matroska draws numbers of its own
        if wanted in ("mp4", "mov") and rng.random() < 0.3:
            options["movflags"] = "frag_keyframe+empty_moov"
        try:
            with av.open(content, "w", format=wanted, options=options) as container:
                _write(container, source.streams.video[0], chunks, rng)
        except (av.FFmpegError, ValueError, OverflowError):
            pass
    return content.getvalue() or stream.file


def _write(container: Any, template: Any, chunks: list[Chunk], rng: random.Random) -> None:
    out = container.add_stream_from_template(template)
    if rng.random() < 0.1:
        container.add_stream_from_template(template)
    unit = Fraction(1, 1000)
    for number, chunk in enumerate(chunks):
        packet: Packet[Any] = Packet(chunk.content)
        even = 40 * number
        packet.pts, packet.dts = (chunk.pts, chunk.dts) if abs(chunk.pts) > 10_000 else (even, even)
        packet.time_base, packet.is_keyframe, packet.stream = unit, chunk.is_keyframe, out
        container.mux(packet)


def _container_changed(data: bytes, seeds: Seeds, rng: random.Random) -> bytes:
    units = parse(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = flat(units)
        if not places:
            break
        here, at = rng.choice(places)
        rng.choice(_UNIT_CHANGES)(units, here, at, rng)
    return to_bytes(units)


def _drop(units: list[Unit], here: list[Unit], at: int, rng: random.Random) -> None:
    del here[at]


def _double(units: list[Unit], here: list[Unit], at: int, rng: random.Random) -> None:
    here.insert(at, here[at])


def _move(units: list[Unit], here: list[Unit], at: int, rng: random.Random) -> None:
    unit = here.pop(at)
    other, place = rng.choice(flat(units) or [(here, 0)])
    if not _holds(unit, other):
        other.insert(place, unit)


def _holds(unit: Unit, content: list[Unit]) -> bool:
    """Whether `content` lies within `unit`, which must not be put into itself."""
    waiting = [unit]
    while waiting:
        inner = waiting.pop().content
        if inner is content:
            return True
        if isinstance(inner, list):
            waiting += inner
    return False


def _belie(units: list[Unit], here: list[Unit], at: int, rng: random.Random) -> None:
    here[at].false_length = rng.choice(_LIMITS) if rng.random() < 0.5 else rng.randrange(1 << 12)


def _edit(units: list[Unit], here: list[Unit], at: int, rng: random.Random) -> None:
    content = here[at].content
    if isinstance(content, bytes) and content:
        here[at].content = _bytes_changed(content, rng)


_UNIT_CHANGES: tuple[Callable[[list[Unit], list[Unit], int, random.Random], None], ...] = (
    _drop, _double, _move, _belie, _edit, _edit, _edit, _edit)


# ---- bytes


def _bytes_changed(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 12))):
        if not changed:
            break
        at, how = rng.randrange(len(changed)), rng.randrange(8)
        if how < 3:
            changed[at] ^= 1 << rng.randrange(8)
        elif how < 5:
            length = rng.choice((1, 2, 4, 8))
            number = rng.choice(_LIMITS) & ((1 << 8 * length) - 1)
            changed[at:at + length] = number.to_bytes(length, rng.choice(("big", "little")))
        elif how == 5:
            changed[at:at] = rng.randbytes(rng.randint(1, 8))
        elif how == 6:
            del changed[at:at + rng.randint(1, 16)]
        elif rng.random() < 0.3:
            del changed[at:]
    return bytes(changed)
