"""From a seed and a number to one hostile file; the same file every time.

First what a stream is made of is changed (NAL units, header fields, packets, their times, pieces of
a stream of another size), and it is put into a container without a check (`muxers`). Then the
container is changed piece by piece, then single bytes; or any of the three alone. Nothing of
FFmpeg's runs here: its muxers abort on what is meant for the decoder.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from tests.fuzz.bits import (
    INTERESTING,
    escaped,
    nal_units,
    sps_with_size,
    start_code_units,
    with_changed_mpeg_unit,
    with_changed_unit,
    with_flips,
    with_start_codes,
)
from tests.fuzz.muxers import ELSEWHERE, HOLDS, MUXERS
from tests.fuzz.seeds import LARGEST_BYTES, Seeds
from tests.fuzz.streams import TICKS, Stream, header_of
from tests.fuzz.units import Unit, flat, parse, to_bytes

_LIMITS = (*INTERESTING, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62, (1 << 63) - 1, (1 << 64) - 1)
_TIMES = (0, -1, 1, -TICKS, 1 << 31, -(1 << 31), 1 << 33, 1 << 40, 1 << 62, -(1 << 62),
          (1 << 63) - 2)
_MOST_PACKETS = 40
_MPEG = ("mpeg4", "mpeg2video", "mpeg1video")


def make_input(seeds: Seeds, *, seed: int, number: int) -> bytes:
    """Input `number` of the series `seed`."""
    rng = random.Random(seed << 40 | number)
    kind = rng.random()
    if kind < 0.12:
        data = rng.choice(seeds.files)
        if rng.random() < 0.1:
            data += rng.choice(seeds.files)
        data = _container_changed(data, rng)
    else:
        data = _stream_file(seeds, rng)
        if rng.random() < 0.35:
            data = _container_changed(data, rng)
    if rng.random() < 0.25:
        data = _bytes_changed(data, rng)
    return data[:LARGEST_BYTES]


def _stream_file(seeds: Seeds, rng: random.Random) -> bytes:
    """A changed stream in a container that its codec is found in, or in any other."""
    stream = rng.choice(seeds.streams).copy()
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3, 5))):
        if stream.packets:
            rng.choice(_STREAM_CHANGES)(stream, seeds, rng)
            del stream.packets[_MOST_PACKETS:]
    name = rng.choice(HOLDS.get(stream.codec, ELSEWHERE))
    streams = [stream]
    if rng.random() < 0.06:
        streams.append(rng.choice(seeds.streams).copy())
    if rng.random() < 0.02:
        name = rng.choice(("mp4", "avi", "mkv", "ts", "ps", "flv"))
    return MUXERS[name](streams, rng)


def _relative(stream: Stream, seeds: Seeds, rng: random.Random) -> Stream:
    """A stream of the same codec, perhaps of another size, perhaps itself."""
    return rng.choice([one for one in seeds.streams if one.codec == stream.codec])


# ---- the stream

def _splice(stream: Stream, seeds: Seeds, rng: random.Random) -> None:
    """Packets of a relative, from its beginning or not, put in or put in the place of some."""
    other = _relative(stream, seeds, rng)
    at = rng.randrange(len(stream.packets) + 1)
    begin = 0 if rng.random() < 0.6 else rng.randrange(len(other.packets))
    end = rng.randint(begin + 1, len(other.packets))
    time = stream.packets[at - 1].dts + TICKS if at else 0
    taken = [replace(p, pts=p.pts - p.dts + time + n * TICKS, dts=time + n * TICKS)
             for n, p in enumerate(other.packets[begin:end])]
    if rng.random() < 0.3:
        taken[0] = replace(taken[0], header=other.header)
    rest = stream.packets[at + (len(taken) if rng.random() < 0.3 else 0):]
    if rng.random() < 0.7:
        shift = len(taken) * TICKS
        rest = [replace(p, pts=p.pts + shift, dts=p.dts + shift) for p in rest]
    stream.packets[at:] = taken + rest


def _drop(stream: Stream, seeds: Seeds, rng: random.Random) -> None:
    at = rng.randrange(len(stream.packets))
    del stream.packets[at : at + rng.choice((1, 1, 2, 4))]


def _double(stream: Stream, seeds: Seeds, rng: random.Random) -> None:
    at = rng.randrange(len(stream.packets))
    stream.packets[at:at] = [stream.packets[at]] * rng.choice((1, 1, 2, 20))


def _swap(stream: Stream, seeds: Seeds, rng: random.Random) -> None:
    a, b = (rng.randrange(len(stream.packets)) for _ in range(2))
    one, other = stream.packets[a], stream.packets[b]
    if rng.random() < 0.5:  # only what is in them
        one, other = replace(one, data=other.data), replace(other, data=one.data)
        stream.packets[a], stream.packets[b] = one, other
    else:
        stream.packets[a], stream.packets[b] = other, one


def _retime(stream: Stream, seeds: Seeds, rng: random.Random) -> None:
    begin = rng.randrange(len(stream.packets))
    end = rng.choice((begin + 1, len(stream.packets)))
    shift = rng.choice(_TIMES) if rng.random() < 0.5 else rng.randrange(-40, 4000) * TICKS
    factor = rng.choice((1, 1, 1, 0, -1, 2, 1000))
    for at in range(begin, end):
        old = stream.packets[at]
        pts, dts = old.pts * factor + shift, old.dts * factor + shift
        stream.packets[at] = replace(old, pts=pts, dts=old.dts if rng.random() < 0.2 else dts)


def _relabel(stream: Stream, seeds: Seeds, rng: random.Random) -> None:
    at = rng.randrange(len(stream.packets))
    stream.packets[at] = replace(stream.packets[at], is_key=not stream.packets[at].is_key)


def _merge(stream: Stream, seeds: Seeds, rng: random.Random) -> None:
    """Two packets become one, or one becomes two."""
    at = rng.randrange(len(stream.packets))
    old = stream.packets[at]
    if rng.random() < 0.5:
        both = b"".join(p.data for p in stream.packets[at : at + 2])
        stream.packets[at : at + 2] = [replace(old, data=both)]
        return
    place = old.data.find(b"\x00\x00\x01", rng.randrange(len(old.data) + 1))
    place = place if place > 0 else len(old.data) // 2
    stream.packets[at : at + 1] = [replace(old, data=old.data[:place]),
                                   replace(old, data=old.data[place:])]


def _shorten(stream: Stream, seeds: Seeds, rng: random.Random) -> None:
    at = rng.randrange(len(stream.packets))
    old = stream.packets[at]
    size = rng.choice((0, 1, 4, 5, 8, rng.randrange(len(old.data) + 1)))
    stream.packets[at] = replace(old, data=old.data[:size])


def _resize(stream: Stream, seeds: Seeds, rng: random.Random) -> None:
    """Another size in the container's header, or new codec settings in the middle."""
    other = _relative(stream, seeds, rng)
    how = rng.randrange(4)
    if how == 0:
        stream.width, stream.height = other.width, other.height
    elif how == 1:
        stream.width, stream.height = (rng.choice((0, 1, 16, 33, 4096, 65535)) for _ in range(2))
    elif how == 2:
        stream.header = rng.choice((other.header, other.header, b"", stream.header[:9]))
    else:
        at = rng.randrange(len(stream.packets))
        header = _changed_data(other.header, stream.codec, rng) if rng.random() < 0.5 \
            else other.header
        stream.packets[at] = replace(stream.packets[at], header=header)


def _recode(stream: Stream, seeds: Seeds, rng: random.Random) -> None:
    """A header field of one packet changed, most often of one that has parameter sets."""
    keys = [at for at, packet in enumerate(stream.packets) if packet.is_key]
    at = rng.choice(keys) if keys and rng.random() < 0.6 else rng.randrange(len(stream.packets))
    old = stream.packets[at]
    new = replace(old, data=_changed_data(old.data, stream.codec, rng))
    stream.packets[at] = new
    if at == 0 and rng.random() < 0.7:
        stream.header = header_of(stream.codec, new.data)


def _changed_data(data: bytes, codec: str, rng: random.Random) -> bytes:
    if codec == "h264":
        units = list(nal_units(data))
        # Headers come first and say the most.
        at = min(rng.randrange(len(units) + 1), rng.randrange(len(units) + 1)) if units else 0
        if at < len(units):
            units[at] = with_changed_unit(units[at], rng)
        return with_start_codes(units)
    if codec in _MPEG and rng.random() < 0.8:
        units = start_code_units(data)
        if units:
            at = rng.randrange(min(len(units), 6))
            units[at] = with_changed_mpeg_unit(units[at], rng, is_mpeg4=codec == "mpeg4")
        return with_start_codes(units)
    return with_flips(data, rng, within=rng.choice((8, 8, 40, None)))


def _reunite(stream: Stream, seeds: Seeds, rng: random.Random) -> None:
    """NAL units of a packet dropped, doubled, moved, or taken from a relative."""
    at = rng.randrange(len(stream.packets))
    old = stream.packets[at]
    units = start_code_units(old.data)
    other = rng.choice(_relative(stream, seeds, rng).packets)
    others = start_code_units(other.data) or [b"\x09\xf0"]
    how, place = rng.randrange(6), rng.randrange(len(units) + 1)
    if how == 0:
        del units[place : place + 1]
    elif how == 1:
        units[place:place] = units[:place][-1:]
    elif how == 2:
        rng.shuffle(units)
    elif how == 3:
        units[place : place + 1] = others[: rng.randint(1, 3)]
    elif how == 4:
        units[place:place] = [rng.choice(others)]
    else:
        units[place:place] = [_rare_unit(stream.codec, rng)]
    stream.packets[at] = replace(old, data=with_start_codes(units))


def _rare_unit(codec: str, rng: random.Random) -> bytes:
    """A unit that no seed has: SEI of any kind, delimiters, ends of sequences and streams."""
    if codec != "h264":
        return bytes([rng.choice((0xB0, 0xB1, 0xB2, 0xB3, 0xB5, 0xB7, 0xB8, 0xB6, 0x20))]) \
            + rng.randbytes(rng.randrange(12))
    kind = rng.choice((6, 6, 6, 9, 10, 11, 12, 13, 14, 20))
    if kind != 6:
        return bytes([kind]) + rng.randbytes(rng.randrange(6))
    payload = rng.choice((1, 4, 5, 6, 45, 47, 137, 144, rng.randrange(256)))
    body = rng.randbytes(rng.choice((1, 3, 5, 16, 24)))
    return b"\x06" + escaped(bytes([payload, len(body)]) + body + b"\x80")


def _outgrow(stream: Stream, seeds: Seeds, rng: random.Random) -> None:
    """Pictures of one packet said to be of another size."""
    at = rng.randrange(len(stream.packets))
    old = stream.packets[at]
    if stream.codec != "h264":
        _recode(stream, seeds, rng)
        return
    columns, rows = (rng.choice((1, 2, 3, 4, 5, 6, 8, 20, 64, 300)) for _ in range(2))
    stream.packets[at] = replace(old, data=with_start_codes([
        sps_with_size(unit, columns, rows) if unit[0] & 31 == 7 else unit
        for unit in nal_units(old.data)]))


def _damage(stream: Stream, seeds: Seeds, rng: random.Random) -> None:
    at = rng.randrange(len(stream.packets))
    old = stream.packets[at]
    stream.packets[at] = replace(old, data=with_flips(old.data, rng))


_STREAM_CHANGES: tuple[Callable[[Stream, Seeds, random.Random], None], ...] = (
    _splice, _splice, _splice, _drop, _double, _swap, _retime, _retime, _relabel, _merge, _shorten,
    _resize, _resize, _recode, _recode, _recode, _recode, _reunite, _reunite, _outgrow, _damage,
    _damage)


# ---- the container

def _container_changed(data: bytes, rng: random.Random) -> bytes:
    units = parse(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        places = flat(units)
        if not places:
            break
        here, at = rng.choice(places)
        rng.choice(_UNIT_CHANGES)(units, here, at, rng)
    return to_bytes(units)


def _drop_unit(units: list[Unit], here: list[Unit], at: int, rng: random.Random) -> None:
    del here[at]


def _double_unit(units: list[Unit], here: list[Unit], at: int, rng: random.Random) -> None:
    here.insert(at, here[at])


def _move_unit(units: list[Unit], here: list[Unit], at: int, rng: random.Random) -> None:
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
    _drop_unit, _double_unit, _move_unit, _belie, _edit, _edit, _edit, _edit)


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
            changed[at : at + length] = number.to_bytes(length, rng.choice(("big", "little")))
        elif how == 5:
            changed[at:at] = rng.randbytes(rng.randint(1, 8))
        elif how == 6:
            del changed[at : at + rng.randint(1, 16)]
        elif rng.random() < 0.3:
            del changed[at:]
    return bytes(changed)
