"""Shortcuts for the tests of this room: open a clip, read its GOPs, run the slow reference port."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.packet import Packet
from av.stream import Disposition
from numpy.typing import NDArray

from edgepkd.config import DecodeSpec
from edgepkd.video.decoder import CodecParams, codec_params_from_stream
from edgepkd.video.gop import Gop
from edgepkd.video.gop_reader import GopReader
from edgepkd.video.probe import StreamInfo, probe
from edgepkd.video.vectors import vector_words
from tests.clips import encode_clip, moving_scene

MV_DTYPE = np.dtype({
    "names": ["source", "w", "h", "src_x", "src_y", "dst_x", "dst_y", "flags",
              "motion_x", "motion_y", "motion_scale"],
    "formats": ["<i4", "u1", "u1", "<i2", "<i2", "<i2", "<i2", "<u8", "<i4", "<i4", "<u2"],
    "offsets": [0, 4, 5, 6, 8, 10, 12, 16, 24, 28, 32],
    "itemsize": 40,
})
"""AVMotionVector. Bytes 14, 15 and 34 to 39 are padding that nobody wrote: compare fields, never
raw bytes."""


def packets_of(path: Path) -> tuple[CodecParams, list[Packet[Any]]]:
    """Parameters and all packets of the first video stream."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        packets = [p for p in container.demux(stream) if p.dts is not None or p.size]
        return codec_params_from_stream(stream), packets


def reader_of(path: Path, spec: DecodeSpec | None = None, **changes: Any) -> GopReader:
    """A reader over the clip; `changes` are put into its parameters."""
    params, packets = packets_of(path)
    return GopReader(packets, params=replace(params, **changes), spec=spec)


def gops_of(path: Path, spec: DecodeSpec | None = None, **changes: Any) -> list[Gop]:
    return list(reader_of(path, spec, **changes))


def plain_frames(path: Path, *, nonref: bool = False) -> Iterator[av.VideoFrame]:
    """Frames as PyAV's own container decoding gives them, with vectors, one thread."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_type = "NONE"
        stream.codec_context.thread_count = 1
        stream.codec_context.flags2 |= av.codec.context.Flags2.export_mvs
        if nonref:
            stream.codec_context.skip_frame = "NONREF"
        yield from container.decode(stream)


def motion_vectors(frame: av.VideoFrame) -> NDArray[np.void]:
    """The exported vectors as a structured array of `MV_DTYPE` [n]; the view pins the frame.

    `dst` is the block's centre in this frame; the block comes from `dst + motion/motion_scale` in
    the reference.
    """
    return vector_words(frame).view(MV_DTYPE)


class CoviarPort:
    """CoViAR's loader as written there: a source map, copied block by block (paper.md 1.2)."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.here = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1)
        self.source = self.here.copy()

    def step(self, frame: av.VideoFrame) -> None:
        """Go on by one P-frame."""
        old, new = self.source, self.source.copy()
        for mv in motion_vectors(frame).tolist():
            source, w, h, src_x, src_y, dst_x, dst_y = mv[:7]
            if source >= 0 or (dst_x == src_x and dst_y == src_y):
                continue
            for j in range(-(h // 2), h // 2):
                for i in range(-(w // 2), w // 2):
                    if (self._inside(dst_x + i, dst_y + j)
                            and self._inside(src_x + i, src_y + j)):
                        new[dst_y + j, dst_x + i] = old[src_y + j, src_x + i]
        self.source = new

    def _inside(self, x: int, y: int) -> bool:
        return 0 <= x < self.width and 0 <= y < self.height

    def motion(self) -> NDArray[np.int64]:
        """[H, W, 2] (x - source_x, y - source_y), whole pixels."""
        return self.here - self.source

    def residual(self, now: NDArray[np.uint8], anchor: NDArray[np.uint8]) -> NDArray[np.int64]:
        """[H, W, 3] decoded frame minus anchor at the source map."""
        return now.astype(np.int64) - anchor[self.source[..., 1], self.source[..., 0]]


def cover_only(path: Path) -> Path:
    """A file of sound with a cover and no video."""
    with av.open(str(path), "w") as container:
        sound = container.add_stream("mp3" if path.suffix == ".mp3" else "aac", rate=44100)
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 96, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        picture = av.VideoFrame.from_ndarray(moving_scene(1)[0], format="rgb24")
        container.mux([*cover.encode(picture), *cover.encode(None)])
        for _ in range(20):
            frame = av.AudioFrame(format="s16p" if path.suffix == ".mp3" else "fltp",
                                  layout="stereo", samples=1024)
            frame.rate = 44100
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))
    return path


def look(tmp_path, name: str = "clip.mp4", num_frames: int = 40, **kw) -> StreamInfo:
    """What the probe says of a clip of a moving scene."""
    return probe(str(encode_clip(tmp_path / name, moving_scene(num_frames), **kw)))
