"""Times of a stream's frames that go on where the stream's own clock does not.

Joined recordings start their clock again, cameras set theirs, and a recorder that stopped leaves a
hole. All who give times to frames (`gop`, `normalize`, `annotate`) take them from here, and so do
all who read a rate or a time in a container: it may say anything.
"""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from statistics import median
from typing import Literal, TypeAlias

from edgepkd.config import MAX_FPS, MIN_FPS

DEFAULT_FPS = Fraction(25)
MAX_TIME_S = 1e10
"""Three centuries; a container that names a longer time names none."""
MAX_OVERLAP_S = 0.5
"""A clock that goes back by less is one that numbers B-frames in its own way (AVI)."""
_MIN_GAP_S, _MAX_GAP_S = 2.0, 86_400.0
"""What is longer is no gap but a clock that was set."""
_MAX_STAMP = 1 << 62
_MIN_GAP_STEPS = 10
"""A gap is longer than both: slow streams have long steps."""
_NUM_STEPS, _FEW_STEPS = 32, 3

Break = Literal["", "gap", "restart"]

State: TypeAlias = "tuple[int, float, float | None, int, float | None]"
"""A point on a timeline, for `Timeline.go_back` alone; made for every frame, so a plain tuple."""


def plausible_rate(rate: Fraction | float | None) -> Fraction | None:
    """Return the frames per second that a stream names; None if no video has so many or few."""
    return Fraction(rate) if rate is not None and MIN_FPS <= rate <= MAX_FPS else None


def plausible_stamp(stamp: int | None, time_base: Fraction | None) -> int | None:
    """Return a timestamp that a stream names; None if it is centuries away."""
    if stamp is None or time_base is None or abs(stamp) > _MAX_STAMP:
        return None
    return stamp if abs(stamp * time_base) <= MAX_TIME_S else None


def usable_time_base(time_base: Fraction | None, *, fps: Fraction | None) -> Fraction:
    """Return the seconds in a tick of a stream; one frame, if it names no tick, or one that is
    longer than a frame and a second."""
    frame_s = 1 / (fps or DEFAULT_FPS)
    if time_base is not None and 0 < time_base <= max(frame_s, Fraction(1)):
        return time_base
    return frame_s


class Timeline:
    """Places frames, given in display order, on one clock that never goes back."""

    def __init__(self, *, time_base: Fraction, fps: Fraction | None) -> None:
        """`fps` is the rate of frames without a timestamp, 25 if None."""
        self.time_base = time_base
        self._frame_ticks = float(1 / (Fraction(fps or DEFAULT_FPS) * time_base))
        self._overlap_ticks = MAX_OVERLAP_S / float(time_base)
        self._min_gap_ticks = _MIN_GAP_S / float(time_base)
        self._max_gap_ticks = _MAX_GAP_S / float(time_base)
        self._origin = 0
        self._offset = 0.0
        """Ticks at the timestamp `_origin`; that is 0 unless a clock begins anew, or so far away
        that floats would blur it."""
        self._counted = 0
        """Frames since the last one that had a timestamp; they are counted on from there."""
        self._counted_from: float | None = None
        self._newest: float | None = None
        self._steps: deque[float] = deque(maxlen=_NUM_STEPS)
        self.broke: Break = ""
        """What lies between the frame placed last and the one before it."""
        self.before_break: State | None = None
        """Where the timeline was before the last break."""

    def state(self) -> State:
        """Where the timeline is, to come back to with `go_back`."""
        return self._origin, self._offset, self._newest, self._counted, self._counted_from

    def go_back(self, state: State) -> None:
        """Forget the frames placed since `state`."""
        (self._origin, self._offset, self._newest, self._counted,
         self._counted_from) = state

    def place(self, stamp: int | None) -> float:
        """When the next frame is shown, in ticks of the stream.

        `stamp` is its timestamp; None: it has none. `broke` says what lies before it.
        """
        newest = self._newest
        if stamp is not None and newest is not None:
            ticks = stamp - self._origin + self._offset
            if 0 < ticks - newest <= self._min_gap_ticks:  # nearly all frames
                self._steps.append(ticks - newest)
                self._newest, self._counted_from, self.broke = ticks, None, ""
                return ticks
        before = self.state()
        ticks, self.broke = (self._counted_on(), "") if stamp is None \
            else self._stamped(stamp, newest)
        if self.broke:
            self.before_break = before
        elif newest is not None and ticks > newest:
            self._steps.append(ticks - newest)
        self._newest = ticks if newest is None else max(ticks, newest)
        return ticks

    def _counted_on(self) -> float:
        if self._counted_from is None:
            self._counted = 0
            self._counted_from = 0.0 if self._newest is None else self._newest + self._frame_ticks
        ticks = self._counted_from + self._counted * self._frame_ticks
        self._counted += 1
        return ticks

    def _stamped(self, stamp: int, newest: float | None) -> tuple[float, Break]:
        self._counted_from = None
        if newest is None and plausible_stamp(stamp, self.time_base) is None:
            self._origin = stamp
        ticks = stamp - self._origin + self._offset
        if newest is None:
            return ticks, ""
        if not -self._overlap_ticks <= ticks - newest <= self._max_gap_ticks:
            self._origin, self._offset = stamp, newest + self._usual_step()
            return self._offset, "restart"
        is_gap = (ticks - newest > self._min_gap_ticks
                  and ticks - newest > _MIN_GAP_STEPS * self._usual_step())
        return ticks, "gap" if is_gap else ""

    def _usual_step(self) -> float:
        if len(self._steps) > _FEW_STEPS:
            return median(self._steps)
        return max(*self._steps, self._frame_ticks, 0.0)
