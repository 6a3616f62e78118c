"""Times of a stream's frames that go on where the stream's own clock does not.

Joined recordings start their clock again, cameras set theirs, and a recorder that stopped leaves a
hole. All who give times to frames (`gop`, `normalize`, `annotate`) take them from here.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from statistics import median
from typing import Literal, NamedTuple, TypeAlias

DEFAULT_FPS = Fraction(25)
MAX_OVERLAP_S = 0.5
"""A clock that goes back by less is one that numbers B-frames in its own way (AVI)."""
_MIN_GAP_S = 2.0
_MIN_GAP_STEPS = 10
"""A gap is longer than both: slow streams have long steps."""
_NUM_STEPS, _FEW_STEPS = 32, 3

Break = Literal["", "gap", "restart"]


class Moment(NamedTuple):
    """When a frame is shown, in ticks of the stream; what lies between it and the one before."""

    ticks: float
    after: Break


State: TypeAlias = "tuple[float, float | None, int, float | None]"
"""A point on a timeline, for `Timeline.go_back` alone; made for every frame, so a plain tuple."""


class Timeline:
    """Places frames, given in display order, on one clock that never goes back."""

    def __init__(self, *, time_base: Fraction, fps: Fraction | None) -> None:
        """`fps` is the rate of frames without a timestamp, 25 if None."""
        self.time_base = time_base
        self._frame_ticks = float(1 / (Fraction(fps or DEFAULT_FPS) * time_base))
        self._overlap_ticks = MAX_OVERLAP_S / float(time_base)
        self._min_gap_ticks = _MIN_GAP_S / float(time_base)
        self._offset = 0.0
        self._counted = 0
        """Frames since the last one that had a timestamp; they are counted on from there."""
        self._counted_from: float | None = None
        self._newest: float | None = None
        self._steps: deque[float] = deque(maxlen=_NUM_STEPS)
        self.before_break: State | None = None
        """Where it was before the last break."""

    def state(self) -> State:
        """Where the timeline is, to come back to with `go_back`."""
        return self._offset, self._newest, self._counted, self._counted_from

    def go_back(self, state: State) -> None:
        """Forget the frames placed since `state`."""
        self._offset, self._newest, self._counted, self._counted_from = state

    def place(self, stamp: int | None) -> Moment:
        """The moment of the next frame, whose timestamp is `stamp`; None: it has none."""
        newest = self._newest
        if stamp is not None and newest is not None:
            ticks = stamp + self._offset
            if 0 < ticks - newest <= self._min_gap_ticks:  # nearly all frames
                self._steps.append(ticks - newest)
                self._newest, self._counted_from = ticks, None
                return Moment(ticks, "")
        before = self.state()
        moment = self._counted_on() if stamp is None else self._stamped(stamp, newest)
        if moment.after:
            self.before_break = before
        if newest is None:
            self._newest = moment.ticks
        elif moment.ticks > newest:
            if not moment.after:
                self._steps.append(moment.ticks - newest)
            self._newest = moment.ticks
        return moment

    def _counted_on(self) -> Moment:
        if self._counted_from is None:
            self._counted = 0
            self._counted_from = 0.0 if self._newest is None else self._newest + self._frame_ticks
        ticks = self._counted_from + self._counted * self._frame_ticks
        self._counted += 1
        return Moment(ticks, "")

    def _stamped(self, stamp: int, newest: float | None) -> Moment:
        self._counted_from = None
        ticks = stamp + self._offset
        if newest is None:
            return Moment(ticks, "")
        if ticks < newest - self._overlap_ticks:
            self._offset += newest + self._usual_step() - ticks
            return Moment(stamp + self._offset, "restart")
        is_gap = (ticks - newest > self._min_gap_ticks
                  and ticks - newest > _MIN_GAP_STEPS * self._usual_step())
        return Moment(ticks, "gap" if is_gap else "")

    def _usual_step(self) -> float:
        if len(self._steps) > _FEW_STEPS:
            return median(self._steps)
        return max(*self._steps, self._frame_ticks, 0.0)
