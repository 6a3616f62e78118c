"""Writes a video with each clip's answer drawn on its frames.

A second pass over the source: frames are decoded, a bar with the text is written into their Y, U
and V planes, and they are encoded again, H.264 or MPEG-4 by the file's suffix, without sound.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, cast

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from edgepkd.errors import DecodeError, MissingExtraError, StorageError, UsageError
from edgepkd.outputs import Output, check_outputs
from edgepkd.runtime.answers import ClipAnswer
from edgepkd.temporaries import TemporaryFile
from edgepkd.text import shown
from edgepkd.video.decoder import converting, crop_exactly
from edgepkd.video.limits import DEFAULT_LIMITS, Limits
from edgepkd.video.orientation import NO_DISPLAY, Orientation, display_of
from edgepkd.video.oversize import check_refused, codec_options
from edgepkd.video.source import STDIN, Source, VideoInput, is_live_source, open_video, shown_source
from edgepkd.video.source_list import source_files
from edgepkd.video.timeline import DEFAULT_FPS, Timeline, usable_time_base

if TYPE_CHECKING:
    from PIL import ImageFont

Bytes = NDArray[np.uint8]
CODECS = {".mp4": "libx264", ".m4v": "libx264", ".mov": "libx264", ".mkv": "libx264",
          ".avi": "mpeg4"}
FORMATS = {".mp4": "mp4", ".m4v": "ipod", ".mov": "mov", ".mkv": "matroska", ".avi": "avi"}
MAX_ERRORS_IN_A_ROW = 100


def check_target(
    out: Path, *, sources: Sequence[Source], model: Path, force: bool = False
) -> Output:
    """Refuse what cannot be written, before any work is done.

    Raises:
        UsageError: several sources or one that cannot be read twice, an unknown suffix, or a place
            where nothing may be written: see `check_outputs`.
    """
    if len(sources) != 1 or not _can_be_read_again(sources[0]):
        what = f"{len(sources)} sources" if len(sources) != 1 else shown_source(sources[0])
        raise UsageError(f"--save with {what}; allowed: exactly one video file.",
                         hint="The file is read a second time; run once for each file.")
    if out.suffix.lower() not in CODECS:
        raise UsageError(f"--save is {str(out)!r}; allowed suffixes: {', '.join(CODECS)}.")
    (target,) = check_outputs([("--save", out)], reads=[*source_files(sources), model],
                              force=force)
    if target.is_stream:
        raise UsageError(f"--save {out} cannot be written: it is a pipe or a device.",
                         hint="Name a file: a video is written back and forth.")
    return target


def _can_be_read_again(source: Source) -> TypeGuard[str | os.PathLike[str]]:
    return (isinstance(source, (str, os.PathLike)) and source != STDIN
            and not is_live_source(source))


def save_annotated(
    source: Source, answers: Sequence[ClipAnswer], out: Output, *,
    fps: float | None, timed: bool = True, until_s: float | None = None,
    source_fps: float | None = None, limits: Limits = DEFAULT_LIMITS,
) -> Iterator[float]:
    """Write `source` with `answers` drawn on it to `out`; yields seconds done.

    Frames show at their own times, or at a constant `fps` where these are missing or not `timed`;
    those from `until_s` on are left out. `source_fps` and `limits` are those of `open_video`.
    `out` appears when it is complete; on any error, or if the caller stops early, nothing is left.

    Raises:
        StorageError: it cannot be written. DecodeError: no frame could be decoded.
        MissingExtraError: Pillow is not installed.
    """
    written, suffix = 0.0, out.path.suffix.lower()
    try:
        with TemporaryFile(out.place) as temporary:
            with (open_video(source, fps=source_fps, limits=limits) as video,
                  av.open(f"file:{temporary.path}", "w", format=FORMATS[suffix]) as container):
                writer = _Writer(container, CODECS[suffix], fps=fps or 25.0)
                for frame, time_s in _timed_frames(video, fps=fps, timed=timed):
                    if until_s is not None and time_s >= until_s:
                        break
                    writer.write(frame, time_s, _answer_at(answers, time_s))
                    if time_s >= written + 0.5:
                        written = time_s
                        yield time_s
                writer.finish(source)
            temporary.commit(before=out.before)
    except (OSError, av.FFmpegError) as error:
        raise StorageError(f"{out.path} cannot be written: {error.strerror or error}.",
                           hint="Check the folder and the free space.") from error


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


def _answer_at(answers: Sequence[ClipAnswer], time_s: float) -> ClipAnswer | None:
    """The last clip that has begun at `time_s` (clips may overlap), unless it is over."""
    begun = [answer for answer in answers if answer.start_s <= time_s + 1e-6]
    if not begun:
        return None
    over = time_s >= begun[-1].end_s and begun[-1] is not answers[-1]
    return None if over else begun[-1]


class _Writer:
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
        self._bar: _Bar | None = None

    def write(self, frame: VideoFrame, time_s: float, answer: ClipAnswer | None) -> None:
        """Draw and encode one frame."""
        self._display = display_of(frame, before=self._display)
        planes = _planes(frame, self._display.orientation)
        height, width = planes[0].shape
        if self._last_pts < 0:
            self._stream.width, self._stream.height = width, height
        if answer is not None:
            # A stream of two recordings may change its size within one answer.
            if self._bar is None or not self._bar.fits(answer, width=width, height=height):
                self._bar = _Bar(answer, width=width, height=height)
            self._bar.draw(planes)
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


@dataclass(frozen=True)
class _Text:
    left: str
    right: str

    @classmethod
    def of(cls, answer: ClipAnswer) -> _Text:
        total = len(answer.segments_run) + len(answer.segments_skipped)
        return cls(f"{shown(answer.label)}  {answer.confidence:.0%}",
                   f"{answer.exit.modality} exit {answer.exit.exit}"
                   f" ({answer.exit_number}/{total})")


class _Bar:
    """A dark bar with white text along the bottom edge, ready to be written into planes."""

    def __init__(self, answer: ClipAnswer, *, width: int, height: int) -> None:
        self._made_for = answer, width, height
        text = _Text.of(answer)
        font, size_px = _font(text, width=width, wanted_px=max(8, height // 16))
        self._height = min(height, 2 * round(0.85 * size_px))
        self._ink = _ink(text, font, width=width, height=self._height)

    def fits(self, answer: ClipAnswer, *, width: int, height: int) -> bool:
        """Whether it shows `answer`, on pictures of this size."""
        made_for, *size = self._made_for
        return made_for is answer and size == [width, height]

    def draw(self, planes: list[Bytes]) -> None:
        """Write the bar into Y, U and V in place."""
        luma = planes[0][-self._height :].astype(np.float32) * 0.25 + 16
        planes[0][-self._height :] = (luma * (1 - self._ink) + 235 * self._ink).astype(np.uint8)
        for chroma in planes[1:]:
            below = chroma[-(self._height // 2) :].astype(np.float32)
            chroma[-(self._height // 2) :] = (128 + (below - 128) * 0.25).astype(np.uint8)


def _font(text: _Text, *, width: int, wanted_px: int) -> tuple[ImageFont.FreeTypeFont, int]:
    """Pillow's own font, as large as wanted unless the text would not fit into `width`."""
    try:
        from PIL import ImageFont
    except ModuleNotFoundError as error:
        raise MissingExtraError("Drawing on video needs the package 'pillow'.",
                                hint="Install it with: pip install pillow") from error
    line = f"  {text.left}   {text.right}  "
    for size_px in range(wanted_px, 7, -1):
        font: Any = ImageFont.load_default(size_px)
        if font.getlength(line) <= width:
            break
    return font, size_px


def _ink(text: _Text, font: ImageFont.FreeTypeFont, *, width: int, height: int
         ) -> NDArray[np.float32]:
    """Coverage 0..1 of the text, [height, width]; cut off at the right where it does not fit."""
    from PIL import Image, ImageDraw

    picture = Image.new("L", (width, height), 0)
    draw = ImageDraw.Draw(picture)
    margin = height // 3
    draw.text((margin, height / 2), text.left, fill=255, font=font, anchor="lm")
    after = 2 * margin + font.getlength(text.left)
    right = max(after, width - margin - font.getlength(text.right))
    draw.text((right, height / 2), text.right, fill=255, font=font, anchor="lm")
    ink: NDArray[np.float32] = np.asarray(picture, np.float32) / np.float32(255)
    return ink
