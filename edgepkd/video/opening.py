"""The public way into this room: a video, opened in one call."""

from __future__ import annotations

from edgepkd.config import ClipSpec, DecodeSpec, Route
from edgepkd.video.clips import ClipReader
from edgepkd.video.limits import DEFAULT_LIMITS, Limits
from edgepkd.video.source import Source


def open(
    source: Source,
    *,
    clip_frames: int = ClipSpec.clip_frames,
    decode: DecodeSpec | None = None,
    route: Route = "auto",
    fps: float | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> ClipReader:
    """Open a video to read motion, residuals and key pictures as numpy arrays.

    Gives a context manager that is read once: iterate over it for clips, or over its `gops()`.
    Nothing is decoded before an array is asked for, and what was read is let go when the next
    clip or GOP is asked for, so that memory does not grow with the video.

    >>> import edgepkd.video
    >>> with edgepkd.video.open("clip.mp4") as clips:
    ...     for clip in clips:
    ...         largest = max(abs(gop.motion(1)).max() / 4 for gop in clip.gops)
    ...         print(f"{clip.start_s:.0f} s: {len(clip.gops)} GOPs, up to {largest} px a frame")
    0 s: 5 GOPs, up to 46.75 px a frame
    6 s: 5 GOPs, up to 40.0 px a frame
    12 s: 5 GOPs, up to 45.5 px a frame

    Every array of a large video at its own size, and one vector a pixel:

    >>> spec = edgepkd.video.DecodeSpec(max_short_side_px=4320, grid_px=1)
    >>> with edgepkd.video.open("clip.mp4", decode=spec) as clips:
    ...     gop = next(clips.gops())
    ...     print(gop.iframe().shape, gop.motion(1).shape)
    (360, 640, 3) (360, 640, 2)

    Args:
        source: a path, a file opened with 'rb', a folder or pattern of pictures, '-', an RTSP
            address, or a camera such as '/dev/video0'.
        clip_frames: frames in a clip; it ends with the GOP that reaches as many.
        decode: how far apart anchors may be (12 frames), the cells of the motion field (8 px), how
            large pictures may be (a short side above 288 px is reduced to 256 px), and more.
        route: 'native' reads the vectors of the stream itself; 'normalize' re-encodes it in memory
            to MPEG-4 of 340x256; 'auto' does so where its own vectors are missing or not to be
            trusted, such as HEVC and H.264 with B-frames. `ClipReader.choice` says why.
        fps: frames per second of pictures, and of a stream that names none.
        limits: how much the source may ask for.

    Raises:
        SourceError: it is missing, empty, unreadable, or no video.
        LimitError: it asks for more than `limits` allow.
        ConfigError: a setting is out of range, or `route` 'native' cannot read this stream.
    """
    decode = decode or DecodeSpec()
    clip = ClipSpec(clip_frames, stride_frames=clip_frames, gop_frames=decode.gop_frames,
                    position=1)
    return ClipReader(source, clip=clip, decode=decode, route=route, fps=fps, limits=limits)
