"""Where video comes from: files, folders, patterns, a pipe, network and local cameras.

`resolve_sources` turns what a user typed into a list of sources; `open_video` opens one of them
and hands out the packets of its default video stream, once. Nothing is decoded here.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import sys
import tempfile
from collections import deque
from collections.abc import Generator, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from edgepkd.errors import SourceError
from edgepkd.video.source_names import STDIN as STDIN
from edgepkd.video.source_names import is_live_source as is_live_source
from edgepkd.video.source_names import shown_argument
from edgepkd.video.source_names import shown_source as shown_source
from edgepkd.video.stops import carrying_stops

VIDEO_SUFFIXES = frozenset({
    ".264", ".3gp", ".asf", ".avi", ".divx", ".flv", ".h264", ".h265", ".hevc", ".m1v", ".m2ts",
    ".m2v", ".m4v", ".mjpeg", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv",
    ".ts", ".vob", ".webm", ".wmv",
})
"""What counts as a video in a folder; a file named outright may have any name."""

ALLOWED = "a file, a folder, a pattern such as 'clips/*.mp4', '-', rtsp://..., /dev/video*"
OPEN_TIMEOUT_S, READ_TIMEOUT_S = 10.0, 10.0
"""How long a network camera may take to answer and to send its next packet."""

_MAX_READ_ERRORS = 8
_ISO_BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"})


def resolve_sources(argument: str) -> list[str]:
    """Return the sources that `argument` names, in natural order ('clip2' before 'clip10').

    A folder gives all files in it and below with a suffix of VIDEO_SUFFIXES.

    Raises:
        SourceError: nothing is there, or the folder or pattern holds no video.
    """
    if argument == STDIN or is_live_source(argument):
        return [argument]
    if "://" in argument:
        raise SourceError(f"{shown_source(argument)} is no source edgepkd can open; "
                          f"allowed: {ALLOWED}.",
                          hint="Download the video first, or pipe it in and pass '-'.")
    path = Path(argument)
    if path.is_dir():
        return _videos_below(path)
    if path.exists():
        return [argument]
    if glob.has_magic(argument):
        found = [name for name in glob.glob(argument, recursive=True) if Path(name).is_file()]
        if found:
            return sorted(found, key=_natural_key)
        raise SourceError(f"No file fits the pattern {shown_argument(argument)}; "
                          f"allowed: {ALLOWED}.",
                          hint="Quote the pattern, or list the folder to see what is there.")
    raise SourceError(f"{shown_argument(argument)} does not exist; allowed: {ALLOWED}.",
                      hint="Check the path.")


def open_video(source: str) -> VideoInput:
    """Open one source, at its default video stream, and read no packet yet.

    The default stream is the one the ffmpeg tool takes: the largest picture, cover art last.

    Raises:
        SourceError: missing, empty, unreadable, no video format, or without a video stream.
    """
    spooled: BinaryIO | None = None
    container: InputContainer | None = None
    reason = ""
    try:
        if source == STDIN:
            spooled = _standard_input()
            container = av.open(spooled, mode="r")
        elif is_live_source(source):
            container = _open_camera(source)
        else:
            _check_file(source)
            # The prefix keeps a file name with a colon from being taken for a protocol.
            container = av.open(f"file:{source}", mode="r")
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = _reason(error).replace(source, shown_source(source))
    if container is None:
        # Not inside the handler: FFmpeg's error shows the address with its password, and would
        # go along as the context of this one.
        raise SourceError(f"{_name(source)} cannot be opened: {reason}.", hint=_open_hint(source))
    try:
        return VideoInput(source, container, default_stream(container, source), spooled)
    except BaseException:
        container.close()
        raise


def default_stream(container: InputContainer, source: str) -> VideoStream:
    """Return the video stream that the ffmpeg tool would take.

    Raises:
        SourceError: there is none, or the 'video' is text.
    """
    if container.format.name == "tty":
        raise SourceError(f"{_name(source)} is text, not video; allowed: {ALLOWED}.")
    streams = container.streams.video
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none at all"
        raise SourceError(f"{_name(source)} has no video stream; streams found: {kinds}.",
                          hint="Pass a file that holds video.")
    best = max(streams, key=_stream_score)
    if best.codec_context is None:
        raise SourceError(f"{_name(source)} holds video that this FFmpeg has no decoder for.",
                          hint="Convert it, for example: ffmpeg -i IN -c:v libx264 OUT.mp4.")
    return best


class VideoInput:
    """An open source: the packets of one video stream, once, with a look ahead.

    Attributes:
        source: what was opened, without a password.
        name: what to call it in a message.
        container, stream: PyAV's objects; the stream's own codec context is not used.
        is_live: a camera; packets come until it stops.
        num_read_errors: damaged places the demuxer reported and that were skipped.
        fps: frame rate the caller gave for a stream that has none of its own; None: not given.
    """

    def __init__(
        self,
        source: str,
        container: InputContainer,
        stream: VideoStream,
        spooled: BinaryIO | None = None,
    ) -> None:
        self.source = shown_source(source)
        self.name = _name(source)
        self.container = container
        self.stream = stream
        self.is_live = is_live_source(source)
        self.num_read_errors = 0
        self.fps: Fraction | None = None
        self._spooled = spooled
        self._ahead: deque[Packet[Any]] = deque()
        self._demuxed = self._demux()

    def peek(self, count: int) -> list[Packet[Any]]:
        """Return up to `count` packets that `packets` will give next; they stay in memory."""
        while len(self._ahead) < count:
            packet = next(self._demuxed, None)
            if packet is None:
                break
            self._ahead.append(packet)
        return list(islice(self._ahead, count))

    def packets(self) -> Iterator[Packet[Any]]:
        """Yield the stream's packets in demux order, without the empty one at the end.

        Raises:
            SourceError: a camera stopped sending.
        """
        while True:
            packet = self._ahead.popleft() if self._ahead else next(self._demuxed, None)
            if packet is None:
                return
            yield packet

    def close(self) -> None:
        """Close the source; a second call does nothing."""
        self._ahead.clear()
        self._demuxed.close()
        self.container.close()
        if self._spooled is not None and self._spooled is not sys.stdin.buffer:
            self._spooled.close()

    def __enter__(self) -> VideoInput:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _demux(self) -> Generator[Packet[Any], None, None]:
        errors_in_a_row = 0
        reason: str | None = None
        while errors_in_a_row < _MAX_READ_ERRORS and reason is None:
            try:
                for packet in self.container.demux(self.stream):
                    if packet.size == 0:
                        continue
                    errors_in_a_row = 0
                    yield packet
                return
            except av.FFmpegError as error:
                if self.is_live:
                    reason = _reason(error)
                # Reading on after a damaged place is what players do.
                errors_in_a_row += 1
                self.num_read_errors += 1
        if reason is not None:
            raise SourceError(f"{self.name} stopped sending: {reason}.",
                              hint="Check the camera and the network.")


def _stream_score(stream: VideoStream) -> int:
    context = stream.codec_context
    if context is None or stream.disposition & Disposition.attached_pic:
        return 0 if context else -1
    is_default = bool(stream.disposition & Disposition.default)
    return 1 + context.width * context.height + 5_000_000 * is_default


def _videos_below(folder: Path) -> list[str]:
    found = [
        str(path) for path in folder.rglob("*")
        if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not found:
        raise SourceError(f"{folder} holds no video; allowed suffixes: "
                          f"{' '.join(sorted(VIDEO_SUFFIXES))}.",
                          hint="Name the file itself if it has another suffix.")
    return sorted(found, key=_natural_key)


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in parts]


def _check_file(source: str) -> None:
    path = Path(source)
    if not path.exists():
        raise SourceError(f"{source} does not exist; allowed: {ALLOWED}.", hint="Check the path.")
    if path.is_dir():
        raise SourceError(f"{source} is a folder, one video was expected.",
                          hint="Name a file in it.")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{source} cannot be read: permission denied.",
                          hint="Check the file's permissions.")
    if path.is_file() and path.stat().st_size == 0:
        raise SourceError(f"{source} is empty (0 bytes).", hint="Copy or record it again.")


def _open_camera(source: str) -> InputContainer:
    if source.startswith("/dev/video"):
        if not Path(source).exists():
            raise SourceError(f"{source} does not exist.", hint="List cameras: ls /dev/video*.")
        return av.open(source, mode="r", format="v4l2")
    return av.open(source, mode="r", options={"rtsp_transport": "tcp"},
                   timeout=(OPEN_TIMEOUT_S, READ_TIMEOUT_S))


class _Pipe:
    """A pipe whose first bytes were already taken, for reading only: FFmpeg must not seek in it."""

    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = head, rest

    def read(self, size: int) -> bytes:
        if self._head:
            taken, self._head = self._head[:size], self._head[size:]
            return taken
        with carrying_stops():
            return self._rest.read(size)

    def close(self) -> None:
        """Leave standard input open."""


def _standard_input() -> BinaryIO:
    """Return standard input as FFmpeg can read it.

    An MP4 may keep its index at the end, so it is copied to a temporary file first; all other
    formats are read from the pipe as they come.
    """
    stdin = sys.stdin.buffer
    head = stdin.read(64)
    if not head:
        raise SourceError("Standard input is empty (0 bytes).", hint="Pipe a video: cat FILE | ...")
    if stdin.seekable():
        stdin.seek(0)
        return stdin
    if head[4:8] not in _ISO_BOXES:
        return _Pipe(head, stdin)  # type: ignore[return-value]
    spooled = tempfile.TemporaryFile()  # noqa: SIM115
    spooled.write(head)
    shutil.copyfileobj(stdin, spooled)
    spooled.seek(0)
    return spooled


def _name(source: str) -> str:
    return "Standard input" if source == STDIN else shown_source(source)


def _reason(error: Exception) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return text[:1].lower() + text[1:].rstrip(".")


def _open_hint(source: str) -> str:
    if is_live_source(source):
        return "Check the address, the network and that no other program holds the camera."
    return "It is damaged, cut off, or no video; try to play it, or copy it again."
