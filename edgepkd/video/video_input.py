"""One open video: its container, its stream, its packets."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack
from fractions import Fraction
from itertools import islice
from typing import IO, Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from edgepkd.closing import Closing
from edgepkd.errors import SourceError
from edgepkd.video.cameras import stopped
from edgepkd.video.limits import DEFAULT_LIMITS, Limits
from edgepkd.video.pipes import Pipe
from edgepkd.video.source_names import ALLOWED, told_name
from edgepkd.video.source_names import Source as Source
from edgepkd.video.source_names import is_live_source as is_live_source
from edgepkd.video.source_names import shown_source as shown_source
from edgepkd.video.stills import Pictures

_MAX_READ_ERRORS = 8


def default_stream(container: InputContainer, source: Source) -> VideoStream:
    """Return the video stream that the ffmpeg tool would take, but for cover art.

    Raises:
        SourceError: there is none, or the 'video' is text.
    """
    name = told_name(source)
    if container.format.name == "tty":
        raise SourceError(f"{name} is text, not video; allowed: {ALLOWED}.")
    streams = [stream for stream in container.streams.video
               if not stream.disposition & Disposition.attached_pic]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "none at all"
        found = ("but a cover picture" if container.streams.video else f"; streams found: {kinds}")
        raise SourceError(f"{name} has no video stream {found}.".replace(" ;", ";"),
                          hint="Pass a file that holds video.")
    best = max(streams, key=_stream_score)
    if best.codec_context is None:
        raise SourceError(f"{name} holds video that this FFmpeg has no decoder for.",
                          hint="Convert it, for example: ffmpeg -i IN -c:v libx264 OUT.mp4.")
    return best


class VideoInput(Closing):
    """An open source: the packets of one video stream, once, with a look ahead.

    Attributes:
        source: what was opened, without a password.
        name: what to call it in a message.
        container, stream: PyAV's objects; the stream's own codec context is not used.
        is_live: a camera; packets come until it stops.
        num_read_errors: damaged places the demuxer reported and that were skipped.
        fps: frame rate the caller gave for a stream that has none of its own; None: not given.
        duration_s: of pictures, which no container tells; None: ask the container.
        notes: what had to be assumed, in words for the user.
        limits: how much it may ask for.
    """

    def __init__(
        self,
        source: Source,
        container: InputContainer,
        stream: VideoStream,
        *,
        owned: IO[bytes] | ExitStack | None = None,
        pipe: Pipe | None = None,
        pictures: Pictures | None = None,
        fps: Fraction | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Take over an open container; `owned` is to be closed with it, `pipe` is what it reads."""
        self.source = shown_source(source)
        self.name = told_name(source)
        self.container = container
        self.stream = stream
        self.is_live = is_live_source(source)
        self.num_read_errors = 0
        self.fps = fps
        self.duration_s = pictures.duration_s if pictures else None
        self.notes: list[str] = []
        self.limits = limits
        self._owned, self._pipe = owned, pipe
        self._ahead: deque[Packet[Any]] = deque()
        self._demuxed = self._demux_live() if self.is_live else self._demux(pictures)

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
            SourceError: a camera stopped sending, or ended the stream.
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
        if self._owned is not None:
            self._owned.close()

    def _demux(self, pictures: Pictures | None) -> Generator[Packet[Any], None, None]:
        errors_in_a_row = 0
        while errors_in_a_row < _MAX_READ_ERRORS:
            try:
                for packet in pictures.packets if pictures else self._packets_of(self.stream):
                    if packet is None:
                        self.num_read_errors += 1
                    elif packet.size:
                        errors_in_a_row = 0
                        if self._pipe is not None:
                            self._pipe.found_packet()
                        yield packet
                return
            except (av.FFmpegError, OSError, ValueError):
                # Reading on after a damaged place is what players do.
                errors_in_a_row += 1
                self.num_read_errors += 1

    def _packets_of(self, *streams: VideoStream) -> Iterator[Packet[Any]]:
        """Packets of `streams`, of all if none is named, though others may begin after the
        container was opened (TS)."""
        while True:
            try:
                yield from self.container.demux(*streams)
                return
            except IndexError:
                continue  # PyAV looked for the stream of a packet that has a new one

    def _live_packets(self) -> Iterator[Packet[Any]]:
        """Packets of the stream, as long as not only those of others come."""
        num_others = 0
        for packet in self._packets_of():
            if packet.size and packet.stream_index == self.stream.index:
                num_others = 0
                yield packet
            elif packet.size:
                num_others += 1
                if num_others > self.limits.packets:
                    raise self.limits.refusal(
                        "packets", f"{self.name} sent {num_others} packets of sound or data and "
                                   "none of the video")

    def _demux_live(self) -> Generator[Packet[Any], None, None]:
        """Yield packets for ever: a camera that ends has failed."""
        begin, num_packets = time.monotonic(), 0
        failure: Exception | None = None
        try:
            for packet in self._live_packets():
                num_packets += 1
                yield packet
        except (av.FFmpegError, OSError) as error:
            failure = error
        # Not inside the handler: FFmpeg's error shows the address with its password.
        raise stopped(self.source, failure, num_packets=num_packets,
                      seconds=time.monotonic() - begin)


def _stream_score(stream: VideoStream) -> int:
    context = stream.codec_context
    if context is None:
        return -1
    is_default = bool(stream.disposition & Disposition.default)
    return 1 + context.width * context.height + 5_000_000 * is_default
