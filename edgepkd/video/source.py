"""Opens one source and hands out the packets of its default video stream, once.

What a source may be is in `source_list` (what a user names) and `source_names` (how it is called);
cameras and pictures have modules of their own. Nothing is decoded here.
"""

from __future__ import annotations

import glob
import os
import sys
import tempfile
from contextlib import ExitStack
from fractions import Fraction
from typing import IO, Any

import av
from av.container import InputContainer

from edgepkd.config import check_fps
from edgepkd.errors import SourceError
from edgepkd.video.cameras import open_camera
from edgepkd.video.containers import open_container
from edgepkd.video.limits import DEFAULT_LIMITS, Limits
from edgepkd.video.pipes import Pipe
from edgepkd.video.source_list import VIDEO_SUFFIXES as VIDEO_SUFFIXES
from edgepkd.video.source_list import is_pattern, is_video_file, pattern_matches, why_absent
from edgepkd.video.source_list import resolve_sources as resolve_sources
from edgepkd.video.source_names import ALLOWED, as_list, plain_source, shown_argument, told_name
from edgepkd.video.source_names import STDIN as STDIN
from edgepkd.video.source_names import Source as Source
from edgepkd.video.source_names import is_live_source as is_live_source
from edgepkd.video.source_names import shown_source as shown_source
from edgepkd.video.stills import (
    SEQUENCE_FPS,
    SEQUENCE_HINT,
    is_picture_format,
    is_sequence_format,
    is_still,
    moving_picture,
    needs_pillow,
    picture_sequence,
)
from edgepkd.video.video_input import VideoInput, default_stream

_HEAD_BYTES = 64
_COPIED_AT_ONCE = 1 << 20
_PIPED_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\0", b"MM\0*")
_ISO_BOXES = frozenset({b"ftyp", b"styp", b"moov", b"moof", b"mdat", b"free", b"skip", b"wide",
                        b"sidx", b"emsg", b"uuid", b"pnot", b"junk", b"pict", b"udta"})


def open_video(
    source: Source, *, fps: float | Fraction | None = None, limits: Limits = DEFAULT_LIMITS
) -> VideoInput:
    """Open one source, at its default video stream.

    The default stream is the one the ffmpeg tool takes: the largest picture, never cover art. A
    file object is read from where it stands and stays open. A folder of pictures, or a pattern
    that fits pictures, is one video.

    Args:
        source: a name, a path, or a file opened with 'rb'.
        fps: frames per second of an image sequence, and of a stream that names none.
        limits: how much it may ask for.

    Raises:
        SourceError: missing, empty, unreadable, no video format, without a video stream, or a
            picture.
        LimitError: it asks for more than `limits` allow.
        ConfigError: `fps` is out of range.
    """
    check_fps(fps)
    rate = None if fps is None else Fraction(fps).limit_denominator(1001)
    if not isinstance(source, (str, os.PathLike)):
        as_list([source])  # refuses what is no source at all
        video = _open_stream(source, source, rate, limits)
    else:
        name = plain_source(source)
        if name == STDIN:
            if sys.stdin is None:
                raise SourceError("Standard input is closed.", hint="Pipe a video: cat FILE | ...")
            video = _open_stream(sys.stdin.buffer, STDIN, rate, limits)
        elif is_live_source(name):
            container = open_camera(name, limits=limits)
            video = _input(name, container, fps=rate, limits=limits)
        else:
            video = _open_path(name, rate, limits)
    return _checked(video)


def _input(
    source: Source, container: InputContainer, *, limits: Limits, **settings: Any
) -> VideoInput:
    try:
        stream = default_stream(container, source)
        name, context = told_name(source), stream.codec_context
        limits.check_picture(name, context.width, context.height)
        limits.check("header_bytes", len(context.extradata or b""),
                     what=f"{name} has too many bytes of codec settings")
        return VideoInput(source, container, stream, limits=limits, **settings)
    except BaseException:
        container.close()
        raise


def _checked(video: VideoInput) -> VideoInput:
    """Return `video`, unless it is a single picture."""
    try:
        if is_picture_format(video.container) and len(video.peek(2)) < 2:
            raise SourceError(f"{video.name} is a picture, not a video; allowed: {ALLOWED}.",
                              hint=SEQUENCE_HINT)
    except BaseException:
        video.close()
        raise
    if is_sequence_format(video.container) and video.fps is None:
        video.notes.append(f"{video.name} is pictures that have no times: taken as "
                           f"{SEQUENCE_FPS} a second; --fps gives another rate")
    return video


def _open_path(name: str, fps: Fraction | None, limits: Limits) -> VideoInput:
    if os.path.isdir(name) or (is_pattern(name) and not os.path.exists(name)):
        return _open_sequence(name, fps, limits)
    _check_file(name)
    if not os.path.isfile(name):
        return _open_special(name, fps, limits)
    if (moving := _open_moving(name, fps, limits)) is not None:
        return moving
    try:
        container = open_container(name, name=name, limits=limits)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _not_opened(name, error) from error
    return _input(name, container, fps=fps, limits=limits)


def _open_special(name: str, fps: Fraction | None, limits: Limits) -> VideoInput:
    """Open what is no plain file, such as a named pipe; it is read as it comes."""
    try:
        file = open(name, "rb")  # noqa: SIM115
    except OSError as error:
        raise _not_opened(name, error) from error
    try:
        return _open_stream(file, name, fps, limits, closes=True)
    except BaseException:
        file.close()
        raise


def _open_moving(name: str, fps: Fraction | None, limits: Limits) -> VideoInput | None:
    """Open a file that only Pillow can show; None if FFmpeg is to have it."""
    file = open(name, "rb")  # noqa: SIM115
    try:
        if needs_pillow(file.read(_HEAD_BYTES)):
            pictures = moving_picture(file, name=name, limits=limits)
            if pictures is not None:
                return _input(name, pictures.container, owned=file, pictures=pictures, fps=fps,
                              limits=limits)
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _open_sequence(name: str, fps: Fraction | None, limits: Limits) -> VideoInput:
    """Open a folder of pictures, or those that fit a pattern."""
    is_folder = os.path.isdir(name)
    names = pattern_matches(os.path.join(glob.escape(name), "*")) if is_folder else (
        pattern_matches(name))
    files = [path for path in names if path.is_file()]
    stills = [path for path in files if is_still(path)]
    if is_folder and (len(stills) < 2 or any(map(is_video_file, files))):
        raise SourceError(f"{name} is a folder, one video was expected.",
                          hint="Name a file in it.")
    if not stills or (len(stills) < len(files) and not is_folder):
        raise SourceError(f"{shown_argument(name)} does not exist; allowed: {ALLOWED}.",
                          hint="Check the path.")
    pictures = picture_sequence(stills, name=name, fps=fps or SEQUENCE_FPS, limits=limits)
    return _input(name, pictures.container, pictures=pictures, fps=fps, limits=limits)


def _open_stream(
    file: IO[bytes], source: Source, fps: Fraction | None, limits: Limits, *, closes: bool = False
) -> VideoInput:
    """Open what is read from `file`, which stays open unless the video `closes` it."""
    name = told_name(source)
    readable, head = _readable(file, name, limits)
    owned = ExitStack()
    if closes:
        owned.callback(file.close)
    if readable is not file and not isinstance(readable, Pipe):
        owned.callback(readable.close)
    pictures = None
    try:
        if needs_pillow(head) and not isinstance(readable, Pipe):
            pictures = moving_picture(readable, name=name, limits=limits)
        options = {"framerate": str(fps)} if fps and head.startswith(_PIPED_PICTURES) else {}
        container = pictures.container if pictures else open_container(
            readable, name=name, limits=limits, options=options)
        return _input(source, container, owned=owned, pictures=pictures, fps=fps, limits=limits,
                      pipe=readable if isinstance(readable, Pipe) else None)
    except (av.FFmpegError, OSError, ValueError) as error:
        owned.close()
        raise _not_opened(source, error) from error
    except BaseException:
        owned.close()
        raise


def _not_opened(source: Source, error: Exception) -> SourceError:
    return SourceError(
        f"{told_name(source)} cannot be opened: {_reason(error)}.",
        hint="It is damaged, cut off, or no video; try to play it, or copy it again.")


def _check_file(name: str) -> None:
    if not os.path.exists(name):
        raise SourceError(f"{shown_argument(name) or repr(name)} {why_absent(name)}; "
                          f"allowed: {ALLOWED}.", hint="Check the path.")
    if not os.access(name, os.R_OK):
        raise SourceError(f"{name} cannot be read: permission denied.",
                          hint="Check the file's permissions.")
    if os.path.isfile(name) and os.path.getsize(name) == 0:
        raise SourceError(f"{name} is empty (0 bytes).", hint="Copy or record it again.")


def _readable(
    file: IO[bytes], name: str, limits: Limits
) -> tuple[IO[bytes] | Pipe, bytes]:
    """Return `file` as FFmpeg can read it, and its first bytes.

    What cannot be sought in is read as it comes; but an MP4 may keep its index at the end, so it
    is copied to a temporary file first, and so is a file that does not stand at its beginning.

    Raises:
        SourceError: nothing is left to read, or it is text.
    """
    head = _head(file, name)
    if not head:
        raise SourceError(f"{name} is empty (0 bytes, or read to its end).",
                          hint="Pipe a video: cat FILE | ...; or seek(0) in the file.")
    is_seekable = getattr(file, "seekable", lambda: False)()
    if is_seekable and file.tell() == len(head):
        return file, head
    if not is_seekable and head[4:8] not in _ISO_BOXES and not needs_pillow(head):
        return Pipe(head, file, name=name, limits=limits), head
    return _spooled(head, file, name, limits), head


def _spooled(head: bytes, rest: IO[bytes], name: str, limits: Limits) -> IO[bytes]:
    """Copy what is left of a file to a temporary one."""
    spooled = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        data = head
        while data:
            spooled.write(data)
            if spooled.tell() > limits.copied_bytes:
                raise limits.refusal("copied_bytes", f"{name} gave {spooled.tell()} bytes, which "
                                                     "are copied to the disk before they are read")
            data = rest.read(_COPIED_AT_ONCE)
    except BaseException as error:
        spooled.close()
        if isinstance(error, OSError):
            raise SourceError(f"{name} cannot be copied to a temporary file: {_reason(error)}.",
                              hint="Pass a file instead of a pipe, or make room.") from error
        raise
    return spooled


def _head(file: IO[bytes], name: str) -> bytes:
    head = b""
    try:
        while len(head) < _HEAD_BYTES and (read := file.read(_HEAD_BYTES - len(head))):
            if not isinstance(read, bytes):
                raise SourceError(f"{name} is open as text; allowed: a file opened with 'rb'.",
                                  hint="Open it with open(PATH, 'rb').")
            head += read
    except (OSError, ValueError) as error:
        raise SourceError(f"{name} cannot be read: {_reason(error)}.",
                          hint="Pass a file that is open for reading bytes.") from error
    return head


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:].rstrip(".")
