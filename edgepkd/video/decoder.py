"""Packets of one stream in, frames with motion vectors out; the API traps of decode.md 1 live here.

`CodecParams` and an iterator of `av.Packet` are all that the rest of this room knows of a
source, whether the packets come from a container or from an encoder in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Literal, cast

import av
import numpy as np
from av.codec.context import Flags, Flags2, ThreadType
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter

from edgepkd.errors import ConfigError, DecodeError
from edgepkd.video.h264 import NO_CROP, Crop, find_sps
from edgepkd.video.limits import DEFAULT_LIMITS, Limits
from edgepkd.video.orientation import UPRIGHT, Display, Orientation, display_of
from edgepkd.video.oversize import check_refused, codec_options
from edgepkd.video.packet_kinds import known_header
from edgepkd.video.timeline import plausible_rate, usable_time_base

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

NATIVE_CODECS = frozenset({
    "mpeg4", "mpeg1video", "mpeg2video", "h263", "h263p", "flv", "flv1", "msmpeg4v1", "msmpeg4v2",
    "msmpeg4v3", "msmpeg4", "wmv1", "wmv2", "h264",
})
"""Codecs whose decoder exports motion vectors (decode.md 2)."""
NATIVE_PIXEL_FORMATS = frozenset({"yuv420p", "yuvj420p"})
MAX_ERRORS_IN_A_ROW = 100
"""Packets that may fail one after the other before the stream is given up."""


@dataclass(frozen=True)
class CodecParams:
    """What a decoder must know of a stream before its first packet."""

    codec_name: str
    extradata: bytes | None
    width_px: int
    height_px: int
    """Size of what is shown, before it is turned."""
    time_base: Fraction
    orientation: Orientation = UPRIGHT
    """How a decoded picture is turned to be looked at."""
    has_b_frames: bool = False
    num_ref_frames: int = 1
    """H.264 `num_ref_frames`; 1 for every other codec."""
    fps: Fraction | None = None
    """Only used for the times of packets that have no timestamp."""
    header: bytes = b""
    """What the stream says of all its pictures (`Classifier.header`), as far as it is known; a
    packet that says otherwise begins another stream."""
    codec_tag: str = ""
    """FourCC of the container; some MPEG-4 decoder workarounds depend on it."""
    source: str = "The stream"
    """What to call it in a message."""
    limits: Limits = DEFAULT_LIMITS
    """How much it may ask for."""
    crop: Crop = NO_CROP
    """H.264: what is cut off decoded pictures, where that moves their origin. Otherwise FFmpeg
    cuts, right and bottom, before anything is seen of it here."""

    @property
    def decoded_size_px(self) -> tuple[int, int]:
        """Width and height of decoded frames."""
        crop = self.crop
        return (self.width_px + crop.left + crop.right, self.height_px + crop.top + crop.bottom)


def codec_params_from_stream(
    stream: VideoStream,
    *,
    orientation: Orientation = UPRIGHT,
    num_ref_frames: int | None = None,
    has_b_frames: bool | None = None,
    fps: Fraction | None = None,
    crop: Crop = NO_CROP,
) -> CodecParams:
    """Parameters of a container's video stream.

    What the container does not tell without decoding comes as keyword: `orientation` (of a
    decoded frame) and `crop`, of which only one that moves the origin counts. None for the
    others asks the stream and its H.264 parameter set.
    """
    context = stream.codec_context
    if num_ref_frames is None:
        sps = find_sps(context.extradata or b"") if context.name == "h264" else None
        num_ref_frames = sps.num_ref_frames if sps else 1
    fps = fps or plausible_rate(stream.average_rate)
    return CodecParams(
        codec_name=context.name,
        extradata=context.extradata,
        width_px=context.width,
        height_px=context.height,
        time_base=usable_time_base(stream.time_base, fps=fps),
        orientation=orientation,
        has_b_frames=bool(context.has_b_frames) if has_b_frames is None else has_b_frames,
        num_ref_frames=num_ref_frames,
        fps=fps,
        codec_tag=_codec_tag(context),
        header=known_header(context.name, context.extradata or b""),
        crop=crop if crop.moves_origin else NO_CROP,
    )


def _codec_tag(context: VideoCodecContext) -> str:
    """The FourCC; '' where it is no text, which PyAV cannot say."""
    try:
        return context.codec_tag
    except UnicodeDecodeError:
        return ""


@dataclass
class DecodeCounters:
    """What was done so far; the proof that what is not asked for is not decoded."""

    packets_read: int = 0
    packets_decoded: int = 0
    """Packets a decoder worked on (twice if they had to be decoded again)."""
    packets_skipped: int = 0
    """Packets dropped without decoding: non-reference frames, or never asked for."""
    frames_rgb: int = 0
    """Pictures converted to RGB."""
    motion_fields: int = 0
    """Accumulated motion fields handed out."""
    residuals: int = 0
    errors: int = 0
    """Packets that failed, and frames the decoder had to conceal."""
    decode_s: float = 0.0
    """Seconds spent in the decoder, vectors included."""

    def copy(self) -> DecodeCounters:
        """A snapshot of the counters."""
        return replace(self)

    def __sub__(self, other: DecodeCounters) -> DecodeCounters:
        """What happened since the snapshot `other`."""
        return DecodeCounters(**{
            name: getattr(self, name) - getattr(other, name) for name in vars(self)
        })


class PacketDecoder:
    """One decoder context: one thread, vectors exported, no B-frames.

    B-frames of MPEG-1/2/4 are dropped (`skip_frame=NONREF`), so that a packet gives its own frame
    at once or none at all. Pictures of H.264 may come later than their packets: see `holds_back`.
    """

    def __init__(self, params: CodecParams, *, motion_only: bool = False) -> None:
        """Open a decoder for `params`.

        `motion_only` leaves out the inverse transform and the loop filter of all but key frames.
        """
        context = cast(VideoCodecContext, av.CodecContext.create(params.codec_name, "r"))
        if params.extradata:
            context.extradata = params.extradata
        if params.codec_tag.isascii() and len(params.codec_tag) == 4:
            context.codec_tag = params.codec_tag
        context.width, context.height = params.width_px, params.height_px
        # Frame threads give wrong vectors with B-frames and are slower at small sizes.
        context.thread_type = ThreadType.NONE
        context.thread_count = 1
        context.flags |= Flags.low_delay
        context.flags2 |= Flags2.export_mvs
        if params.codec_name != "h264":
            context.skip_frame = "NONREF"
        options = codec_options(params.limits)
        if motion_only:
            options |= {"skip_loop_filter": "nokey", "skip_idct": "nokey"}
        if params.crop != NO_CROP:
            options["apply_cropping"] = "0"  # vectors count from the corner of the coded picture
        context.options = options
        self._limits, self._source = params.limits, params.source
        self._may_hold_back = params.codec_name == "h264"
        self._context = context
        self._used = False

    @property
    def holds_back(self) -> bool:
        """True if pictures come out later than their packets go in: the stream's parameter set
        allows reordering, whether there is any or not."""
        return self._may_hold_back and bool(self._context.has_b_frames)

    def reset(self) -> None:
        """Forget the stream so far; the next packet must be a key frame."""
        if self._used:
            self._context.flush_buffers()
            self._used = False

    def decode(self, packet: Packet[Any] | None) -> list[VideoFrame]:
        """Frames that come out for `packet`; None drains.

        Raises:
            av.error.FFmpegError: the packet cannot be decoded.
            LimitError: it is of a picture that is too large.
        """
        self._used = True
        try:
            return self._context.decode(packet)
        except av.FFmpegError:
            check_refused(self._context, packet, limits=self._limits, name=self._source)
            raise


def crop_exactly(context: VideoCodecContext) -> None:
    """Let FFmpeg crop by the pixel; else it leaves up to 63 columns at the left that are not to be
    shown, so that lines stay aligned in memory. For a context that is not open yet."""
    context.flags |= Flags.unaligned


def check_native(params: CodecParams) -> None:
    """Refuse what this room would decode wrongly.

    Raises:
        ConfigError: the codec exports no vectors, or it is H.264 with B-frames.
    """
    hint = "Use --route normalize (or auto), which re-encodes the stream in memory."
    if params.codec_name not in NATIVE_CODECS:
        raise ConfigError(
            f"Codec {params.codec_name!r} exports no motion vectors; "
            f"allowed on the native route: {', '.join(sorted(NATIVE_CODECS))}.", hint=hint)
    if params.codec_name == "h264" and params.has_b_frames:
        raise ConfigError(
            "H.264 with B-frames got to the native route, where the references of its vectors "
            "are unknown; allowed: H.264 without B-frames.", hint=hint)


def check_size(params: CodecParams, *, max_short_side_px: int) -> None:
    """Refuse a source that is too large, or cropped and would have to be made smaller.

    Raises:
        LimitError: it is over its limits.
        ConfigError: it would have to be made smaller.
    """
    params.limits.check_picture(params.source, *params.decoded_size_px)
    reason = cropped_too_large(params.crop, (params.width_px, params.height_px),
                               max_short_side_px=max_short_side_px)
    if reason:
        raise ConfigError(f"The native route cannot take this stream: {reason}.",
                          hint="Use --route normalize (or auto).")


def cropped_too_large(
    crop: Crop, size_px: tuple[int, int], *, max_short_side_px: int
) -> str | None:
    """Why a cropped source is not worked on at its own size, None if it is or is not cropped."""
    if not crop.moves_origin or min(size_px) <= max_short_side_px:
        return None
    return (f"its pictures are cropped by {crop.left} px left and {crop.top} px top, and their "
            f"short side is {min(size_px)} px; allowed together: up to {max_short_side_px}")


def check_frame(frame: VideoFrame, params: CodecParams) -> None:
    """Refuse a frame that the kernels would read wrongly.

    Raises:
        DecodeError: not 8-bit 4:2:0, interlaced, an H.264 B-frame, or to be looked at in another
            orientation than `params` say.
    """
    hint = "Use --route normalize, which re-encodes the stream in memory."
    name = frame.format.name
    if name not in NATIVE_PIXEL_FORMATS:
        raise DecodeError(
            f"Pixel format {name!r} is not decoded on the native route; "
            f"allowed: {', '.join(sorted(NATIVE_PIXEL_FORMATS))}.", hint=hint)
    if frame.interlaced_frame:
        raise DecodeError(
            "The stream is interlaced; the native route decodes progressive frames only.",
            hint=hint)
    if params.codec_name == "h264" and frame.key_frame:
        before = Display.of(params.orientation)
        if display_of(frame, before=before).orientation != params.orientation:
            raise DecodeError("The display orientation changes inside the stream.", hint=hint)
    if params.codec_name == "h264" and frame.pict_type == 3:
        raise DecodeError(
            "An H.264 B-frame came out of a stream said to have none; "
            "the references of its vectors are unknown.", hint=hint)


class PictureMaker:
    """Frames to RGB arrays and to the output grid, on the caller's thread.

    One reformatter for each job: a new one for every frame builds a threaded swscale context,
    29 times slower at 340x256 (decode.md 1).
    """

    def __init__(self) -> None:
        self._to_rgb = VideoReformatter()
        self._to_grid = VideoReformatter()

    def resized(self, frame: VideoFrame, *, width_px: int, height_px: int) -> VideoFrame:
        """`frame` averaged down to the given size, still 4:2:0.

        Raises:
            DecodeError: FFmpeg cannot convert it.
        """
        with converting():
            return self._to_grid.reformat(
                frame, width=width_px, height=height_px, format=_plain(frame),
                interpolation=Interpolation.AREA, threads=1)

    def rgb(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """uint8 [H, W, 3] RGB, contiguous and owned by the caller.

        Raises:
            DecodeError: FFmpeg cannot convert it.
        """
        with converting():
            picture = self._to_rgb.reformat(frame, format="rgb24", threads=1)
        plane = picture.planes[0]
        rows = _bytes_of(plane).reshape(-1, plane.line_size)
        packed = rows[: picture.height, : picture.width * 3]
        return np.ascontiguousarray(packed).reshape(picture.height, picture.width, 3)


@contextmanager
def converting() -> Iterator[None]:
    """What FFmpeg cannot convert, such as colours that no standard knows, as a DecodeError."""
    try:
        yield
    except av.FFmpegError as error:
        raise DecodeError(f"a picture cannot be converted: {error.strerror or error}.",
                          hint="Its colours may be described wrongly; re-encode the video."
                          ) from error


def luma(frame: VideoFrame) -> tuple[NDArray[np.uint8], int]:
    """The luma plane as a flat view and its stride in bytes; the view keeps the frame alive."""
    plane = frame.planes[0]
    return _bytes_of(plane), plane.line_size


def _bytes_of(plane: Any) -> NDArray[np.uint8]:
    return np.frombuffer(plane, np.uint8)


def _plain(frame: VideoFrame) -> Literal["yuv420p", "yuvj420p"]:
    return "yuvj420p" if frame.format.name == "yuvj420p" else "yuv420p"
