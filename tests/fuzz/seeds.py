"""What is mutated: tiny streams of many kinds, made here, as packets and as files."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

CORPUS = Path(__file__).resolve().parent / "corpus"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "cases"
LARGEST_BYTES = 64_000
FORMATS = ("mp4", "avi", "mpegts", "flv", "matroska", "mov", "mpeg", "h264")


@dataclass(frozen=True)
class Chunk:
    """A packet."""

    content: bytes
    pts: int
    dts: int
    is_keyframe: bool


@dataclass(frozen=True)
class Elementary:
    """A coded stream, apart from any container."""

    name: str
    codec: str
    chunks: tuple[Chunk, ...]
    file: bytes = field(repr=False)
    """NUT, that its header and settings are read from."""


@dataclass(frozen=True)
class _Recipe:
    codec: str
    size_px: tuple[int, int] = (64, 48)
    frames: int = 7
    gop: int = 4
    b_frames: int = 0
    options: Mapping[str, str] = field(default_factory=dict)


_RECIPES = (
    _Recipe("libx264", options={"refs": "1"}),
    _Recipe("libx264", size_px=(96, 64), options={"refs": "3"}),
    _Recipe("libx264", size_px=(34, 50), gop=12, options={"refs": "4", "partitions": "all"}),
    _Recipe("libx264", b_frames=2, options={"refs": "2"}),
    _Recipe("libx264", size_px=(48, 80), options={"x264-params": "slices=3:refs=2"}),
    _Recipe("libx264", gop=12, options={"x264-params": "intra-refresh=1"}),
    _Recipe("libx264", size_px=(64, 64), options={"x264-params": "interlaced=1:tff=1"}),
    _Recipe("libx264", size_px=(64, 64), b_frames=2, options={"x264-params": "open-gop=1"}),
    _Recipe("libx264", size_px=(128, 96), frames=14, gop=13, options={"preset": "ultrafast"}),
    _Recipe("libx264", size_px=(16, 16)),
    _Recipe("mpeg4"),
    _Recipe("mpeg4", size_px=(96, 64), b_frames=2, gop=7),
    _Recipe("mpeg4", size_px=(48, 32), gop=12, frames=13),
    _Recipe("mpeg4", options={"mpeg_quant": "1", "flags": "+mv4+aic"}),
    _Recipe("mpeg2video"),
    _Recipe("mpeg2video", size_px=(96, 64), b_frames=2),
    _Recipe("mpeg2video", options={"flags": "+ildct+ilme"}),
    _Recipe("mpeg1video", size_px=(48, 32)),
    _Recipe("flv"),
    _Recipe("flv", size_px=(96, 64)),
    _Recipe("h263p", size_px=(96, 64)),
    _Recipe("wmv2"),
    _Recipe("libvpx", options={"deadline": "realtime", "cpu-used": "16"}),
    _Recipe("libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
    _Recipe("libx265", options={"preset": "ultrafast", "x265-params": "log-level=none"}),
    _Recipe("mjpeg"),
)


@dataclass(frozen=True)
class Seeds:
    """All that inputs are made from."""

    streams: tuple[Elementary, ...]
    files: tuple[bytes, ...]
    """Of the corpus, and of the cases where they are."""


def make_seeds() -> Seeds:
    """Encode what this FFmpeg can; the same streams every time."""
    known = [recipe for recipe in _RECIPES if recipe.codec in av.codecs_available]
    streams = tuple(_encode(number, recipe) for number, recipe in enumerate(known))
    paths = [path for folder in (CORPUS, SHARED) if folder.is_dir()
             for path in sorted(folder.rglob("*")) if path.suffix not in
             (".md", ".sh", ".py", ".json") and path.is_file()
             and path.stat().st_size <= LARGEST_BYTES]
    return Seeds(streams, tuple(path.read_bytes() for path in paths))


def _encode(number: int, recipe: _Recipe) -> Elementary:
    rng = np.random.default_rng(number)
    width, height = recipe.size_px
    texture = rng.integers(0, 256, (height // 8 + 8, width // 8 + 8, 3), np.uint8)
    texture = texture.repeat(8, axis=0).repeat(8, axis=1)
    content = io.BytesIO()
    with av.open(content, "w", format="nut") as container:
        stream = container.add_stream(recipe.codec, rate=Fraction(25))
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if recipe.codec == "mjpeg" else "yuv420p"
        context: Any = stream.codec_context
        context.gop_size, context.max_b_frames, context.thread_count = (
            recipe.gop, recipe.b_frames, 1)
        options = dict(recipe.options)
        if recipe.codec == "libx264":
            options = {"preset": "veryfast", "crf": "30", "sc_threshold": "0", **options}
        stream.options = options
        for t in range(recipe.frames):
            at = 3 * t % 32
            picture = np.ascontiguousarray(texture[at // 2:at // 2 + height, at:at + width])
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file = content.getvalue()
    return Elementary(f"{number}-{recipe.codec}", recipe.codec, tuple(_chunks(file)), file)


def _chunks(file: bytes) -> Sequence[Chunk]:
    with av.open(io.BytesIO(file)) as container:
        return [Chunk(bytes(packet), packet.pts or 0, packet.dts or 0, packet.is_keyframe)
                for packet in container.demux(video=0) if packet.size]
