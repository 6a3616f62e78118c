"""Any stream that decodes, re-encoded in memory to the form the networks are trained on.

The form (paper.md 1.1): 340x256 whatever the shape, MPEG-4 part 2 at quality 1 as the ffmpeg tool
makes it, a key frame every 12 frames and nowhere else, no B-frames. It streams: one frame is in
memory at a time, on the caller's thread. Every frame of the source gives one packet, with the
source's time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from operator import attrgetter
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from edgepkd.errors import DecodeError
from edgepkd.video.decoder import MAX_ERRORS_IN_A_ROW, CodecParams
from edgepkd.video.orientation import NO_DISPLAY, UPRIGHT, display_of
from edgepkd.video.oversize import check_refused
from edgepkd.video.probe import prepare
from edgepkd.video.timeline import DEFAULT_FPS, Timeline, plausible_rate, usable_time_base
from edgepkd.video.transforms import TRAINING_HEIGHT_PX, TRAINING_WIDTH_PX
from edgepkd.video.video_input import VideoInput

# The ffmpeg tool's "-q:v 1"; its default qmin of 2 then bounds the quantiser, and so it does here.
_QUALITY_1 = 118
_MAX_TICKS = 1 << 62
_FIELD_FORMATS = frozenset({"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"})


class Remainder(NamedTuple):
    """What is left of a source whose beginning was read in another way."""

    packets: Iterator[Packet[Any]]
    """From where decoding can start."""
    timeline: Timeline
    """The clock that the source goes on with."""
    stamp: int | None
    """Timestamp of the first frame that was not given out; None: the frames are counted."""
    num_given: int
    """Frames that the packets begin with and that were given out."""


@dataclass
class NormalizeCounters:
    """What the re-encoding did so far."""

    packets_read: int = 0
    frames_encoded: int = 0
    errors: int = 0
    """Source packets that did not decode and were skipped."""
    fields_taken: int = 0
    """Interlaced frames of which one field was used."""
    interlaced_kept: int = 0
    """Interlaced frames taken as they are, because their pixel format has no simple fields."""


class Part(NamedTuple):
    """Packets between two breaks of the source."""

    begins_anew: bool
    """True after a gap in time, a clock that started again, or pictures of another size."""
    packets: Iterator[Packet[Any]]
    """Starts with a key packet; to be read before the next part is asked for."""


class _Shot(NamedTuple):
    frame: VideoFrame
    ticks: int
    part: int
    """How many breaks there were before it."""


class NormalizedVideo:
    """A source in training form: `params` and `packets`, as a container would give them."""

    def __init__(
        self,
        video: VideoInput,
        *,
        gop_frames: int = 12,
        use_timestamps: bool = True,
        fps: Fraction | None = None,
        remainder: Remainder | None = None,
    ) -> None:
        """Prepare to re-encode `video`; see `normalized`."""
        self.counters = NormalizeCounters()
        self._errors_in_a_row = 0
        self._video = video
        self._gop_frames = gop_frames
        stream = video.stream
        fps = (fps or plausible_rate(stream.average_rate) or plausible_rate(stream.guessed_rate)
               or DEFAULT_FPS)
        time_base = usable_time_base(stream.time_base, fps=fps)
        self._remainder = remainder or Remainder(
            video.packets(), Timeline(time_base=time_base, fps=fps), None, 0)
        self._stamps = _Stamps(video.name, use_timestamps,
                               step=max(1, round(1 / (fps * time_base))))
        self.params = CodecParams(
            codec_name="mpeg4", extradata=None, width_px=TRAINING_WIDTH_PX,
            height_px=TRAINING_HEIGHT_PX, time_base=time_base, fps=fps)

    def packets(self) -> Iterator[Packet[Any]]:
        """Yield MPEG-4 packets as the source is decoded.

        Raises:
            DecodeError: nothing of the source decodes, or too many packets in a row fail.
            LimitError: its pictures are too large, or too many packets give none.
            SourceError: a camera stopped sending.
        """
        for part in self.parts():
            yield from part.packets

    def parts(self) -> Iterator[Part]:
        """Yield the same packets, cut where the source breaks. Raises as `packets`."""
        shaper = _Shaper(self.counters)
        for number, shots in groupby(self._shots(), key=attrgetter("part")):
            yield Part(number > 0, self._encoded(shots, shaper))
        if not self.counters.frames_encoded:
            raise DecodeError(
                f"{self._video.name} opens, but none of its {self.counters.packets_read} "
                "packets decodes.", hint="The file is damaged; record or copy it again.")

    def _encoded(self, shots: Iterator[_Shot], shaper: _Shaper) -> Iterator[Packet[Any]]:
        encoder, times = _encoder(self._gop_frames), deque[int]()
        for shot in shots:
            times.append(shot.ticks)
            picture = shaper.shaped(shot.frame)
            picture.pts, picture.time_base = self.counters.frames_encoded, 1 / DEFAULT_FPS
            picture.pict_type = PictureType.NONE
            self.counters.frames_encoded += 1
            for packet in encoder.encode(picture):
                yield self._stamped(packet, times.popleft())
        for packet in encoder.encode(None):
            yield self._stamped(packet, times.popleft())

    def _shots(self) -> Iterator[_Shot]:
        size, part, timeline = None, 0, self._remainder.timeline
        for frame in self._new_frames():
            ticks = timeline.place(self._stamps.of(frame))
            resized = size is not None and size != (frame.width, frame.height)
            part += resized or timeline.broke != ""
            if size != (frame.width, frame.height):
                size = frame.width, frame.height
                self._video.limits.check_picture(self._video.name, *size)
            yield _Shot(frame, self._stamps.rising(ticks), part)

    def _new_frames(self) -> Iterator[VideoFrame]:
        """The frames that were not given out before the source was normalised."""
        stamp, num_given = self._remainder.stamp, self._remainder.num_given
        for number, frame in enumerate(self._frames()):
            early = number < num_given
            if stamp is not None and frame.pts is not None:
                early = frame.pts < stamp and early
            if not early:
                yield frame

    def _frames(self) -> Iterator[VideoFrame]:
        context, video = self._video.stream.codec_context, self._video
        prepare(context, video.limits)
        num_idle = 0
        for packet in self._remainder.packets:
            self.counters.packets_read += 1
            frames = self._decoded(packet)
            num_idle = 0 if frames else num_idle + 1
            if num_idle > video.limits.packets:
                raise video.limits.refusal("packets", f"{video.name}: {num_idle} packets in a row "
                                                      "give no picture")
            yield from frames
        try:
            yield from context.decode(None)
        except av.FFmpegError:
            self.counters.errors += 1

    def _decoded(self, packet: Packet[Any]) -> list[VideoFrame]:
        context, video = self._video.stream.codec_context, self._video
        try:
            frames = context.decode(packet)
            self._errors_in_a_row = 0
            return frames
        except av.FFmpegError:
            check_refused(context, packet, limits=video.limits, name=video.name)
        self.counters.errors += 1
        self._errors_in_a_row += 1
        if self._errors_in_a_row >= MAX_ERRORS_IN_A_ROW:
            raise DecodeError(
                f"{video.name}: {self._errors_in_a_row} packets in a row do not decode.",
                hint="The stream is damaged from here on.")
        return []

    def _stamped(self, packet: Packet[Any], time: int) -> Packet[Any]:
        packet.time_base = self.params.time_base
        packet.pts = packet.dts = time
        return packet


def normalized(
    video: VideoInput, *, gop_frames: int = 12, use_timestamps: bool = True,
    fps: Fraction | None = None, remainder: Remainder | None = None,
) -> NormalizedVideo:
    """Return `video` in training form; nothing is read before its packets are asked for.

    Args:
        video: an open source.
        gop_frames: a key frame every so many frames.
        use_timestamps: False where they are not display times; frames are then counted at the
            stream's frame rate.
        fps: that rate; None: what the container says.
        remainder: what is left of a source that was read in another way so far.
    """
    return NormalizedVideo(video, gop_frames=gop_frames, use_timestamps=use_timestamps, fps=fps,
                           remainder=remainder)


def _encoder(gop_frames: int) -> VideoCodecContext:
    encoder = av.CodecContext.create("mpeg4", "w")
    encoder.width, encoder.height = TRAINING_WIDTH_PX, TRAINING_HEIGHT_PX
    encoder.pix_fmt = "yuv420p"
    encoder.time_base, encoder.framerate = 1 / DEFAULT_FPS, DEFAULT_FPS
    encoder.thread_count = 1
    encoder.gop_size, encoder.max_b_frames = gop_frames, 0
    encoder.flags |= Flags.qscale
    encoder.global_quality = _QUALITY_1
    encoder.options = {"sc_threshold": "1000000000"}
    return encoder


class _Stamps:
    """Timestamps of frames, and whole ticks that rise from frame to frame."""

    def __init__(self, name: str, use_timestamps: bool, *, step: int) -> None:
        self._name = name
        self._uses = use_timestamps
        self._step = step
        self._last: int | None = None

    def of(self, frame: VideoFrame) -> int | None:
        return frame.pts if self._uses else None

    def rising(self, ticks: float) -> int:
        time = round(ticks)
        if self._last is not None and time <= self._last:
            time = self._last + self._step
        if abs(time) > _MAX_TICKS:
            raise DecodeError(f"{self._name} shows pictures at times that cannot be counted.",
                              hint="Its timestamps are damaged; record or copy it again.")
        self._last = time
        return time


class _Shaper:
    """Turns decoded frames into upright 340x256 yuv420p pictures."""

    def __init__(self, counters: NormalizeCounters) -> None:
        self._reformatter = VideoReformatter()
        self._counters = counters
        self._display = NO_DISPLAY

    def shaped(self, frame: VideoFrame) -> VideoFrame:
        self._display = display_of(frame, before=self._display)
        orientation = self._display.orientation
        if frame.interlaced_frame:
            frame = self._progressive(frame)
        width, height = orientation.turned_size(TRAINING_WIDTH_PX, TRAINING_HEIGHT_PX)
        picture = self._reformatter.reformat(
            frame, width=width, height=height, format="yuv420p", dst_color_range=ColorRange.MPEG,
            interpolation=Interpolation.BICUBIC, threads=1)
        if orientation != UPRIGHT or picture is frame:
            # The encoder's settings must not be written into the decoder's own frame.
            return _frame_of([orientation.turned(p) for p in _planes(picture)], "yuv420p")
        return picture

    def _progressive(self, frame: VideoFrame) -> VideoFrame:
        name = frame.format.name
        if name not in _FIELD_FORMATS:
            self._counters.interlaced_kept += 1
            return frame
        self._counters.fields_taken += 1
        # An even number of lines keeps chroma in step with luma.
        lines = [p[: len(p) // 4 * 4 if i == 0 else None] for i, p in enumerate(_planes(frame))]
        field = _frame_of([plane[::2] for plane in lines], name)
        field.color_range = frame.color_range
        return field


def _planes(frame: VideoFrame) -> list[npt.NDArray[np.uint8]]:
    """Return views of an 8-bit planar frame's planes, [rows, columns] each, padding cut off."""
    views = []
    for plane in frame.planes:
        buffer: Any = plane
        rows = np.frombuffer(buffer, np.uint8).reshape(-1, plane.line_size)
        views.append(rows[: plane.height, : plane.width])
    return views


def _frame_of(planes: list[npt.NDArray[np.uint8]], pix_fmt: str) -> VideoFrame:
    height, width = planes[0].shape
    frame = VideoFrame(width, height, pix_fmt)
    for target, plane in zip(_planes(frame), planes, strict=True):
        target[:] = plane[: target.shape[0], : target.shape[1]]
    return frame
