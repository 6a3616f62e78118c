"""A clip re-encoded to the training form, as the content of a file.

The packets are those that `video.normalize` makes in memory, unchanged: what is read from such a
file natively is bit for bit what the normalize route gives for its source. The container is MP4,
because it keeps the display times of each frame (AVI has a constant rate only).
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import av

from edgepkd.errors import DecodeError
from edgepkd.video.cut_off import cut_off
from edgepkd.video.normalize import normalized
from edgepkd.video.probe import StreamInfo, frame_rate, has_display_times, probe
from edgepkd.video.timeline import DEFAULT_FPS
from edgepkd.video.transforms import TRAINING_HEIGHT_PX, TRAINING_WIDTH_PX
from edgepkd.video.video_input import VideoInput

SUFFIX = ".mp4"
GOP_FRAMES = 12


def training_form(gop_frames: int = GOP_FRAMES) -> str:
    """Name of the training form, as the column `form` of an index has it."""
    return f"mpeg4-{TRAINING_WIDTH_PX}x{TRAINING_HEIGHT_PX}-gop{gop_frames}"


@dataclass(frozen=True)
class Encoded:
    """A clip in training form."""

    content: bytes
    """Of an MP4 file; the same source gives the same bytes."""
    num_frames: int
    num_damaged: int
    """Places of the source that did not read or decode and were skipped; a missing end is one."""
    info: StreamInfo
    """Of the source."""


def encode(video: VideoInput) -> Encoded:
    """Re-encode all of an open source, on the caller's thread.

    Raises:
        DecodeError: nothing of it decodes, or too many packets in a row fail.
    """
    info = probe(video)
    source = normalized(video, gop_frames=GOP_FRAMES, use_timestamps=has_display_times(info),
                        fps=frame_rate(video))
    content = io.BytesIO()
    # bitexact: no version of the muxer in the file, so that equal packets are equal files.
    with av.open(content, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_mux_stream(
            "mpeg4", rate=source.params.fps, width=TRAINING_WIDTH_PX, height=TRAINING_HEIGHT_PX)
        stream.time_base = source.params.time_base
        first: int | None = None
        last = 0
        for packet in source.packets():
            assert packet.pts is not None  # NormalizedVideo stamps every packet
            first = packet.pts if first is None else first
            last = packet.pts
            packet.pts = packet.dts = packet.pts - first
            packet.stream = stream
            try:
                container.mux(packet)
            except av.FFmpegError as error:
                raise DecodeError(f"{video.name} cannot be written as MP4: {error.strerror}.",
                                  hint="Its timestamps are damaged; copy it again.") from error
    params = source.params
    read_s = float((last - (first or 0)) * params.time_base + 1 / (params.fps or DEFAULT_FPS))
    is_cut_off = cut_off(info, read_s=read_s) is not None
    return Encoded(content.getvalue(), source.counters.frames_encoded,
                   source.counters.errors + video.num_read_errors + is_cut_off, info)
