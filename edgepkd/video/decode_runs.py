"""Runs of packets that decode from one point on, and the few decoders they share.

A run starts where decoding can start (a closed key packet) and holds the packets up to the next
such point. Its GOPs are held weakly: a GOP that nobody holds costs nothing, and there is no
reference cycle, so memory is given back at once.
"""

from __future__ import annotations

import bisect
import contextlib
import time
import weakref
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import av
import numpy as np

from edgepkd.errors import DecodeError
from edgepkd.video.decoder import (
    MAX_ERRORS_IN_A_ROW,
    CodecParams,
    DecodeCounters,
    PacketDecoder,
    PictureMaker,
    check_frame,
)
from edgepkd.video.fields import NUM_REFERENCES, Accumulator, WorkingGrid, working_grid
from edgepkd.video.h264 import NO_CROP
from edgepkd.video.orientation import UPRIGHT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from av.packet import Packet
    from av.video.frame import VideoFrame

    from edgepkd.config import DecodeSpec

_MAX_RUN_BYTES = 32 << 20
"""Packets kept to decode a run again; a longer run forgets what it has decoded."""
_DECODER_BYTES_PER_PX = 12
"""Frames of 1.5 bytes per pixel that a decoder holds, roughly eight."""
_MAX_DECODER_BYTES = 64 << 20
_MAX_HELD_BACK = 16
"""Pictures that an H.264 decoder may hold back (A.3.1: max_dec_frame_buffering)."""
_NEVER = 1 << 62
_PLACEHOLDER_BYTES = 20
"""A shorter packet may hold a picture that is not coded, and gives no frame without an error."""


class FrameReceiver(Protocol):
    """What a run knows of a GOP: which packets are its own, and how it gets their frames."""

    @property
    def first_number(self) -> int:
        """Number of its first packet in the stream."""
        ...

    @property
    def last_number(self) -> int:
        """Number of the last packet that is decoded for it."""
        ...

    def take(self, frame: VideoFrame, *, number: int, recent: list[VideoFrame]) -> None:
        """Receive the frame of packet `number`; `recent` came before it, newest last."""
        ...


@dataclass
class _Lease:
    """A decoder and the run it is in the middle of."""

    decoder: PacketDecoder
    motion_only: bool
    run: Callable[[], DecodeRun | None]
    """A weak reference."""
    next_number: int
    """Number of the packet that would continue what the decoder has seen."""


class StreamDecoder:
    """What the GOPs of one stream share: settings, counters, picture maker and decoders."""

    def __init__(
        self, params: CodecParams, *, spec: DecodeSpec, counters: DecodeCounters
    ) -> None:
        self.params = params
        self.spec = spec
        self.counters = counters
        self.pictures = PictureMaker()
        self.size = params.decoded_size_px
        """Of the frames decoded last: what the next GOP is expected to have."""
        self.orientation = params.orientation
        self.shows_all = params.orientation == UPRIGHT and params.crop == NO_CROP
        """True: what is decoded is looked at as it is."""
        multi = params.codec_name == "h264" and params.num_ref_frames > 1
        self.num_references = NUM_REFERENCES if multi else 1
        self.whole_pixels = spec.arithmetic == "coviar"
        # So that a field summed over a whole GOP fits int16.
        self.vector_limit = np.iinfo(np.int16).max // spec.gop_frames & ~3
        self.errors_in_a_row = 0
        self.num_idle = 0
        """Packets decoded since the last one that gave a frame."""
        self.newest: VideoFrame | None = None
        """The last frame decoded; stands in where a whole GOP is damaged."""
        self._leases: list[_Lease] = []
        self._spare: list[Accumulator] = []

    def grid(self, width_px: int, height_px: int) -> WorkingGrid:
        """The working grid for frames of this size.

        Raises:
            LimitError: it is over the limits of the source.
            DecodeError: the size changes in a stream that is cropped: by how much is not known.
        """
        self.params.limits.check_picture(self.params.source, width_px, height_px)
        crop = self.params.crop
        if crop != NO_CROP and (width_px, height_px) != self.params.decoded_size_px:
            raise DecodeError("The picture size changes in a stream whose pictures are cropped.",
                              hint="Use --route normalize, which re-encodes the stream.")
        return working_grid(width_px, height_px, grid_px=self.spec.grid_px,
                            max_short_side_px=self.spec.max_short_side_px, crop=crop)

    def accumulator(self, grid: WorkingGrid) -> Accumulator:
        """A field at rest, reused where one was given back."""
        while self._spare:
            accumulator = self._spare.pop()
            if accumulator.grid is grid:
                accumulator.restart()
                return accumulator
        return Accumulator(grid, spec=self.spec, num_references=self.num_references)

    def give_back(self, accumulator: Accumulator) -> None:
        """Keep an accumulator that a GOP no longer needs."""
        if len(self._spare) < 4:
            self._spare.append(accumulator)

    def count_idle(self) -> None:
        """Count a packet that gave no frame.

        Raises:
            LimitError: too many did in a row.
        """
        self.num_idle += 1
        params = self.params
        if self.num_idle > params.limits.packets:
            raise params.limits.refusal("packets", f"{params.source}: {self.num_idle} packets in a "
                                                   "row give no picture")

    def lease_for(self, run: DecodeRun) -> _Lease:
        """The decoder that `run` is being decoded with, or one to begin it with."""
        if self._leases and self._leases[-1].run() is run:
            return self._leases[-1]
        for at, lease in enumerate(self._leases):
            if lease.run() is run:
                self._leases.append(self._leases.pop(at))
                return lease
        motion_only = not self.spec.pixels and run.motion_only_is_exact
        lease = self._free_lease(motion_only) or self._new_lease(motion_only)
        if lease.next_number != run.first_number:
            lease.decoder.reset()
        lease.run = weakref.ref(run)
        return lease

    def _free_lease(self, motion_only: bool) -> _Lease | None:
        free = [lease for lease in self._leases
                if lease.motion_only == motion_only and _is_done(lease.run())]
        bytes_each = max(self.size[0] * self.size[1], 1) * _DECODER_BYTES_PER_PX
        most = min(max(_MAX_DECODER_BYTES // bytes_each, 2), 8)
        if not free and len(self._leases) >= most:
            # The least recently used one; its run starts anew if it is asked again.
            free = sorted((lease for lease in self._leases if lease.motion_only == motion_only),
                          key=_is_restartable, reverse=True)
        if not free:
            return None
        lease = free[0]
        old = lease.run()
        if old is not None and not old.is_done:
            old.lose_decoder()
        self._leases.append(self._leases.pop(self._leases.index(lease)))
        return lease

    def _new_lease(self, motion_only: bool) -> _Lease:
        lease = _Lease(PacketDecoder(self.params, motion_only=motion_only), motion_only,
                       _no_run, -1)
        self._leases.append(lease)
        return lease


def _no_run() -> None:
    return None


def _is_done(run: DecodeRun | None) -> bool:
    return run is None or run.is_done


def _is_restartable(lease: _Lease) -> bool:
    run = lease.run()
    return run is None or run.is_restartable


class _Held(NamedTuple):
    packet: Packet[Any]
    number: int
    is_dropped: bool
    pts: int | None
    dts: int | None


class DecodeRun:
    """Packets from one point where decoding can start to the next, decoded as far as asked."""

    def __init__(
        self, stream: StreamDecoder, *, starts_closed: bool,
        read_more: Callable[[], Callable[[], bool] | None],
    ) -> None:
        """`read_more` is a weak reference to what reads one more packet of the stream."""
        self._stream = stream
        self._starts_closed = starts_closed
        self._read_more = read_more
        self._held: list[_Held] = []
        self._num_bytes = 0
        self._fed = 0
        self._settled = -1
        """Number up to which every frame has come out of the decoder, or never will."""
        self._complete = False
        self._gops: list[weakref.ref[FrameReceiver]] = []
        self._gop_starts: list[int] = []
        self._last_number = -1
        """Of the newest GOP."""
        self._early: deque[tuple[int, VideoFrame]] = deque()
        """Frames, by number, that came out before their GOP was cut."""
        self._recent: list[VideoFrame] = []
        """Frames since the anchor of the GOP being decoded, newest last, at most as many as the
        reference choice looks at."""
        self.is_restartable = True

    @property
    def first_number(self) -> int:
        """Number of the first packet held."""
        return self._held[0].number

    @property
    def is_done(self) -> bool:
        """True if every frame that will ever come has come."""
        return self._complete and (not self._held or self._settled >= self._held[-1].number)

    @property
    def motion_only_is_exact(self) -> bool:
        """True if no picture but the first is an anchor or is looked at: P-frame pixels may then
        stay unfinished."""
        return (self._starts_closed and self._complete
                and self._gop_starts == [self.first_number]
                and self._stream.num_references == 1)

    def append(self, packet: Packet[Any], number: int, *, is_dropped: bool) -> None:
        """Add the next packet; an overlong run decodes and forgets its beginning."""
        self._held.append(_Held(packet, number, is_dropped, packet.pts, packet.dts))
        self._num_bytes += packet.size
        if self._num_bytes > _MAX_RUN_BYTES and len(self._gop_starts) > 1:
            self._forget(self._gop_starts[-1])

    def add(self, gop: FrameReceiver) -> None:
        """Let `gop` have its frames when they are decoded."""
        self._gops.append(weakref.ref(gop))
        self._gop_starts.append(gop.first_number)
        self._last_number = gop.last_number
        while self._early and self._early[0][0] <= self._last_number:
            self._hand_on(*self._early.popleft())

    def close(self) -> None:
        """No packet will follow."""
        self._complete = True

    def replay(self) -> Iterator[Packet[Any]]:
        """The packets held, each with the timestamps it came with."""
        for item in self._held:
            item.packet.pts, item.packet.dts = item.pts, item.dts
            yield item.packet

    def lose_decoder(self) -> None:
        """The decoder was given to another run."""
        self._start_over()
        if not self.is_restartable:
            self._fed = len(self._held)
            self._settled = self._held[-1].number if self._held else -1

    def advance(self, number: int) -> None:
        """Decode on until the frame of packet `number` has come, or it is sure that it will not.

        Does nothing if it was passed already.

        Raises:
            DecodeError: too many packets fail, or the stream is not one for the native route.
        """
        if self._settled >= number:
            return
        started_s = time.perf_counter()
        lease = self._stream.lease_for(self)
        self._decode(lease, number)
        self._stream.counters.decode_s += time.perf_counter() - started_s

    def fetch(self, gop: FrameReceiver, number: int) -> None:
        """Bring the frame of packet `number` to `gop`, decoding again where it was not kept."""
        if self._recent and self._recent[-1].pts == number:
            gop.take(self._recent[-1], number=number, recent=[])
            return
        if self._settled >= number:
            if not self.is_restartable:
                raise DecodeError(
                    f"Frame {number} was decoded before it was asked for, and is gone.",
                    hint="Name the positions with Gop.plan() before asking for motion.")
            self._stream.lease_for(self).decoder.reset()
            self._start_over()
        self.advance(number)

    def _start_over(self) -> None:
        self._fed, self._settled = 0, -1
        self._recent = []
        self._early.clear()

    def _decode(self, lease: _Lease, number: int) -> None:
        held, decoder = self._held, lease.decoder
        while self._settled < number:
            if self._fed < len(held):
                item = held[self._fed]
                self._fed += 1
                self._feed(decoder, item)
                lease.next_number = item.number + 1
            elif self._complete or not self._more():
                self._drain(decoder)
                lease.next_number = -1

    def _more(self) -> bool:
        """Read a packet that nobody asked for yet; False if none will come."""
        read_one = self._read_more()
        if read_one is None or not read_one():
            self._complete = True
        return not self._complete

    def _drain(self, decoder: PacketDecoder) -> None:
        """Get the pictures that the decoder held back; the run ends here."""
        with contextlib.suppress(av.FFmpegError):
            for frame in decoder.decode(None):
                self._deliver(frame)
        decoder.reset()
        self._settled = _NEVER  # past every number that may still be asked for

    def _feed(self, decoder: PacketDecoder, item: _Held) -> None:
        counters = self._stream.counters
        frames: list[VideoFrame] = []
        failed = False
        # The only way to know for certain which packet a frame came from.
        item.packet.pts = item.packet.dts = item.number
        try:
            frames = decoder.decode(item.packet)
        except av.FFmpegError:
            failed = True
        if not item.is_dropped:
            counters.packets_decoded += 1
        held_back = _MAX_HELD_BACK if decoder.holds_back else 0
        if item.number - held_back > self._settled:
            self._settled = item.number - held_back
        if frames:
            self._stream.errors_in_a_row = self._stream.num_idle = 0
        else:
            self._stream.count_idle()
            if failed or not (held_back or item.is_dropped):
                self._count_error(item)
        for frame in frames:
            self._deliver(frame)

    def _count_error(self, item: _Held) -> None:
        stream = self._stream
        if item.is_dropped or item.packet.size <= _PLACEHOLDER_BYTES:
            return
        stream.counters.errors += 1
        stream.errors_in_a_row += 1
        if stream.errors_in_a_row > MAX_ERRORS_IN_A_ROW:
            raise DecodeError(
                f"{stream.errors_in_a_row} packets in a row cannot be decoded as "
                f"{stream.params.codec_name}.",
                hint="The file is damaged, or its codec is not what its container says.")

    def _deliver(self, frame: VideoFrame) -> None:
        stream = self._stream
        check_frame(frame, stream.params)
        if frame.is_corrupt:
            stream.counters.errors += 1
        stream.size = (frame.width, frame.height)
        stream.newest = frame
        number = frame.pts
        if number is None:
            return
        if number > self._settled:
            self._settled = number
        if self._early or number > self._last_number:
            self._early.append((number, frame))
        else:
            self._hand_on(number, frame)

    def _hand_on(self, number: int, frame: VideoFrame) -> None:
        at = bisect.bisect_right(self._gop_starts, number) - 1
        if at < 0:
            return
        if number == self._gop_starts[at]:
            self._recent = []
        gop = self._gops[at]()
        if gop is not None:
            gop.take(frame, number=number, recent=self._recent)
        if self._stream.num_references == 1:
            self._recent = [frame]
        else:
            self._recent = [*self._recent, frame][-self._stream.num_references :]

    def _forget(self, number: int) -> None:
        """Decode up to packet `number` and drop the packets before it."""
        self.is_restartable = False
        self.advance(number - 1)
        self._num_bytes -= sum(item.packet.size for item in self._held[: self._fed])
        del self._held[: self._fed]
        self._fed = 0
