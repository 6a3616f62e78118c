"""What a stream is made of, found by looking at its first packets, and which route it takes.

Nothing a container claims about frames is trusted (decode.md 7): GOPs are counted in packets,
B-frames, vectors and interlacing are seen in decoded frames. A source is looked at once, and the
packets looked at are handed on, so that a pipe or a camera can be probed too.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.codec.context import Flags2
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from edgepkd.video.decoder import (
    NATIVE_CODECS,
    CodecParams,
    codec_params_from_stream,
    crop_exactly,
)
from edgepkd.video.h264 import NO_CROP, Crop, Sps, find_all_sps, find_sps
from edgepkd.video.limits import Limits
from edgepkd.video.orientation import NO_DISPLAY, Display, display_of
from edgepkd.video.oversize import check_refused, codec_options
from edgepkd.video.packet_kinds import Kind, classifier
from edgepkd.video.side_data import side_data
from edgepkd.video.source import STDIN, Source, open_video
from edgepkd.video.timeline import (
    DEFAULT_FPS,
    MAX_OVERLAP_S,
    MAX_TIME_S,
    plausible_rate,
    plausible_stamp,
)
from edgepkd.video.video_input import VideoInput

RAW_FORMATS = frozenset({
    "av1", "avs2", "avs3", "cavsvideo", "dirac", "evc", "h261", "h263", "h264", "hevc", "m4v",
    "mjpeg", "mpegvideo", "obu", "vc1", "vvc",
})
"""Streams without a container: no times at all, and the demuxer's frame rate is a guess."""
NO_TIMESTAMP_FORMATS = RAW_FORMATS | {"avi"}
"""Containers that store no display times; their streams run at a constant rate."""

_MAX_PACKETS, _MAX_PIPE_PACKETS, _MAX_LIVE_PACKETS = 300, 60, 30
_MAX_BYTES = 8_000_000
_DECODED, _DECODED_WITHOUT_TIMES, _ENOUGH_INTER_FRAMES = 24, 60, 4
_B_FRAME, _MAX_REORDERED = 3, 16
_VOP_START, _B_VOP = b"\x00\x00\x01\xb6", 2


@dataclass(frozen=True)
class StreamInfo:
    """A video stream as its first packets show it; None where a thing is not known."""

    source: str
    container: str
    codec: str
    profile: str | None
    pix_fmt: str | None
    """Of the decoded frames; None if none of the packets looked at decodes."""
    width_px: int
    height_px: int
    """Size of what is shown, before it is turned."""
    fps: float | None
    duration_s: float | None
    num_frames_from_header: int | None
    """What the container claims; often wrong, shown and never used."""
    start_s: float | None
    """First display time of the container; edgepkd reports times from there on as 0."""
    rotation_deg: int
    """Degrees counter-clockwise that a picture is turned by to be looked at, after mirroring."""
    mirrored: bool
    """True: a picture is mirrored left to right, before it is turned."""
    display_changes: bool
    """True: not all frames looked at are to be turned and mirrored alike."""
    variable_fps: bool
    num_packets_seen: int
    seen_all: bool
    """True: the whole stream was looked at."""
    num_keyframes_seen: int
    gop_min: int | None
    gop_max: int | None
    """Frames of the GOPs that end within the packets looked at; a short last one is not counted."""
    has_b_frames: bool
    num_ref_frames: int | None
    """H.264 `num_ref_frames`; None for other codecs."""
    crop: Crop | None
    """What an H.264 stream cuts off the coded picture, where that moves its origin; None where its
    parameter sets leave open which part is shown."""
    interlaced: bool
    exports_vectors: bool
    """Measured: at least one frame looked at carried motion vectors."""
    num_inter_frames_decoded: int
    """P- and B-frames decoded while looking; 0 means no vectors could be seen."""
    num_errors: int
    """Packets looked at that did not decode."""
    is_live: bool
    nonsense_fps: float | None = None
    """What a stream that numbers its frames names as their rate, if no video has such a rate: they
    are counted, at 25 a second or as the caller says."""


def probe(source: Source | VideoInput) -> StreamInfo:
    """Look at the first packets of `source`; an open input keeps them for whoever reads on.

    Raises:
        SourceError: it cannot be opened or has no video stream.
        LimitError: it asks for more than its limits allow.
    """
    if isinstance(source, VideoInput):
        return _look(source)
    with open_video(source) as video:
        return _look(video)


def has_display_times(info: StreamInfo) -> bool:
    """Return whether timestamps are display times; AVI numbers coded frames, raw streams none."""
    if info.container in RAW_FORMATS or info.nonsense_fps is not None:
        return False
    return not (info.container in NO_TIMESTAMP_FORMATS and info.has_b_frames)


def frame_rate(video: VideoInput) -> Fraction | None:
    """Return the stream's frame rate once some of it was decoded; None if nobody tells.

    A raw stream has it in its own headers (VUI), or from the caller; its demuxer says 25. A rate
    that no video has counts as none.
    """
    return next(filter(None, map(plausible_rate, _told_rates(video))), None) or video.fps or None


def _told_rates(video: VideoInput) -> tuple[Fraction | None, ...]:
    """The frame rates that the stream names, whatever they are."""
    stream = video.stream
    if video.container.format.name in RAW_FORMATS:
        return (stream.codec_context.framerate,)
    return stream.average_rate, stream.guessed_rate


def _nonsense_fps(video: VideoInput) -> float | None:
    """The frame rate of an AVI, whose timestamps are numbers of frames, if no video has it."""
    time_base = video.stream.time_base
    if video.container.format.name != "avi" or not time_base:
        return None
    return None if plausible_rate(1 / time_base) else float(1 / time_base)


def _note_fps(video: VideoInput, nonsense_fps: float | None) -> None:
    if nonsense_fps is not None:
        fps = float(frame_rate(video) or DEFAULT_FPS)
        video.notes.append(f"{video.name} names a frame rate of {nonsense_fps:.3g}, which no video "
                           f"has: taken as {fps:g} a second")


def codec_params(video: VideoInput, info: StreamInfo) -> CodecParams:
    """Return what the native route must know of `video`."""
    params = codec_params_from_stream(
        video.stream, orientation=Display(info.rotation_deg, info.mirrored).orientation,
        num_ref_frames=info.num_ref_frames or 1, has_b_frames=info.has_b_frames,
        fps=frame_rate(video), crop=info.crop or NO_CROP)
    # The stream's own context may have decoded on into pictures of another size.
    return replace(params, width_px=info.width_px, height_px=info.height_px,
                   source=video.name, limits=video.limits)


@dataclass
class _Decoded:
    """What the decoded frames of a stream showed."""

    pix_fmt: str | None = None
    size: tuple[int, int] | None = None
    display: Display = NO_DISPLAY
    display_changes: bool = False
    has_b_frames: bool = False
    interlaced: bool = False
    num_inter: int = 0
    num_with_vectors: int = 0
    num_errors: int = 0

    def add(self, frame: VideoFrame) -> None:
        if self.pix_fmt is None:
            self.pix_fmt, self.size = frame.format.name, (frame.width, frame.height)
            self.display = display_of(frame)
        self.display_changes |= display_of(frame, before=self.display) != self.display
        self.interlaced |= bool(frame.interlaced_frame)
        self.has_b_frames |= int(frame.pict_type) == _B_FRAME
        if not frame.key_frame:
            self.num_inter += 1
            # Data that hides the vectors hides them from the native route, too.
            with suppress(ValueError):
                self.num_with_vectors += side_data(frame, Type.MOTION_VECTORS) is not None


@dataclass
class _Gops:
    """Key frames and GOP lengths in a run of packets."""

    num_keyframes: int
    lengths: list[int] = field(default_factory=list)


def _look(video: VideoInput) -> StreamInfo:
    stream, context = video.stream, video.stream.codec_context
    packets, seen_all = _peek(video)
    has_times = video.container.format.name not in NO_TIMESTAMP_FORMATS
    gops = _gops(packets, seen_all=seen_all)
    has_inter = not context.codec.intra_only and gops.num_keyframes < len(packets)
    # Without display times B-frames show only when decoded, but for MPEG-4's plain headers.
    blind = has_inter and not has_times and _codec_name(context) != "mpeg4"
    decoded = _decode_some(video, packets[:_DECODED_WITHOUT_TIMES if blind else _DECODED],
                           enough=_DECODED_WITHOUT_TIMES if blind else _ENOUGH_INTER_FRAMES,
                           has_inter=has_inter)
    sps = _sps(context, packets)
    steps = _time_steps(packets, seen_all=seen_all) if has_times else np.zeros(0)
    fps, nonsense_fps = frame_rate(video), _nonsense_fps(video)
    _note_fps(video, nonsense_fps)
    width, height = decoded.size or (context.width, context.height)
    video.limits.check_picture(video.name, width, height)
    return StreamInfo(
        source=video.name, container=video.container.format.name, codec=_codec_name(context),
        profile=context.profile, pix_fmt=decoded.pix_fmt, width_px=width, height_px=height,
        fps=float(fps) if fps else None, nonsense_fps=nonsense_fps,
        duration_s=_duration_s(video) if nonsense_fps is None else None,
        num_frames_from_header=stream.frames or None, start_s=_start_s(video),
        rotation_deg=decoded.display.rotation_deg, mirrored=decoded.display.mirrored,
        display_changes=decoded.display_changes,
        variable_fps=bool(steps.size and steps.max() > 1.5 * np.median(steps)),
        num_packets_seen=len(packets), seen_all=seen_all, num_keyframes_seen=gops.num_keyframes,
        gop_min=min(gops.lengths, default=None), gop_max=max(gops.lengths, default=None),
        has_b_frames=(decoded.has_b_frames or _names_b_frames(context, packets)
                      or (has_times and _is_reordered(packets, stream.time_base))),
        num_ref_frames=sps.num_ref_frames if sps else None,
        crop=_crop(context, packets, shown_px=(width, height)),
        interlaced=decoded.interlaced or (sps is not None and not sps.frame_mbs_only),
        exports_vectors=decoded.num_with_vectors > 0, num_inter_frames_decoded=decoded.num_inter,
        num_errors=decoded.num_errors, is_live=video.is_live)


def _peek(video: VideoInput) -> tuple[list[Packet[Any]], bool]:
    """Return the packets to look at, and whether that is the whole stream."""
    # A pipe may be as slow as a camera, and looking far ahead would hold up the first answer.
    limit = _MAX_PIPE_PACKETS if video.source == STDIN else _MAX_PACKETS
    limit = _MAX_LIVE_PACKETS if video.is_live else limit
    packets: list[Packet[Any]] = []
    num_bytes = 0
    while len(packets) < limit and num_bytes < _MAX_BYTES:
        ahead = video.peek(len(packets) + 1)
        if len(ahead) == len(packets):
            return packets, True
        packets.append(ahead[-1])
        num_bytes += ahead[-1].size
    return packets, len(video.peek(len(packets) + 1)) == len(packets)


def _decode_some(
    video: VideoInput, packets: Sequence[Packet[Any]], *, enough: int, has_inter: bool
) -> _Decoded:
    """Decode `packets` in the stream's own context, then empty it for its next user.

    Ends early once `enough` inter frames were seen, with vectors where the codec has any; at the
    first frame where there is no inter frame to come.

    Raises:
        LimitError: a picture is too large.
    """
    context = video.stream.codec_context
    prepare(context, video.limits)
    context.flags2 |= Flags2.export_mvs
    decoded = _Decoded()
    exports = _codec_name(context) in NATIVE_CODECS
    for packet in [*packets, None]:
        if (decoded.num_with_vectors if exports else decoded.num_inter) >= enough:
            break
        if not has_inter and decoded.pix_fmt is not None:
            break
        if decoded.pix_fmt is not None and packet and packet.has_sidedata("new_extradata"):
            break  # the context would keep the new settings, and what comes first is yet to be read
        try:
            for frame in context.decode(packet):
                decoded.add(frame)
        except av.FFmpegError:
            check_refused(context, packet, limits=video.limits, name=video.name)
            decoded.num_errors += packet is not None
    context.flush_buffers()
    context.flags2 &= ~Flags2.export_mvs
    return decoded


def prepare(context: VideoCodecContext, limits: Limits) -> None:
    """Keep a codec context that is not open yet to the caller's thread and within `limits`, and
    crop exactly."""
    if not context.is_open:
        context.options = codec_options(limits)
        context.thread_type = "NONE"
        context.thread_count = 1
        crop_exactly(context)


def _codec_name(context: VideoCodecContext) -> str:
    """Return the codec's name, not that of the library that decodes it (libdav1d: av1)."""
    return str(getattr(context.codec, "canonical_name", context.name))


def _gops(packets: Sequence[Packet[Any]], *, seen_all: bool) -> _Gops:
    keys = [number for number, packet in enumerate(packets) if packet.is_keyframe]
    lengths = [end - key for key, end in pairwise(keys)]
    if seen_all and keys and len(packets) - keys[-1] > max(lengths, default=0):
        lengths.append(len(packets) - keys[-1])
    return _Gops(len(keys), lengths)


def _sps(context: VideoCodecContext, packets: Sequence[Packet[Any]]) -> Sps | None:
    if context.name != "h264":
        return None
    found = find_sps(context.extradata) if context.extradata else None
    if found is None and packets:
        found = find_sps(bytes(packets[0]))
    return found


def _crop(
    context: VideoCodecContext, packets: Sequence[Packet[Any]], *, shown_px: tuple[int, int]
) -> Crop | None:
    if context.name != "h264":
        return NO_CROP
    holders = (context.extradata or b"", *map(bytes, packets))
    found = next(filter(None, map(find_all_sps, holders)), [])
    if not any(sps.crop.moves_origin for sps in found):
        return NO_CROP
    crops = {sps.crop for sps in found if sps.shown_size_px == shown_px}
    return crops.pop() if len(crops) == 1 else None


def _is_reordered(packets: Sequence[Packet[Any]], time_base: Fraction | None) -> bool:
    """Return whether packets are shown in another order; a clock that starts again is none."""
    times = [packet.pts for packet in packets if packet.pts is not None]
    most = MAX_OVERLAP_S / float(time_base or 1)
    return any(0 < earlier - later <= most for earlier, later in pairwise(times))


def _names_b_frames(context: VideoCodecContext, packets: Sequence[Packet[Any]]) -> bool:
    """Return whether the headers of pictures, where they are read, name a B-frame."""
    codec = _codec_name(context)
    if codec == "h264":
        kind_of = classifier("h264", context.extradata, has_b_frames=True)
        return any(kind_of(packet) == Kind.H264_B for packet in packets)
    return codec == "mpeg4" and _has_b_vops(packets)


def _has_b_vops(packets: Sequence[Packet[Any]]) -> bool:
    """Return whether MPEG-4 packets hold a B-VOP; a packed one hides behind a P-VOP."""
    for packet in packets:
        data = bytes(packet)
        at = data.find(_VOP_START)
        while 0 <= at < len(data) - 4:
            if data[at + 4] >> 6 == _B_VOP:
                return True
            at = data.find(_VOP_START, at + 4)
    return False


def _time_steps(packets: Sequence[Packet[Any]], *, seen_all: bool) -> npt.NDArray[np.float64]:
    times = sorted(packet.pts for packet in packets if packet.pts is not None)
    if not seen_all:
        # B-frames still to come leave holes at the end.
        times = times[:-_MAX_REORDERED]
    steps = np.diff(np.array(times, np.float64))
    return steps[steps > 0]


def _duration_s(video: VideoInput) -> float | None:
    if video.is_live or video.duration_s is not None:
        return video.duration_s
    stream = video.stream
    if stream.duration and stream.time_base:
        seconds = float(stream.duration * stream.time_base)
    elif video.container.duration:
        seconds = video.container.duration / av.time_base
    else:
        return None
    return seconds if 0 < seconds <= MAX_TIME_S else None


def _start_s(video: VideoInput) -> float | None:
    base = video.stream.time_base
    start = plausible_stamp(video.stream.start_time, base)
    return float(start * base) if start is not None and base else None
