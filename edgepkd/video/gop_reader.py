"""A packet stream cut into GOPs: at key packets, and after `gop_frames` frames where there is none.

Any decoded frame can be an anchor (decode.md 1.6).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from edgepkd.config import DecodeSpec
from edgepkd.video.decode_runs import StreamDecoder
from edgepkd.video.decoder import CodecParams, DecodeCounters, check_native, check_size
from edgepkd.video.display_order import Intake, Picture, Turn, shown_pictures
from edgepkd.video.gop import Gop
from edgepkd.video.timeline import State, Timeline

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from av.packet import Packet


@dataclass
class _Cut:
    """A GOP that is being gathered."""

    before: State | None
    """The timeline before its first picture."""
    begins_anew: bool
    pictures: list[Picture] = field(default_factory=list)
    ticks: list[float] = field(default_factory=list)


class Resumption(NamedTuple):
    """Where the reader stopped that goes on with a turn's packets."""

    stamp: int | None
    """Timestamp of the first picture not given out yet, where the stream has any."""
    num_given: int
    """Pictures that the packets begin with and that were given out."""


class GopReader:
    """Cuts a packet stream into GOPs: at key packets, and after `spec.gop_frames` frames.

    Owns the packets it is given: their timestamps are replaced while they are decoded.

    Attributes:
        turn: why reading stopped before the stream ended, and how it goes on; None at its end.
        resumption: with a turn, from which picture on it is to be read.
    """

    def __init__(
        self,
        packets: Iterable[Packet[Any]],
        *,
        params: CodecParams,
        spec: DecodeSpec | None = None,
        counters: DecodeCounters | None = None,
        timeline: Timeline | None = None,
        begins_anew: bool = False,
    ) -> None:
        """Read `packets` (one video stream, demux order) with decoders of its own.

        `timeline` is the clock that the stream goes on with; `begins_anew` is for the first GOP.

        Raises:
            ConfigError: a stream the native route would decode wrongly.
        """
        check_native(params)
        check_size(params, max_short_side_px=(spec or DecodeSpec()).max_short_side_px)
        self.counters = counters if counters is not None else DecodeCounters()
        self.turn: Turn | None = None
        self.resumption = Resumption(None, 0)
        self._packets = packets
        self._params = params
        self._spec = spec or DecodeSpec()
        self._stream = StreamDecoder(params, spec=self._spec, counters=self.counters)
        self._timeline = timeline or Timeline(time_base=params.time_base, fps=params.fps)
        self._second = float(params.time_base)
        self._newest_s = -math.inf
        self._begins_anew = begins_anew
        self._num_gops = 0

    def __iter__(self) -> Iterator[Gop]:
        """The GOPs in order, each with all its packets read and none decoded."""
        intake = Intake(self._packets, params=self._params, stream=self._stream)
        timeline, breaks, cut = self._timeline, self._begins_anew, None
        has_stamps: bool | None = None
        for picture in shown_pictures(intake):
            if has_stamps is None:
                has_stamps = picture.pts is not None
            ends = cut is None or picture.is_key or (
                len(cut.pictures) >= self._spec.gop_frames and picture.is_reference)
            before = timeline.state() if ends else None
            ticks = timeline.place(picture.pts if has_stamps else picture.dts)
            if timeline.broke:
                ends = breaks = True
                before = timeline.before_break
            if ends:
                if cut is not None:
                    yield self._gop(cut)
                    cut = None
                if not picture.is_reference:
                    continue
                cut, breaks = _Cut(before, breaks), False
            assert cut is not None
            cut.pictures.append(picture)
            cut.ticks.append(ticks)
        self.turn = intake.turn
        if cut is not None:
            if self.turn is not None and self.turn.why == "b_frames":
                self._resume_at(cut, has_stamps is True)
            else:
                yield self._gop(cut)

    def _resume_at(self, cut: _Cut, has_stamps: bool) -> None:
        """B-frames begin: those shown within this GOP were not read, so it goes with them."""
        if cut.before is not None:
            self._timeline.go_back(cut.before)
        first = cut.pictures[0]
        self.resumption = Resumption(first.pts if has_stamps else None,
                                     first.number - first.run.first_number)

    def _gop(self, cut: _Cut) -> Gop:
        run = cut.pictures[0].run
        gop = Gop(index=self._num_gops, times_s=self._times_s(cut),
                  numbers=[p.number if p.is_reference else -1 for p in cut.pictures],
                  run=run, stream=self._stream, begins_anew=cut.begins_anew)
        self._num_gops += 1
        run.add(gop)
        return gop

    def _times_s(self, cut: _Cut) -> tuple[float, ...]:
        """Sorted: some containers number B-frames in decoding order; AVI numbers them so that a
        GOP may begin a frame early."""
        times = [max(ticks * self._second, self._newest_s) for ticks in sorted(cut.ticks)]
        self._newest_s = times[-1]
        return tuple(times)
