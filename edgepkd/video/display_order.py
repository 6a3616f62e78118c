"""From packets in decoding order to pictures in display order."""

from __future__ import annotations

import weakref
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from edgepkd.video.decode_runs import DecodeRun, StreamDecoder
from edgepkd.video.h264 import same_pictures
from edgepkd.video.packet_kinds import Kind, classifier, known_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from av.packet import Packet

    from edgepkd.video.decoder import CodecParams

_MAX_PACKETS_BEFORE_KEY = 300
"""Packets read in the hope of a key packet; a stream without one starts at its first packet."""


class Picture(NamedTuple):
    """One displayed picture and the packet it comes in."""

    number: int
    kind: int
    pts: int | None
    dts: int | None
    run: DecodeRun

    @property
    def is_reference(self) -> bool:
        """True if it is decoded at all."""
        return self.kind >= Kind.REFERENCE

    @property
    def is_key(self) -> bool:
        """True if the stream itself has an anchor here."""
        return self.kind >= Kind.OPEN_KEY


class Turn(NamedTuple):
    """Where a stream becomes one that has to be read in another way."""

    why: Literal["b_frames", "pictures"]
    """H.264 B-frames begin; or pictures of another size or form."""
    header: bytes
    """What the stream says of its new pictures (`Classifier.header`)."""
    extradata: bytes | None
    """What the container says of them, where that is new."""
    packets: Iterator[Packet[Any]]
    """From here on, or from where decoding can start before it, with their own timestamps."""
    is_whole: bool = True
    """False: `packets` begin amid a run whose beginning is forgotten."""


class Intake:
    """Reads packets one by one, puts them into runs, and stops where the stream takes a turn.

    A decoder that holds pictures back asks its run for packets that nobody has read yet, so
    reading is not tied to the order in which pictures are shown.
    """

    def __init__(
        self, packets: Iterable[Packet[Any]], *, params: CodecParams, stream: StreamDecoder
    ) -> None:
        self._packets = iter(packets)
        self._stream = stream
        self._classify = classifier(params.codec_name, params.extradata,
                                    has_b_frames=params.has_b_frames)
        self._codec_name, self._extradata = params.codec_name, params.extradata
        self._header = params.header
        self._items = self._from_first_key()
        self._early: deque[tuple[Packet[Any], int]] = deque()
        self._ahead: deque[Picture] = deque()
        self._number = -1
        self._num_idle = 0
        """Packets since the last one that gives a picture of its own."""
        self._run: DecodeRun | None = None
        self.turn: Turn | None = None

    def next_picture(self) -> Picture | None:
        """The next picture in decoding order; None at the end, or at a turn."""
        while not self._ahead:
            if not self.read_one():
                return None
        return self._ahead.popleft()

    def read_one(self) -> bool:
        """Take in one more packet; False at the end, or at a turn."""
        item = None if self.turn is not None else next(self._items, None)
        if item is not None:
            packet, kind = item
            if Kind.H264_B < kind < Kind.OPEN_KEY or not self._is_turn(packet, kind):
                self._take(packet, kind)
                return True
        if self._run is not None:
            self._run.close()
            self._run = None
        return False

    def _take(self, packet: Packet[Any], kind: int) -> None:
        self._number = number = self._number + 1
        if kind >= Kind.REFERENCE:
            self._num_idle = 0
        else:
            self._count_idle()
        run = self._run
        if run is None or kind == Kind.CLOSED_KEY:
            run = self._begin_run(starts_closed=kind == Kind.CLOSED_KEY)
        if kind == Kind.NOTHING:
            return
        is_hidden = packet.is_discard  # by an edit list: decoded for those after, never shown
        if not is_hidden:
            if kind <= Kind.DROPPED_IN_ORDER:
                self._stream.counters.packets_skipped += 1
            self._ahead.append(Picture(number, kind, packet.pts, packet.dts, run))
        if kind != Kind.DROPPED_IN_ORDER:
            run.append(packet, number, is_dropped=kind == Kind.DROPPED or is_hidden)

    def _count_idle(self) -> None:
        self._num_idle += 1
        params = self._stream.params
        if self._num_idle > params.limits.packets:
            raise params.limits.refusal("packets", f"{params.source}: {self._num_idle} packets in "
                                                   "a row give no picture")

    def _begin_run(self, *, starts_closed: bool) -> DecodeRun:
        if self._run is not None:
            self._run.close()
        # A weak method: a run must not keep its reader alive, nor form a cycle with it.
        self._run = DecodeRun(self._stream, starts_closed=starts_closed,
                              read_more=weakref.WeakMethod(self.read_one))
        return self._run

    def _is_turn(self, packet: Packet[Any], kind: int) -> bool:
        if kind == Kind.H264_B:
            run = self._run
            held = run.replay() if run is not None else ()
            self.turn = Turn("b_frames", self._classify.header, None,
                             self._rest(packet, before=held),
                             is_whole=run is None or run.is_restartable)
            return True
        extradata = _new_extradata(packet)
        header, known = self._classify.header, self._header
        if extradata is not None and extradata != self._extradata:
            header = known_header(self._codec_name, extradata)
            self.turn = Turn("pictures", header, extradata, self._rest(packet))
            return True
        if header in (known, b""):
            return False
        self._header = header
        if not known or same_pictures(known, header, is_h264=self._codec_name == "h264"):
            return False
        self.turn = Turn("pictures", header, None, self._rest(packet))
        return True

    def _rest(
        self, packet: Packet[Any], *, before: Iterable[Packet[Any]] = ()
    ) -> Iterator[Packet[Any]]:
        # Whoever goes on counts these packets.
        self._stream.counters.packets_read -= 1 + len(self._early)
        return chain(before, [packet], (early for early, _ in self._early), self._packets)

    def _from_first_key(self) -> Iterator[tuple[Packet[Any], int]]:
        """Packets with their kinds, from the first key packet on if there is one in reach."""
        counters, early = self._stream.counters, self._early
        has_key = False
        for packet in self._packets:
            counters.packets_read += 1
            item = packet, self._classify(packet)
            if not has_key and item[1] < Kind.OPEN_KEY:
                early.append(item)
                has_key = len(early) > _MAX_PACKETS_BEFORE_KEY
                if not has_key:
                    continue
                while early:
                    yield early.popleft()
                continue
            if not has_key:
                has_key = True
                counters.packets_skipped += len(early)
                early.clear()
            yield item
        while early:
            yield early.popleft()


def _new_extradata(packet: Packet[Any]) -> bytes | None:
    """Codec settings that the container changes with this packet (FLV, MP4 of several parts)."""
    if not packet.has_sidedata("new_extradata"):
        return None
    return bytes(packet.get_sidedata("new_extradata"))


def shown_pictures(intake: Intake) -> Iterator[Picture]:
    """The pictures in display order, up to a turn.

    A reference picture is shown after the B-frames that follow its packet, which is all the
    reordering there is where B-frames are not references.
    """
    waiting: Picture | None = None
    while (picture := intake.next_picture()) is not None:
        if waiting is not None and picture.kind != Kind.DROPPED:
            yield waiting
            waiting = None
        if picture.is_reference:
            waiting = picture
        else:
            yield picture
    # B-frames that begin here are shown before the picture that waits: it goes with them.
    if waiting is not None and (intake.turn is None or intake.turn.why != "b_frames"):
        yield waiting
