"""Elementary streams as packets that can be changed, and tiny ones of every make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.codec.context import Flags

from tests.clips import moving_scene
from tests.fuzz.bits import nal_units, with_start_codes
from tests.video.sps import cropped_sps

# Its look ahead reads beyond pictures as small as these, and decides by what it finds there.
EXACT = "threads=1:asm=0:rc-lookahead=0:sync-lookahead=0:mbtree=0"
"""What makes x264 write the same stream every time."""
TICKS = 3600
"""Ticks of 1/90000 s from frame to frame."""


@dataclass(frozen=True)
class Packet:
    """One packet: H.264 and HEVC with start codes, others as they are."""

    data: bytes
    pts: int
    dts: int
    is_key: bool
    header: bytes | None = None
    """New codec settings that come with it, where the container can say so."""


@dataclass
class Stream:
    """One video stream, as a container would hold it."""

    codec: str
    width: int
    height: int
    header: bytes
    """Codec settings; H.264: parameter sets with start codes."""
    packets: list[Packet] = field(default_factory=list)

    def copy(self) -> Stream:
        return replace(self, packets=list(self.packets))


def seed_streams() -> list[Stream]:
    """One tiny stream of every make; always the same ones."""
    return [_encoded(number, *recipe) for number, recipe in enumerate(_recipes())
            if recipe[0] in av.codecs_available]


def _recipes() -> Iterator[tuple[str, tuple[int, int], int, dict[str, Any]]]:
    """Encoder, size, frames and settings."""
    sizes = [(64, 48), (96, 64), (48, 32), (16, 16), (128, 96), (50, 38)]
    h264 = ["bframes=0:ref=1", "bframes=0:ref=3", "bframes=0:ref=4:weightp=2:me=hex",
            "bframes=2:b-adapt=0", "bframes=3:b-adapt=0:b-pyramid=normal:ref=4",
            "bframes=0:ref=1:slices=3", "bframes=0:ref=2:intra-refresh=1",
            "bframes=0:ref=1:interlaced=1", "bframes=2:b-adapt=0:open-gop=1",
            "bframes=0:ref=2:cabac=0:no-deblock=1", "bframes=0:ref=1:keyint=250"]
    for at, params in enumerate(h264):
        for turn in range(2):
            yield "libx264", sizes[(at + 2 * turn) % 6], 6 + 8 * turn, {"params": params}
    yield "libx264", (64, 48), 6, {"params": "bframes=0:ref=1", "crop": (16, 8)}
    yield "libx264", (96, 64), 8, {"params": "bframes=0:ref=2", "crop": (4, 2)}
    yield "libx264", (64, 48), 4, {"params": "bframes=0:ref=1", "pix_fmt": "yuv422p"}
    yield "libx264", (16, 16), 2, {"params": "bframes=0:ref=1"}
    for codec in ("mpeg4", "mpeg2video"):
        for at, settings in enumerate((
                {}, {"bf": 2}, {"flags": "+ildct+ilme"},
                {"flags": "+mv4+qpel"} if codec == "mpeg4" else {"intra_dc_precision": "1"})):
            yield codec, sizes[at], 8, settings
    for codec, size in (("mpeg1video", (64, 48)), ("mpeg1video", (96, 64)), ("flv", (64, 48)),
                        ("flv", (48, 32)), ("h263", (128, 96)), ("h263p", (64, 48)),
                        ("msmpeg4v2", (64, 48)), ("msmpeg4", (48, 32)), ("wmv1", (64, 48)),
                        ("wmv2", (64, 48)), ("mjpeg", (48, 32)), ("libvpx", (64, 48)),
                        ("libx265", (64, 64))):
        yield codec, size, 6, {"bf": 2} if size == (96, 64) else {}


def _encoded(
    number: int, encoder: str, size: tuple[int, int], num_frames: int, settings: dict[str, Any]
) -> Stream:
    settings = dict(settings)
    params, crop = settings.pop("params", None), settings.pop("crop", None)
    context = av.CodecContext.create(encoder, "w")
    context.width, context.height = size
    is_jpeg = encoder == "mjpeg"
    context.pix_fmt = settings.pop("pix_fmt", "yuvj420p" if is_jpeg else "yuv420p")
    context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
    context.thread_count, context.gop_size = 1, 4
    context.max_b_frames = settings.pop("bf", 0)
    options = {"flags": settings.pop("flags"), **settings} if "flags" in settings else settings
    if encoder == "libx264":
        options = {"preset": "veryfast", "crf": "24", "x264-params":
                   f"keyint=5:scenecut=0:{params}:{EXACT}", **options}
    elif encoder == "libx265":
        options = {"preset": "ultrafast", "x265-params":
                   "log-level=none:pools=none:frame-threads=1:bframes=0:keyint=4"}
    elif encoder == "libvpx":
        options = {"deadline": "good", "cpu-used": "4"}  # realtime goes by the clock
    else:
        context.flags |= Flags.qscale
        context.global_quality = 4 * 118
        options = {"sc_threshold": "1000000000", **options}
    context.options = options
    packets = []
    for t, picture in enumerate([*moving_scene(num_frames, size, seed=number), None]):
        packets += context.encode(None if picture is None else frame_of(picture, t))
    return _stream(context.codec.canonical_name, size, packets, crop)


def frame_of(picture: Any, t: int) -> av.VideoFrame:
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
    frame.pts, frame.time_base = t, Fraction(1, 25)
    return frame


def _stream(
    codec: str, size: tuple[int, int], packets: list[Any], crop: tuple[int, int] | None
) -> Stream:
    made = [Packet(bytes(p), p.pts * TICKS, p.dts * TICKS, bool(p.is_keyframe)) for p in packets]
    if crop is not None:
        made = [replace(p, data=_cropped(p.data, *crop)) for p in made]
    return Stream(codec, *size, header_of(codec, made[0].data), made)


def header_of(codec: str, data: bytes) -> bytes:
    """The codec settings that a first packet holds."""
    if codec == "h264":
        return with_start_codes([u for u in nal_units(data) if u[0] & 31 in (7, 8)])
    if codec == "mpeg4":
        return data[: max(data.find(b"\x00\x00\x01\xb6"), 0)]
    return b""


def _cropped(data: bytes, left: int, top: int) -> bytes:
    return with_start_codes([
        cropped_sps(unit, (left // 2, 0, top // 2, 0)) if unit[0] & 31 == 7 else unit
        for unit in nal_units(data)])
