"""Containers around streams, as small as can be, and without any check of what goes into them.

FFmpeg's own muxers mend or refuse what is wrong, which here is the point.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from itertools import pairwise

from tests.fuzz.bits import nal_units
from tests.fuzz.streams import TICKS, Packet, Stream

Muxer = Callable[[Sequence[Stream], random.Random], bytes]

_FOURCC = {"h264": b"H264", "hevc": b"HEVC", "mpeg4": b"XVID", "mpeg2video": b"mpg2",
           "mpeg1video": b"mpg1", "h263": b"H263", "h263p": b"U263", "flv1": b"FLV1",
           "msmpeg4v2": b"MP42", "msmpeg4v3": b"DIV3", "wmv1": b"WMV1", "wmv2": b"WMV2",
           "mjpeg": b"MJPG", "vp8": b"VP80"}


def raw(streams: Sequence[Stream], rng: random.Random | None = None) -> bytes:
    return b"".join(packet.data for packet in streams[0].packets)


def _sized(unit: bytes) -> bytes:
    return len(unit).to_bytes(4, "big") + unit


def _length_prefixed(stream: Stream, packet: Packet) -> bytes:
    """Data as MP4, FLV and Matroska hold them."""
    if stream.codec not in ("h264", "hevc"):
        return packet.data
    return b"".join(map(_sized, nal_units(packet.data)))


def avcc(header: bytes) -> bytes:
    """H.264 parameter sets as an AVCDecoderConfigurationRecord."""
    units = list(nal_units(header))
    sets = [[u for u in units if u[0] & 31 == kind][:31] for kind in (7, 8)]
    start = sets[0][0][1:4].ljust(3, b"\0") if sets[0] else b"\x42\x00\x1e"
    out = b"\x01" + start + b"\xff" + bytes([0xE0 | len(sets[0])])
    for group in sets:
        if group is sets[1]:
            out += bytes([len(group)])
        out += b"".join(struct.pack(">H", len(u) & 0xFFFF) + u for u in group)
    return out


def _interleaved(streams: Sequence[Stream]) -> list[tuple[int, Packet]]:
    """Packets with the number of their stream."""
    rows = [(packet.dts, at, packet) for at, stream in enumerate(streams)
            for packet in stream.packets]
    return [(at, packet) for _, at, packet in sorted(rows, key=lambda row: row[0])] \
        if len(streams) > 1 else [(at, packet) for _, at, packet in rows]


# -- MP4 -----------------------------------------------------------------------------------------

def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I", 8 + len(body)) + kind + body


def _u32(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *(value & 0xFFFFFFFF for value in values))


_MATRIX = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_MATRICES = (_MATRIX, _MATRIX, (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 0x40000000),
             (-0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000), (0,) * 9,
             (0x10000, 0x8000, 0, -0x8000, 0x10000, 0, 0, 0, 0x40000000))


def mp4(streams: Sequence[Stream], rng: random.Random) -> bytes:
    start = box(b"ftyp", b"isom", _u32(512), b"isomavc1")
    order = _interleaved(streams)
    chunks: list[list[tuple[int, int]]] = [[] for _ in streams]
    media, at = [], len(start) + 8
    for number, packet in order:
        data = _length_prefixed(streams[number], packet)
        chunks[number].append((at, len(data)))
        media.append(data)
        at += len(data)
    scale = rng.choice((90_000, 90_000, 90_000, 1, 25, 0, 1 << 31))
    traks = [_trak(number, stream, chunks[number], scale, rng)
             for number, stream in enumerate(streams)]
    length = rng.choice((len(order) * TICKS, len(order) * TICKS, 0, (1 << 32) - 1))
    head = box(b"mvhd", _u32(0, 0, 0, scale, length, 0x10000, 0x1000000, 0, 0, *_MATRIX,
                             0, 0, 0, 0, 0, 0, len(streams) + 1))
    return start + box(b"mdat", *media) + box(b"moov", head, *traks)


def _trak(
    number: int, stream: Stream, chunks: list[tuple[int, int]], scale: int, rng: random.Random
) -> bytes:
    packets = stream.packets
    length = len(packets) * TICKS
    matrix = rng.choice(_MATRICES) if rng.random() < 0.3 else _MATRIX
    tkhd = box(b"tkhd", _u32(7, 0, 0, number + 1, 0, length, 0, 0, 0, 0, *matrix,
                             stream.width << 16, stream.height << 16))
    edits = box(b"edts", box(b"elst", _u32(0, 1, length, rng.choice((0, TICKS, 2 * TICKS, -1)),
                                           0x10000))) if rng.random() < 0.2 else b""
    steps = [b.dts - a.dts for a, b in pairwise(packets)] + [TICKS]
    headers = [stream.header]
    entry_of: list[int] = []
    for packet in packets:
        if packet.header is not None:
            headers.append(packet.header)
        entry_of.append(len(headers))
    stbl = box(
        b"stbl", box(b"stsd", _u32(0, len(headers)), *(_entry(stream, h) for h in headers)),
        box(b"stts", _u32(0, len(steps)), *(_u32(1, step) for step in steps)),
        box(b"ctts", _u32(1 << 24, len(packets)), *(_u32(1, p.pts - p.dts) for p in packets)),
        box(b"stss", _u32(0, sum(p.is_key for p in packets)),
            *(_u32(at + 1) for at, p in enumerate(packets) if p.is_key)),
        box(b"stsc", _u32(0, len(packets)),
            *(_u32(at + 1, 1, entry) for at, entry in enumerate(entry_of))),
        box(b"stsz", _u32(0, 0, len(chunks)), *(_u32(size) for _, size in chunks)),
        box(b"stco", _u32(0, len(chunks)), *(_u32(place) for place, _ in chunks)))
    minf = box(b"minf", box(b"vmhd", _u32(1, 0, 0)),
               box(b"dinf", box(b"dref", _u32(0, 1), box(b"url ", _u32(1)))), stbl)
    mdia = box(b"mdia", box(b"mdhd", _u32(0, 0, 0, scale, length, 0x55C40000)),
               box(b"hdlr", _u32(0, 0), b"vide", bytes(12), b"v\0"), minf)
    return box(b"trak", tkhd, edits, mdia)


def _entry(stream: Stream, header: bytes) -> bytes:
    kind, settings = {
        "h264": (b"avc1", box(b"avcC", avcc(header))),
        "mpeg4": (b"mp4v", _esds(0x20, header)), "mpeg2video": (b"mp4v", _esds(0x61, b"")),
        "mpeg1video": (b"mp4v", _esds(0x6A, b"")), "mjpeg": (b"jpeg", b""),
        "h263": (b"s263", b""), "hevc": (b"hev1", b""), "vp8": (b"vp08", b""),
    }.get(stream.codec, (_FOURCC[stream.codec], b""))
    return box(kind, bytes(6), b"\0\1", bytes(16), struct.pack(">HH", stream.width, stream.height),
               _u32(0x480000, 0x480000, 0), b"\0\1", bytes(32), b"\x00\x18\xff\xff", settings)


def _descriptor(tag: int, body: bytes) -> bytes:
    return bytes([tag, 0x80 | len(body) >> 7 & 0x7F, len(body) & 0x7F]) + body


def _esds(kind: int, header: bytes) -> bytes:
    inner = bytes([kind, 0x11, 0, 0, 0]) + _u32(200_000, 200_000)
    if header:
        inner += _descriptor(5, header)
    return box(b"esds", _u32(0), _descriptor(3, b"\0\1\0" + _descriptor(4, inner)
                                             + _descriptor(6, b"\2")))


# -- FLV -----------------------------------------------------------------------------------------

def flv(streams: Sequence[Stream], rng: random.Random) -> bytes:
    stream = streams[0]
    out = [b"FLV\x01\x01\x00\x00\x00\x09\x00\x00\x00\x00"]
    codec = {"h264": 7, "flv1": 2, "mpeg4": 9}.get(stream.codec, 2)
    if codec == 7:
        out.append(_flv_tag(0, b"\x17\x00\x00\x00\x00" + avcc(stream.header)))
    for packet in stream.packets:
        if packet.header is not None and codec == 7:
            out.append(_flv_tag(packet.dts // 90, b"\x17\x00\x00\x00\x00" + avcc(packet.header)))
        head = bytes([(1 if packet.is_key else 2) << 4 | codec])
        if codec == 7:
            head += b"\x01" + ((packet.pts - packet.dts) // 90 & 0xFFFFFF).to_bytes(3, "big")
        out.append(_flv_tag(packet.dts // 90, head + _length_prefixed(stream, packet)))
    return b"".join(out)


def _flv_tag(time_ms: int, body: bytes) -> bytes:
    time_ms &= 0xFFFFFFFF
    head = (b"\x09" + (len(body) & 0xFFFFFF).to_bytes(3, "big")
            + (time_ms & 0xFFFFFF).to_bytes(3, "big") + bytes([time_ms >> 24]) + bytes(3))
    return head + body + struct.pack(">I", 11 + len(body))


# -- MPEG-TS and MPEG-PS -------------------------------------------------------------------------

_TS_KINDS = {"h264": 0x1B, "hevc": 0x24, "mpeg4": 0x10, "mpeg2video": 2, "mpeg1video": 1}


def _crc(data: bytes) -> bytes:
    value = 0xFFFFFFFF
    for byte in data:
        value ^= byte << 24
        for _ in range(8):
            value = value << 1 ^ 0x04C11DB7 if value & 1 << 31 else value << 1
        value &= 0xFFFFFFFF
    return _u32(value)


_TABLES: dict[bytes, bytes] = {}


def _table(pid: int, kind: int, body: bytes) -> bytes:
    section = bytes([kind]) + struct.pack(">H", 0xB000 | len(body) + 9) + b"\0\1\xc1\0\0" + body
    if section not in _TABLES:
        _TABLES[section] = section + _crc(section)
    return (struct.pack(">BHB", 0x47, 0x4000 | pid, 0x10) + b"\0" + _TABLES[section]).ljust(
        188, b"\xff")


def _program(kinds: Sequence[int]) -> bytes:
    rows = b"".join(bytes([kind]) + struct.pack(">HH", 0xE100 + at, 0xF000)
                    for at, kind in enumerate(kinds))
    return _table(0, 0, b"\0\1\xf0\x00") + _table(0x1000, 2, b"\xe1\x00\xf0\x00" + rows)


def _stamp(mark: int, ticks: int) -> bytes:
    ticks &= (1 << 33) - 1
    return struct.pack(">BHH", mark << 4 | ticks >> 29 & 14 | 1, ticks >> 14 & 0xFFFE | 1,
                       ticks << 1 & 0xFFFE | 1)


def _pes(packet: Packet, *, is_mpeg1: bool = False) -> bytes:
    stamps = _stamp(3, packet.pts) + _stamp(1, packet.dts)
    body = packet.data
    if is_mpeg1:
        return b"\x00\x00\x01\xe0" + struct.pack(">H", len(body) + 10 & 0xFFFF) + stamps + body
    size = len(body) + 13
    return (b"\x00\x00\x01\xe0" + struct.pack(">H", size if size < 65536 else 0)
            + b"\x80\xc0\x0a" + stamps + body)


def ts(streams: Sequence[Stream], rng: random.Random) -> bytes:
    kinds = [_TS_KINDS.get(stream.codec, 0x1B) for stream in streams]
    is_late = len(streams) > 1 and rng.random() < 0.5
    out = [_program(kinds[:1] if is_late else kinds)]
    counters = [0] * len(streams)
    known = 1 if is_late else len(streams)
    for at, (number, packet) in enumerate(_interleaved(streams)):
        if number >= known:
            if at < 8:
                continue
            known = len(streams)
            out.append(_program(kinds))
        out.append(_ts_packets(0x100 + number, _pes(packet), packet, counters, number))
    return b"".join(out)


def _ts_packets(pid: int, data: bytes, packet: Packet, counters: list[int], number: int) -> bytes:
    out, is_first = [], True
    while data:
        field = b""
        if is_first:
            clock = packet.dts & (1 << 33) - 1
            field = (bytes([0x50 if packet.is_key else 0x10]) + struct.pack(">I", clock >> 1)
                     + bytes([(clock & 1) << 7 | 0x7E, 0]))
        room = 184 - (len(field) + 1 if field else 0)
        taken, data = data[:room], data[room:]
        missing = room - len(taken)
        if missing:
            if field:
                field += b"\xff" * missing
            else:
                field = b"" if missing == 1 else b"\0" + b"\xff" * (missing - 2)
        has_field = bool(field) or missing > 0
        head = struct.pack(">BHB", 0x47, (0x4000 if is_first else 0) | pid,
                           (0x30 if has_field else 0x10) | counters[number] & 15)
        out.append(head + (bytes([len(field)]) + field if has_field else b"") + taken)
        counters[number] += 1
        is_first = False
    return b"".join(out)


def ps(streams: Sequence[Stream], rng: random.Random) -> bytes:
    is_mpeg1 = streams[0].codec == "mpeg1video"
    out = []
    for packet in streams[0].packets:
        clock = max(packet.dts, 0)
        if is_mpeg1:
            out.append(b"\x00\x00\x01\xba" + _stamp(2, clock) + b"\x80\x1b\x01")
        else:
            low = clock & (1 << 33) - 1
            word = (1 << 46 | (low >> 30 & 7) << 43 | 1 << 42 | (low >> 15 & 0x7FFF) << 27
                    | 1 << 26 | (low & 0x7FFF) << 11 | 1 << 10 | 1)
            out.append(b"\x00\x00\x01\xba" + word.to_bytes(6, "big") + b"\x01\x89\xc3\xf8")
        out.append(_pes(packet, is_mpeg1=is_mpeg1))
    return b"".join(out) + b"\x00\x00\x01\xb9"


# -- AVI -----------------------------------------------------------------------------------------

def chunk(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("<I", len(body)) + body + b"\0" * (len(body) & 1)


def avi(streams: Sequence[Stream], rng: random.Random) -> bytes:
    rate = rng.choice((25, 25, 25, 25, 1, 0, 30_000, 0xFFFFFFFF))
    lists = [chunk(b"LIST", b"strl" + _avi_header(stream, rate)) for stream in streams]
    first = streams[0]
    avih = chunk(b"avih", struct.pack(
        "<14I", 40_000, 0, 0, 0x910, len(first.packets), 0, len(streams), 0,
        first.width, first.height, 0, 0, 0, 0))
    movie, index, at = [], [], 4
    for number, packet in _interleaved(streams):
        name = b"%02ddc" % number
        movie.append(chunk(name, packet.data))
        index.append(name + struct.pack("<III", 16 if packet.is_key else 0, at, len(packet.data)))
        at += len(movie[-1])
    body = (chunk(b"LIST", b"hdrl" + avih + b"".join(lists))
            + chunk(b"LIST", b"movi" + b"".join(movie)) + chunk(b"idx1", b"".join(index)))
    return chunk(b"RIFF", b"AVI " + body)


def bitmap_header(stream: Stream, extra: bytes) -> bytes:
    return struct.pack("<IiiHH4sIIIII", 40 + len(extra), stream.width, stream.height, 1, 24,
                       _FOURCC[stream.codec], 0, 0, 0, 0, 0) + extra


def _avi_header(stream: Stream, rate: int) -> bytes:
    extra = stream.header if stream.codec == "mpeg4" else \
        b"\x28\x03\x21\x00" if stream.codec == "wmv2" else b""
    strh = struct.pack("<4s4sIHHIIIIIIIIHHHH", b"vids", _FOURCC[stream.codec], 0, 0, 0, 0, 1, rate,
                       0, len(stream.packets), 0, 0xFFFFFFFF, 0, 0, 0,
                       stream.width, stream.height)
    return chunk(b"strh", strh) + chunk(b"strf", bitmap_header(stream, extra))


# -- Matroska ------------------------------------------------------------------------------------

_MKV_CODECS = {"h264": b"V_MPEG4/ISO/AVC", "mpeg4": b"V_MPEG4/ISO/ASP", "mpeg1video": b"V_MPEG1",
               "mpeg2video": b"V_MPEG2", "mjpeg": b"V_MJPEG", "vp8": b"V_VP8"}


def element(number: int, body: bytes | int) -> bytes:
    """An EBML element with a length of four bytes."""
    if isinstance(body, int):
        body = body.to_bytes(max(1, (body.bit_length() + 7) // 8), "big")
    return (number.to_bytes((number.bit_length() + 7) // 8, "big")
            + (0x10000000 | len(body)).to_bytes(4, "big") + body)


def mkv(streams: Sequence[Stream], rng: random.Random) -> bytes:
    head = element(0x1A45DFA3, element(0x4282, b"matroska") + element(0x4287, 4)
                   + element(0x4285, 2))
    scale = rng.choice((1_000_000, 1_000_000, 1_000_000, 1, 1 << 40))
    info = element(0x1549A966, element(0x2AD7B1, scale) + element(
        0x4489, struct.pack(">d", rng.choice((240.0, 240.0, 0.0, 1e300, float("nan"))))))
    tracks = element(0x1654AE6B, b"".join(
        element(0xAE, _mkv_track(number, stream)) for number, stream in enumerate(streams)))
    blocks = []
    for number, packet in _interleaved(streams):
        time = max(-32768, min(packet.pts // 90, 32767))
        data = _length_prefixed(streams[number], packet)
        blocks.append(element(0xA3, bytes([0x81 + number]) + struct.pack(">h", time)
                              + (b"\x80" if packet.is_key else b"\x00") + data))
    cluster = element(0x1F43B675, element(0xE7, 0) + b"".join(blocks))
    return head + element(0x18538067, info + tracks + cluster)


def _mkv_track(number: int, stream: Stream) -> bytes:
    codec = _MKV_CODECS.get(stream.codec)
    private = avcc(stream.header) if stream.codec == "h264" else stream.header
    if codec is None:
        codec, private = b"V_MS/VFW/FOURCC", bitmap_header(stream, b"")
    return (element(0xD7, number + 1) + element(0x73C5, number + 1) + element(0x83, 1)
            + element(0x86, codec) + (element(0x63A2, private) if private else b"")
            + element(0x23E383, 40_000_000)
            + element(0xE0, element(0xB0, stream.width) + element(0xBA, stream.height)))


MUXERS: dict[str, Muxer] = {"raw": raw, "mp4": mp4, "flv": flv, "ts": ts, "ps": ps, "avi": avi,
                            "mkv": mkv}
HOLDS: dict[str, tuple[str, ...]] = {
    "h264": ("mp4", "mp4", "ts", "flv", "mkv", "avi", "raw", "raw"),
    "hevc": ("ts", "raw"), "mpeg4": ("avi", "avi", "mp4", "mkv", "ts", "raw"),
    "mpeg2video": ("ps", "ts", "mp4", "mkv", "raw"), "mpeg1video": ("ps", "ts", "mkv", "raw"),
    "flv1": ("flv", "flv", "avi"), "h263": ("raw", "mp4", "avi"), "mjpeg": ("avi", "mkv", "mp4"),
    "vp8": ("mkv", "avi"),
}
"""Containers that a codec is found in; others are only found in AVI and Matroska."""
ELSEWHERE = ("avi", "avi", "mkv")
