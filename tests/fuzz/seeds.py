"""What inputs are made from: tiny streams, and whole files as FFmpeg writes them."""

from __future__ import annotations

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from tests.clips import moving_scene
from tests.fuzz.streams import EXACT, Stream, frame_of, seed_streams

CORPUS = Path(__file__).resolve().parent / "corpus"
SHARED = Path(__file__).resolve().parents[3] / "shared" / "cases"
LARGEST_BYTES = 64_000
_H264 = {"crf": "24", "preset": "veryfast"}
_CLIPS = (
    ("mp4", "libx264", {**_H264, "x264-params": f"ref=2:bframes=0:{EXACT}"}),
    ("mov", "libx264", {**_H264, "x264-params": f"bframes=2:{EXACT}"}),
    ("mpegts", "libx264", {**_H264, "x264-params": f"ref=1:bframes=0:{EXACT}"}),
    ("flv", "libx264", {**_H264, "x264-params": f"ref=1:bframes=0:{EXACT}"}),
    ("matroska", "libx264", {**_H264, "x264-params": f"ref=3:bframes=0:{EXACT}"}),
    ("avi", "mpeg4", {}), ("mpeg", "mpeg2video", {}), ("3gp", "mpeg4", {}),
    ("webm", "libvpx", {"deadline": "good"}), ("asf", "wmv2", {}),
    ("matroska", "libx265", {"preset": "ultrafast", "x265-params": "log-level=none:pools=none"}),
    ("webm", "libvpx-vp9", {"deadline": "good"}), ("m4v", "mpeg4", {}),
)
"""Container, encoder, settings."""


@dataclass(frozen=True)
class Seeds:
    """All that inputs are made from."""

    streams: tuple[Stream, ...]
    files: tuple[bytes, ...]
    """As FFmpeg writes them, then the corpus, then the cases where they are."""


def make_seeds() -> Seeds:
    """Encode what this FFmpeg can; the same streams and files every time."""
    av.logging.set_level(None)
    files = [_clip(number, *clip) for number, clip in enumerate(_CLIPS)
             if clip[1] in av.codecs_available]
    found = [path for folder in (CORPUS, SHARED / "hostile") if folder.is_dir()
             for path in sorted(folder.iterdir()) if is_input(path)]
    return Seeds(tuple(seed_streams()), (*files, *(path.read_bytes() for path in found)))


def is_input(path: Path) -> bool:
    """Whether a file of a corpus is a video, small enough to be changed."""
    return (path.suffix not in (".md", ".sh", ".py", ".json") and path.is_file()
            and path.stat().st_size <= LARGEST_BYTES)


def _clip(number: int, kind: str, codec: str, options: dict[str, str]) -> bytes:
    content = io.BytesIO()
    # Without it, Matroska draws numbers of its own.
    with av.open(content, "w", format=kind, options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.gop_size, stream.codec_context.thread_count = 4, 1
        stream.options = options
        for t, picture in enumerate(moving_scene(7, (64, 48), seed=number)):
            container.mux(stream.encode(frame_of(picture, t)))
        container.mux(stream.encode(None))
    return content.getvalue()
