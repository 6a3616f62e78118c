"""From packets in decoding order to pictures in display order, with their times."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from edgepkd.video._heads import Kind, classifier
from edgepkd.video._runs import Engine, Run
from edgepkd.video.decoder import DEFAULT_FPS, CodecParams

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from av.packet import Packet

_MAX_OVERLAP_S = 0.5
_MAX_PACKETS_BEFORE_KEY = 300
"""Packets read in the hope of a key packet; a stream without one starts at its first packet."""


class Picture(NamedTuple):
    """One displayed picture and the packet it comes in."""

    number: int
    kind: int
    pts: int | None
    dts: int | None
    run: Run

    @property
    def is_reference(self) -> bool:
        """True if it is decoded at all."""
        return self.kind >= Kind.REFERENCE

    @property
    def is_key(self) -> bool:
        """True if the stream itself has an anchor here."""
        return self.kind >= Kind.OPEN_KEY


def shown_pictures(
    packets: Iterable[Packet[Any]], *, params: CodecParams, engine: Engine
) -> Iterator[Picture]:
    """The pictures in display order; their packets are put into runs on the way.

    A reference picture is shown after the B-frames that follow its packet, which is all the
    reordering there is where B-frames are not references.
    """
    run: Run | None = None
    waiting: Picture | None = None
    for number, (packet, kind) in enumerate(_from_first_key(packets, params, engine)):
        if run is None or kind == Kind.CLOSED_KEY:
            if run is not None:
                run.close()
            run = Run(engine, starts_closed=kind == Kind.CLOSED_KEY)
        picture = Picture(number, kind, packet.pts, packet.dts, run)
        if kind == Kind.NOTHING:
            continue
        if kind != Kind.DROPPED_IN_ORDER:
            packet.pts = packet.dts = number
            run.append(packet, number, is_dropped=kind == Kind.DROPPED or packet.is_discard)
        if packet.is_discard:
            continue  # an edit list hides it: decoded for those after it, never shown
        if kind <= Kind.DROPPED_IN_ORDER:
            engine.counters.packets_skipped += 1
        if waiting is not None and kind != Kind.DROPPED:
            yield waiting
            waiting = None
        if picture.is_reference:
            waiting = picture
        else:
            yield picture
    if run is not None:
        run.close()
    if waiting is not None:
        yield waiting


def _from_first_key(
    packets: Iterable[Packet[Any]], params: CodecParams, engine: Engine
) -> Iterator[tuple[Packet[Any], int]]:
    """Packets with their kinds, from the first key packet on if there is one in reach."""
    classify = classifier(params.codec_name, params.extradata, has_b_frames=params.has_b_frames)
    early: list[tuple[Packet[Any], int]] | None = []
    for packet in packets:
        engine.counters.packets_read += 1
        item = packet, classify(packet)
        if early is None:
            yield item
        elif item[1] >= Kind.OPEN_KEY:
            engine.counters.packets_skipped += len(early)
            early = None
            yield item
        else:
            early.append(item)
            if len(early) > _MAX_PACKETS_BEFORE_KEY:
                yield from early
                early = None
    yield from early or ()


class Clock:
    """Display times of a stream's pictures, in seconds."""

    def __init__(self, params: CodecParams) -> None:
        self._second = float(params.time_base)
        self._frame_s = float(1 / (params.fps or DEFAULT_FPS))
        self._num_shown = 0
        self._newest_s = -math.inf

    def times_s(self, pictures: Sequence[Picture]) -> tuple[float, ...]:
        """Times of consecutive pictures by timestamp; by count where the stream has none.

        Sorted: some containers number B-frames in decoding order.
        """
        first = self._num_shown
        self._num_shown += len(pictures)
        times = [(first + n) * self._frame_s for n in range(len(pictures))]
        for stamps in ([p.pts for p in pictures], [p.dts for p in pictures]):
            known = [stamp for stamp in stamps if stamp is not None]
            if len(known) == len(pictures):
                times = sorted(stamp * self._second for stamp in known)
                break
        # AVI numbers B-frames so that a GOP may begin a frame early; a real jump stays.
        if times[0] > self._newest_s - _MAX_OVERLAP_S:
            times = [max(t, self._newest_s) for t in times]
        self._newest_s = times[-1]
        return tuple(times)
