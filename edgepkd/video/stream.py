"""One source as GOPs, whatever happens to it on the way.

A stream may change while it is read: B-frames begin, pictures get another size, two recordings
were joined. It is read part by part, each part in its own way, with one clock for all.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import dropwhile
from typing import Any

import av
from av.packet import Packet

from edgepkd.config import DecodeSpec, Route
from edgepkd.errors import DecodeError
from edgepkd.video.cut_off import cut_off
from edgepkd.video.decoder import CodecParams, DecodeCounters, cropped_too_large
from edgepkd.video.display_order import Turn
from edgepkd.video.gop import Gop
from edgepkd.video.gop_reader import GopReader
from edgepkd.video.h264 import NO_CROP, Sps, read_sps
from edgepkd.video.normalize import NormalizedVideo, Part, Remainder, normalized
from edgepkd.video.probe import StreamInfo, codec_params, has_display_times
from edgepkd.video.routes import RouteChoice, sps_obstacle
from edgepkd.video.timeline import DEFAULT_FPS, Timeline
from edgepkd.video.video_input import VideoInput


class StreamReader:
    """Reads an open source as GOPs, once."""

    def __init__(
        self,
        video: VideoInput,
        *,
        info: StreamInfo,
        route: Route,
        choice: RouteChoice,
        decode: DecodeSpec,
        counters: DecodeCounters,
        warnings: list[str],
    ) -> None:
        """`route` is what was asked for, `choice` what is taken at first; `counters` and
        `warnings` are added to."""
        self._video, self._info, self._route, self._choice = video, info, route, choice
        self._decode, self.counters, self.warnings = decode, counters, warnings
        self._has_times = has_display_times(info)
        self._params = codec_params(video, info)
        self._timeline = Timeline(time_base=self._params.time_base, fps=self._params.fps)
        self._span_s: tuple[float, float] | None = None

    def gops(self) -> Iterator[Gop]:
        """Yield the GOPs in order.

        Raises:
            DecodeError: the source cannot be decoded further, or B-frames begin on route 'native'.
            SourceError: a camera stopped sending.
        """
        native = self._choice.route == "native"
        try:
            for gop in self._native() if native else self._normalized(None):
                first, newest = self._span_s or (gop.times_s[0], gop.times_s[0])
                if gop.times_s[0] < newest:
                    # Each part of a stream is in order; a clock may go back a little between two.
                    gop.times_s = tuple(max(time_s, newest) for time_s in gop.times_s)
                self._span_s = first, gop.times_s[-1]
                yield gop
        except av.FFmpegError as error:
            raise DecodeError(f"{self._info.source} cannot be decoded further: "
                              f"{error.strerror or error}.") from error
        self.counters.errors += self._video.num_read_errors
        self._check_end()

    def _native(self) -> Iterator[Gop]:
        packets, params, anew = self._video.packets(), self._params, False
        while True:
            reader = GopReader(self._without_false_times(packets), params=params,
                               spec=self._decode, counters=self.counters,
                               timeline=self._timeline, begins_anew=anew)
            yield from reader
            turn = reader.turn
            if turn is None:
                return
            if (reason := self._obstacle(turn)) is not None:
                self._leave_native(reason)
                stamp, num_given = reader.resumption
                num_given = num_given if turn.is_whole else 0
                yield from self._normalized(
                    Remainder(self._decodable(turn), self._timeline, stamp, num_given),
                    begins_anew=turn.why == "pictures")
                return
            packets, params, anew = turn.packets, _turned(params, turn), True

    def _obstacle(self, turn: Turn) -> str | None:
        """Why the route native cannot go on; None if it can."""
        if turn.why == "b_frames":
            return "h264 B-frames begin"
        sps = _sps(self._params, turn)
        if sps is None:
            return None
        return sps_obstacle(sps) or cropped_too_large(
            sps.crop, sps.shown_size_px, max_short_side_px=self._decode.max_short_side_px)

    def _leave_native(self, reason: str) -> None:
        first, last = self._span_s or (0.0, 0.0)
        where = f"{self._info.source}, about {last - first:.1f} s: {reason}"
        if self._route == "native":
            raise DecodeError(f"{where}, which the route 'native' cannot read.",
                              hint="Use --route auto, which goes on by normalising.")
        self.warnings.append(f"{where}; from there on the stream is normalised.")

    def _decodable(self, turn: Turn) -> Iterator[Packet[Any]]:
        """The packets of a turn from where they can be decoded."""
        if turn.is_whole:
            return turn.packets
        self.warnings.append(
            f"{self._info.source}: key frames are too far apart to go back to the last one; the "
            "pictures up to the next one are left out.")
        return dropwhile(lambda packet: not packet.is_keyframe, turn.packets)

    def _normalized(
        self, remainder: Remainder | None, *, begins_anew: bool = False
    ) -> Iterator[Gop]:
        source = normalized(self._video, gop_frames=self._decode.gop_frames,
                            use_timestamps=self._has_times, fps=self._params.fps,
                            remainder=remainder)
        parts = source.parts()
        while (part := self._metered(source, parts)) is not None:
            for gop in GopReader(
                    self._encoded(source, part), params=source.params, spec=self._decode,
                    counters=self.counters, begins_anew=part.begins_anew or begins_anew):
                gop.route = "normalize"
                yield gop
            begins_anew = False

    def _encoded(self, source: NormalizedVideo, part: Part) -> Iterator[Packet[Any]]:
        while (packet := self._metered(source, part.packets)) is not None:
            yield packet

    def _metered(self, source: NormalizedVideo, items: Iterator[Any]) -> Any:
        """The next of `items`; its cost and its errors count as decoding."""
        begin, errors = time.perf_counter(), source.counters.errors
        item = next(items, None)
        self.counters.decode_s += time.perf_counter() - begin
        self.counters.errors += source.counters.errors - errors
        return item

    def _without_false_times(self, packets: Iterator[Packet[Any]]) -> Iterator[Packet[Any]]:
        for packet in packets:
            if not self._has_times:
                packet.pts = packet.dts = None  # counting frames is right where these are not
            yield packet

    def _check_end(self) -> None:
        if self._span_s is None:
            return
        first, last = self._span_s
        start = first if self._info.start_s is None else max(self._info.start_s, first)
        frame_s = 1 / (self._info.fps or float(DEFAULT_FPS))
        reason = cut_off(self._info, read_s=last - start + frame_s)
        if reason is not None:
            self.warnings.append(reason)


def _sps(params: CodecParams, turn: Turn) -> Sps | None:
    """The parameter set that a turn brings; None for other codecs, and where it is damaged."""
    return read_sps(turn.header) if params.codec_name == "h264" else None


def _turned(params: CodecParams, turn: Turn) -> CodecParams:
    """Parameters of the pictures after a turn; where no header tells their size, the first one
    that is decoded does."""
    sps = _sps(params, turn)
    params = replace(params, header=turn.header, extradata=turn.extradata or params.extradata)
    if sps is None:
        return params
    width_px, height_px = sps.shown_size_px
    return replace(params, num_ref_frames=sps.num_ref_frames, width_px=width_px,
                   height_px=height_px, crop=sps.crop if sps.crop.moves_origin else NO_CROP)
