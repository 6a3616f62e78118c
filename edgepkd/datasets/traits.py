"""What a file tells of a clip before anybody looks at a picture: size, rate, codec, length, sound.

Where such traits go with the labels, a network can learn them in place of the action. They are
those of the files as they came: the training form hides most of them, and not their traces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from edgepkd.errors import SourceError
from edgepkd.video.limits import DEFAULT_LIMITS, Limits
from edgepkd.video.probe import StreamInfo, probe
from edgepkd.video.source import open_video
from edgepkd.video.video_input import VideoInput

Value = float | str


@dataclass(frozen=True)
class Traits:
    """Of one file; names are those of columns of `traits.csv` and of an index."""

    width: int
    height: int
    fps: float
    """0: the file names none."""
    codec: str
    profile: str
    frames: int
    bytes: int
    bytes_per_frame: float
    b_frames: int
    """1: among its first frames are some, 0: none; an index may have their number."""
    audio: int
    """1: it has a sound track."""


COLUMNS = tuple(field.name for field in fields(Traits))
_TEXTS = ("codec", "profile")
_DERIVED = "bytes_per_frame"


def traits_of(video: VideoInput, info: StreamInfo, *, num_frames: int, num_bytes: int) -> Traits:
    """Traits of an open source that was probed."""
    return Traits(
        info.width_px, info.height_px, round(info.fps or 0.0, 3), info.codec, info.profile or "",
        num_frames, num_bytes, round(num_bytes / max(1, num_frames), 1), int(info.has_b_frames),
        int(bool(video.container.streams.audio)))


def probed_traits(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> Traits | None:
    """Traits of a file, its length as its header or duration says; None: it cannot be read."""
    try:
        with open_video(path, limits=limits) as video:
            info = probe(video)
            counted = (info.num_packets_seen if info.seen_all else info.num_frames_from_header
                       or round((info.duration_s or 0.0) * (info.fps or 0.0)))
            return traits_of(video, info, num_frames=counted or info.num_packets_seen,
                             num_bytes=path.stat().st_size)
    except (SourceError, OSError):
        return None


def as_row(traits: Traits) -> tuple[Value, ...]:
    """Values in the order of COLUMNS."""
    return astuple(traits)


def row_of_index(row: Mapping[str, str]) -> dict[str, Value]:
    """Those traits that an index has columns of, as far as they are numbers where they should be.
    """
    values: dict[str, Value] = {}
    for name in COLUMNS:
        text = row.get(name, "")
        if name in _TEXTS and name in row:
            values[name] = text
        elif (number := _number(text)) is not None:
            values[name] = number
    frames, size = values.get("frames"), values.get("bytes")
    if _DERIVED not in values and isinstance(frames, float) and isinstance(size, float):
        values[_DERIVED] = size / max(1.0, frames)
    return values


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
