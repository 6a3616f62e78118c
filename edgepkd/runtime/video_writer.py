"""Writes a video again with something drawn on its frames: same pictures, same times, no sound.

Frames are decoded, drawn on in their Y, U and V planes, and encoded again, H.264 or MPEG-4 by the
file's suffix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from edgepkd.errors import DecodeError
from edgepkd.video.decoder import converting, crop_exactly
from edgepkd.video.limits import DEFAULT_LIMITS, Limits
from edgepkd.video.orientation import NO_DISPLAY, Orientation, display_of
from edgepkd.video.oversize import check_refused, codec_options
from edgepkd.video.source import Source, open_video, shown_source
from edgepkd.video.timeline import DEFAULT_FPS, Timeline, usable_time_base
from edgepkd.video.video_input import VideoInput

Bytes = NDArray[np.uint8]
Draw = Callable[[list[Bytes], float], None]
"""Draws on Y [H, W], U and V [H / 2, W / 2] of the frame at a time in seconds, in place."""
CODECS = {".mp4": "libx264", ".m4v": "libx264", ".mov": "libx264", ".mkv": "libx264",
          ".avi": "mpeg4"}
FORMATS = {".mp4": "mp4", ".m4v": "ipod", ".mov": "mov", ".mkv": "matroska", ".avi": "avi"}
MAX_ERRORS_IN_A_ROW = 100


def redraw(
    source: Source, path: Path, draw: Draw, *, suffix: str, fps: float | None,
    timed: bool = True, until_s: float | None = None, source_fps: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Iterator[float]:
    """Write `source` to `path` as a file with `suffix`, with `draw` called on every frame.

    Frames show at their own times, or at a constant `fps` where these are missing or not `timed`;
    those from `until_s` on are left out. `source_fps` and `limits` are those of `open_video`.
    Yields seconds done; `path` is whole when the iterator ends.

    Raises:
        OSError: it cannot be written. DecodeError: no frame could be decoded.
    """
    written = 0.0
    with (open_video(source, fps=source_fps, limits=limits) as video,
          av.open(f"file:{path}", "w", format=FORMATS[suffix]) as container):
        writer = VideoWriter(container, CODECS[suffix], fps=fps or 25.0)
        for frame, time_s in _timed_frames(video, fps=fps, timed=timed):
            if until_s is not None and time_s >= until_s:
                break
            writer.write(frame, time_s, draw)
            if time_s >= written + 0.5:
                written = time_s
                yield time_s
        writer.finish(source)


def _timed_frames(
    video: VideoInput, *, fps: float | None, timed: bool
) -> Iterator[tuple[VideoFrame, float]]:
    """Frames, and seconds since the first one on the same clock as the clips'."""
    rate = Fraction(fps).limit_denominator(1001) if fps else DEFAULT_FPS
    timeline = Timeline(time_base=usable_time_base(video.stream.time_base, fps=rate), fps=rate)
    first: float | None = None
    for frame in _frames(video):
        ticks = timeline.place(frame.pts if timed else None)
        first = ticks if first is None else first
        yield frame, (ticks - first) * float(timeline.time_base)


def _frames(video: VideoInput) -> Iterator[VideoFrame]:
    """Every frame that decodes, in display order."""
    context = video.stream.codec_context
    context.options = codec_options(video.limits)
    context.thread_type = "SLICE"
    crop_exactly(context)
    errors = 0
    for packet in _and_flush(video):
        try:
            frames = context.decode(packet)
            errors = 0
        except av.FFmpegError as error:
            check_refused(context, packet, limits=video.limits, name=video.name)
            errors += 1
            if errors > MAX_ERRORS_IN_A_ROW:
                raise DecodeError(f"{video.name}: {errors} packets in a row do not decode."
                                  ) from error
            continue
        yield from frames


def _and_flush(video: VideoInput) -> Iterator[av.Packet[Any] | None]:
    yield from video.packets()
    yield None


class VideoWriter:
    """An encoder whose picture size is that of the first frame, after rotation, made even."""

    def __init__(self, container: OutputContainer, codec: str, *, fps: float) -> None:
        codec = codec if codec in av.codecs_available else "mpeg4"
        self._container = container
        self._rate = Fraction(fps).limit_denominator(1001)
        self._stream = cast(VideoStream, container.add_stream(codec, rate=self._rate))
        self._stream.pix_fmt = "yuv420p"
        self._stream.options = ({"crf": "20", "preset": "veryfast"} if codec == "libx264"
                                else {"flags": "+qscale", "global_quality": str(118 * 3)})
        # MPEG-4 counts time in at most 1/65535 s, AVI in frames; milliseconds fit the others.
        self._time_base = 1 / self._rate if codec == "mpeg4" else Fraction(1, 1000)
        self._stream.codec_context.time_base = self._time_base
        self._last_pts = -1
        self._display = NO_DISPLAY

    def write(self, frame: VideoFrame, time_s: float, draw: Draw) -> None:
        """Draw on one frame and encode it."""
        self._display = display_of(frame, before=self._display)
        planes = _planes(frame, self._display.orientation)
        height, width = planes[0].shape
        if self._last_pts < 0:
            self._stream.width, self._stream.height = width, height
        draw(planes, time_s)
        drawn = VideoFrame.from_ndarray(_packed(planes), format="yuv420p")
        if (width, height) != (self._stream.width, self._stream.height):
            with converting():
                drawn = drawn.reformat(width=self._stream.width, height=self._stream.height)
        self._last_pts = max(round(time_s / self._time_base), self._last_pts + 1)
        drawn.pts, drawn.time_base = self._last_pts, self._time_base
        self._container.mux(self._stream.encode(drawn))

    def finish(self, source: Source) -> None:
        """Write what the encoder still holds."""
        if self._last_pts < 0:
            raise DecodeError(f"{shown_source(source)} holds no frame that decodes; "
                              "nothing was saved.")
        self._container.mux(self._stream.encode(None))


def _planes(frame: VideoFrame, orientation: Orientation) -> list[Bytes]:
    """Y, U, V of `frame`, turned as it is looked at, cut to even sides (at least 2 x 2)."""
    width, height = max(2, frame.width & ~1), max(2, frame.height & ~1)
    if frame.format.name not in ("yuv420p", "yuvj420p") or (frame.width, frame.height) != (
            width, height):
        with converting():
            frame_420 = frame.reformat(width=width, height=height, format="yuv420p")
    else:
        frame_420 = frame
    flat = frame_420.to_ndarray().reshape(-1)
    luma, chroma = width * height, width * height // 4
    shapes = ((height, width), (height // 2, width // 2), (height // 2, width // 2))
    parts = np.split(flat[: luma + 2 * chroma], [luma, luma + chroma])
    return [orientation.turned(part.reshape(shape)).copy()
            for part, shape in zip(parts, shapes, strict=True)]


def _packed(planes: list[Bytes]) -> Bytes:
    """Planes as PyAV's yuv420p array [height * 3 / 2, width]."""
    width = planes[0].shape[1]
    return np.concatenate([plane.reshape(-1) for plane in planes]).reshape(-1, width)
