"""Why FFmpeg refused a picture: its error is the same for too large a size and for damage."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeAlias, cast

import av
import av.logging
from av.packet import Packet
from av.video.codeccontext import VideoCodecContext

from edgepkd.video.limits import Limits

Lines: TypeAlias = "list[tuple[int, str, str]]"

INT_MAX = 2**31 - 1
"""The greatest value that FFmpeg's own limits can have."""

_TOO_MANY = "exceeds max_streams"
_TOO_LARGE = re.compile(r"(?:Picture|Frame) size (\d+)x(\d+) exceeds")
_SILENT = "libdav1d"
"""The decoder that keeps the old size in its context when it refuses a new one."""


def codec_options(limits: Limits) -> dict[str, str]:
    """Settings with which every decoder of FFmpeg refuses a picture before it allocates one."""
    # FFmpeg counts widths rounded up; what is over the limit by less is seen when it is decoded.
    return {"max_pixels": str(min(limits.pixels + 64 * limits.side_px, INT_MAX))}


@contextmanager
def errors_logged() -> Iterator[Lines]:
    """Gather what FFmpeg says of errors, which PyAV does not ask it for."""
    level, skips = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(av.logging.ERROR)
    av.logging.set_skip_repeated(False)  # what was said last of another source is said again
    try:
        with av.logging.Capture() as lines:
            yield lines
    finally:
        av.logging.set_skip_repeated(skips)
        av.logging.set_level(level)


def check_logged(lines: Lines, *, limits: Limits, name: str) -> None:
    """Refuse the source called `name` if FFmpeg said that it is over a limit.

    Raises:
        LimitError: it did.
    """
    if any(_TOO_MANY in line for _, _, line in lines):
        raise limits.refusal("streams", f"{name} has too many streams")
    for width, height in _sizes(line for _, _, line in lines):
        limits.check_picture(name, width, height)


def check_refused(
    context: VideoCodecContext, packet: Packet[Any] | None, *, limits: Limits, name: str
) -> None:
    """Refuse the source called `name` if `packet`, which `context` cannot decode, is of too large
    a picture; return if it is merely damaged.

    Raises:
        LimitError: it is too large.
    """
    limits.check_picture(name, context.width, context.height)
    if packet is None or (context.width and context.name != _SILENT):
        return
    # A context that refused a size knows none any more; another one is asked what was wrong.
    again = cast(VideoCodecContext, av.CodecContext.create(context.name, "r"))
    again.extradata = context.extradata
    again.options = context.options
    with errors_logged() as lines, suppress(av.FFmpegError):
        again.decode(packet)
    check_logged(lines, limits=limits, name=name)


def _sizes(texts: Iterable[str]) -> Iterator[tuple[int, int]]:
    for text in texts:
        if (found := _TOO_LARGE.search(text)) is not None:
            yield int(found[1]), int(found[2])
