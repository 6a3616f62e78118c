"""Pictures as video: an image sequence, an animated picture; a single picture is no video.

FFmpeg's own way to read a sequence stops at the first missing number, and not every build of it
knows patterns; here the files are listed first, and each is one packet of one stream. Animated WebP
and AVIF, of which FFmpeg shows one frame at most, are decoded by Pillow.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet

from edgepkd.errors import SourceError
from edgepkd.video.containers import open_picture
from edgepkd.video.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from PIL import Image

STILL_SUFFIXES = frozenset({
    ".avif", ".bmp", ".dib", ".dng", ".dpx", ".exr", ".heic", ".heif", ".j2k", ".jfif", ".jp2",
    ".jpe", ".jpeg", ".jpg", ".jxl", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif",
    ".tiff",
})
"""What counts as a picture in a folder."""
SEQUENCE_HINT = ("Pictures of one video are named by their folder, or by a quoted pattern such as "
                 "'seq/*.jpg' or seq/img_%05d.jpg.")
SEQUENCE_FPS = Fraction(25)
"""Of an image sequence for which nobody gave a rate."""

_MAY_MOVE = frozenset({".apng", ".avif", ".gif", ".png", ".webp"})
_UNTIMED_FRAME_MS = 100
"""What browsers take for a frame that shows for no time."""
_MAX_FRAME_MS = 3_600_000
_WEBP_FLAGS, _WEBP_MOVES = 20, 2
# Pillow's readers of damaged files raise more than OSError.
_UNREADABLE = (OSError, SyntaxError, ValueError, ArithmeticError, LookupError, MemoryError,
               RuntimeError, TypeError, struct.error)
_NO_LIMIT = threading.Lock()
"""Held while Pillow's limit, which is one for all threads, is lifted."""


@dataclass(frozen=True, eq=False)
class Pictures:
    """Pictures made into a stream: a container for what is said about it, and its packets."""

    container: InputContainer
    packets: Iterator[Packet[Any] | None]
    """None where a picture cannot be read."""
    duration_s: float


def is_still(path: Path) -> bool:
    """Return whether a file is a picture that does not move; by its suffix, if that tells."""
    suffix = path.suffix.lower()
    if suffix not in _MAY_MOVE:
        return suffix in STILL_SUFFIXES
    with _opened(path) as picture:
        return suffix in STILL_SUFFIXES if picture is None else not _moves(picture)


def is_picture_format(container: InputContainer) -> bool:
    """Return whether `container` is of a kind that holds a picture, or several."""
    brands = container.metadata.get("compatible_brands", "")
    return (is_sequence_format(container) or container.format.name in ("gif", "apng")
            or any(brand in brands for brand in ("avif", "mif1", "heic")))


def is_sequence_format(container: InputContainer) -> bool:
    """Return whether `container` holds pictures that have no times of their own."""
    name = container.format.name
    return name == "image2" or name.endswith("_pipe")


def needs_pillow(head: bytes) -> bool:
    """Return whether a file that begins with `head` may move in a way only Pillow can show."""
    return ((head[:4], head[8:12]) == (b"RIFF", b"WEBP")
            or (head[4:8] == b"ftyp" and head[8:12] in (b"avis", b"avif", b"mif1")))


def picture_sequence(
    paths: Sequence[Path], *, name: str, fps: Fraction, limits: Limits = DEFAULT_LIMITS
) -> Pictures:
    """Return the pictures `paths`, in this order, as a video of `fps` frames a second.

    A picture that cannot be read leaves its place in time empty.

    Raises:
        SourceError: none can be read, or they differ in kind or size.
        LimitError: they are too large.
    """
    first = _first_of_one_kind(paths, name, limits)
    try:
        container = open_picture(io.BytesIO(first.read_bytes()), name=name, fps=str(fps),
                                 limits=limits)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SourceError(f"{name} holds pictures that cannot be read as video: {error}.",
                          hint="Convert them to JPEG or PNG.") from error
    time_base = container.streams.video[0].time_base or 1 / fps
    packets = (_packet(_content(path), time_s=number / fps, time_base=time_base)
               for number, path in enumerate(paths))
    return Pictures(container, packets, duration_s=float(len(paths) / fps))


def moving_picture(
    file: IO[bytes], *, name: str, limits: Limits = DEFAULT_LIMITS
) -> Pictures | None:
    """Return an animated picture as a video with the picture's own times; None if it is not one.

    What comes after a damaged frame is left out.

    Raises:
        SourceError: it is animated, but cut off or damaged.
        LimitError: it is too large.
    """
    file.seek(0)
    head = file.read(_WEBP_FLAGS + 1)
    picture = _open(file)
    flags = int.from_bytes(head[_WEBP_FLAGS:], "big")
    if picture is None and head[12:16] == b"VP8X" and flags & _WEBP_MOVES:
        raise SourceError(f"{name} is an animated WebP that cannot be decoded.",
                          hint="It is damaged or cut off; copy it again.")
    if picture is None or not _moves(picture):
        return None
    limits.check_picture(name, picture.width, picture.height)
    durations = _durations_ms(picture)
    if not durations:
        return None
    rate = Fraction(1000 * len(durations), sum(durations))
    is_whole = len(durations) == picture.n_frames
    container = _raw_container(picture, rate)
    time_base = container.streams.video[0].time_base or 1 / rate
    packets = _frames(picture, durations, time_base=time_base, is_whole=is_whole)
    return Pictures(container, packets, duration_s=sum(durations) / 1000)


def _first_of_one_kind(paths: Sequence[Path], name: str, limits: Limits) -> Path:
    """Return the first picture that can be read.

    Raises:
        SourceError: there is none, or not all are of its kind and size.
        LimitError: one is too large.
    """
    kinds: Counter[str] = Counter()
    first: Path | None = None
    for path in paths:
        with _opened(path) as picture:
            if picture is None:
                continue
            limits.check_picture(name, picture.width, picture.height)
            # Phones write JPEG files with a second picture at the end, which is not looked at.
            kind = "JPEG" if picture.format == "MPO" else picture.format
            kinds[f"{kind} {picture.width}x{picture.height}"] += 1
            first = first or path
    if first is None:
        raise SourceError(f"{name} holds {len(paths)} pictures, and none can be read.",
                          hint="They are damaged, or of a kind to be converted to JPEG or PNG.")
    if len(kinds) > 1:
        found = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(5))
        more = f" and {len(kinds) - 5} more kinds" if len(kinds) > 5 else ""
        raise SourceError(f"{name} holds pictures of different kinds or sizes: {found}{more}; "
                          "allowed: one kind and one size, as the frames of one video have.",
                          hint="Move what belongs to no video away, or convert the pictures.")
    return first


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image | None]:
    """Open a picture without decoding it; None if it is none."""
    try:
        with path.open("rb") as file:
            yield _open(file)
    except OSError:
        yield None


def _open(file: IO[bytes]) -> Any:
    """Return a picture of Pillow's, not decoded yet, or None."""
    from PIL import Image

    # Pillow's own limit is for the whole process and says no size; nothing is decoded here, and
    # `Limits` are looked at before anything is.
    with _NO_LIMIT, warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        most, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            return Image.open(file)
        except _UNREADABLE:
            return None
        finally:
            Image.MAX_IMAGE_PIXELS = most


def _moves(picture: Image.Image) -> bool:
    try:
        return bool(getattr(picture, "is_animated", False))
    except _UNREADABLE:
        return True  # a damaged second frame is a second frame


def _durations_ms(picture: Any) -> list[int]:
    """Return how long each frame shows, up to the first that cannot be decoded."""
    durations: list[int] = []
    for number in range(picture.n_frames):
        try:
            picture.seek(number)
            picture.load()
        except _UNREADABLE:
            break
        durations.append(_shown_ms(picture.info.get("duration")))
    return durations


def _shown_ms(told: Any) -> int:
    """How long a frame shows, as its file tells; never nonsense."""
    if not isinstance(told, (int, float)) or not 0.5 <= told <= _MAX_FRAME_MS:
        return _UNTIMED_FRAME_MS
    return round(told)


def _frames(
    picture: Any, durations_ms: Sequence[int], *, time_base: Fraction, is_whole: bool
) -> Iterator[Packet[Any] | None]:
    start_s = Fraction(0)
    for number, duration in enumerate(durations_ms):
        picture.seek(number)
        yield _packet(picture.convert("RGB").tobytes(), time_s=start_s, time_base=time_base)
        start_s += Fraction(duration, 1000)
    if not is_whole:
        yield None


def _raw_container(picture: Any, rate: Fraction) -> InputContainer:
    """Return a container of uncompressed RGB video, with the first frame in it."""
    picture.seek(0)
    content = io.BytesIO()
    with av.open(content, "w", format="nut") as container:
        stream = container.add_stream("rawvideo", rate=rate)
        stream.width, stream.height = picture.width, picture.height
        stream.pix_fmt = "rgb24"
        frame = av.VideoFrame.from_ndarray(np.asarray(picture.convert("RGB")), format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    content.seek(0)
    return av.open(content, mode="r", format="nut")


def _packet(
    content: bytes | None, *, time_s: Fraction, time_base: Fraction
) -> Packet[Any] | None:
    if not content:
        return None
    packet = Packet(content)
    packet.pts = packet.dts = round(time_s / time_base)
    packet.time_base = time_base
    packet.is_keyframe = True
    return packet


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
