"""Which route a stream takes, native or normalize, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgepkd.config import DecodeSpec
from edgepkd.video.decoder import NATIVE_CODECS, NATIVE_PIXEL_FORMATS, cropped_too_large
from edgepkd.video.h264 import NO_CROP, Sps
from edgepkd.video.probe import StreamInfo

MIN_GOP_FRAMES = 4
"""Shorter GOPs hold too little motion to be read from the bitstream."""


@dataclass(frozen=True)
class RouteChoice:
    """The route a stream takes, and why, in words for the user."""

    route: Literal["native", "normalize"]
    reason: str
    native_possible: bool = True
    """False: the native route would give wrong vectors or none, and is refused if asked for."""


def choose_route(
    info: StreamInfo, *, max_short_side_px: int = DecodeSpec.max_short_side_px
) -> RouteChoice:
    """Decide whether vectors are read from the stream as it is, or from a re-encoded copy.

    `max_short_side_px` is that of the DecodeSpec it would be decoded with.
    """
    too_large = cropped_too_large(info.crop or NO_CROP, (info.width_px, info.height_px),
                                  max_short_side_px=max_short_side_px)
    for applies, reason in [*_obstacles(info), (bool(too_large), too_large or "")]:
        if applies:
            return RouteChoice("normalize", reason, native_possible=False)
    for applies, reason in _drawbacks(info):
        if applies:
            return RouteChoice("normalize", reason)
    if info.codec != "h264":
        dropped = "; its B-frames are never references and are dropped" if info.has_b_frames else ""
        return RouteChoice("native", f"{info.codec} exports motion vectors{dropped}")
    if (info.num_ref_frames or 1) > 1:
        return RouteChoice(
            "native", f"h264 without B-frames; num_ref_frames is {info.num_ref_frames}, so each "
                      "block's reference is found by comparison")
    return RouteChoice("native", "h264 without B-frames and with one reference frame")


def sps_obstacle(sps: Sps) -> str | None:
    """Return what in an H.264 parameter set makes the native route wrong, None if nothing."""
    if not sps.frame_mbs_only:
        return "the stream may be interlaced"
    if sps.bit_depth != 8 or sps.chroma_format_idc != 1:
        return "its pixels are not 8-bit 4:2:0"
    return None


def _obstacles(info: StreamInfo) -> list[tuple[bool, str]]:
    """Return what makes the native route wrong."""
    codec = info.codec
    return [
        (codec not in NATIVE_CODECS, f"{codec} exports no motion vectors"),
        (info.pix_fmt is None, f"none of the first {info.num_packets_seen} packets decodes"),
        (info.pix_fmt not in NATIVE_PIXEL_FORMATS,
         f"pixel format {info.pix_fmt} is not 8-bit 4:2:0"),
        (info.interlaced, "the stream is interlaced"),
        (codec == "h264" and info.has_b_frames,
         "h264 with B-frames: which frame a vector points to is not exported"),
        (info.num_inter_frames_decoded > 0 and not info.exports_vectors,
         f"no motion vector in {info.num_inter_frames_decoded} frames that should have some"),
        (info.rotation_deg % 90 != 0, f"rotated by {info.rotation_deg} degrees"),
        (info.display_changes, "the display orientation changes"),
        (info.crop is None, "its parameter sets leave open which part of a picture is shown"),
    ]


def _drawbacks(info: StreamInfo) -> list[tuple[bool, str]]:
    """Return what makes the native route poor, though right."""
    gop_max = info.gop_max if info.num_keyframes_seen > 1 else None
    return [
        (info.num_keyframes_seen == 0,
         f"there is no key frame among the first {info.num_packets_seen} packets"),
        (gop_max == 1, "every frame is a key frame, so the stream holds no motion"),
        (gop_max is not None and gop_max < MIN_GOP_FRAMES,
         f"key frames come every {gop_max} frames, too often to gather motion"),
    ]
