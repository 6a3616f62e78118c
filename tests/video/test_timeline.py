"""One clock for all frames of a source, whatever the source's own clock does."""

from __future__ import annotations

from fractions import Fraction

import pytest

from edgepkd.video.timeline import Timeline


def _timeline(*, fps: int = 25, per_second: int = 1000) -> Timeline:
    return Timeline(time_base=Fraction(1, per_second), fps=Fraction(fps))


def _placed(timeline: Timeline, *stamps: int | None) -> list[tuple[float, str]]:
    return [(timeline.place(stamp), timeline.broke) for stamp in stamps]


def test_timestamps_stay_what_they_are() -> None:
    assert _placed(_timeline(), 80, 120, 160) == [(80, ""), (120, ""), (160, "")]


def test_without_timestamps_frames_are_counted_at_their_rate() -> None:
    assert _placed(_timeline(fps=50), None, None, None) == [(0, ""), (20, ""), (40, "")]


def test_a_missing_timestamp_follows_the_one_before() -> None:
    assert _placed(_timeline(), 1000, None, None, 1200) == [
        (1000, ""), (1040, ""), (1080, ""), (1200, "")]


def test_a_clock_that_starts_again_goes_on() -> None:
    placed = _placed(_timeline(), 5000, 5040, 5080, 5120, 0, 40, 80, 20, 60)
    assert placed[4:7] == [(5160, "restart"), (5200, ""), (5240, "")]
    assert placed[7:] == [(5180, ""), (5220, "")]  # a small step back is the container's numbering


def test_a_gap_is_seen_and_stays() -> None:
    hour = 3_600_000
    assert _placed(_timeline(), 0, 40, hour, hour + 40)[2:] == [(hour, "gap"), (hour + 40, "")]


@pytest.mark.parametrize("step", [40, 500, 1000, 10_000, 600_000])
def test_slow_streams_have_no_gaps(step: int) -> None:
    timeline = Timeline(time_base=Fraction(1, 1000), fps=Fraction(1000, step))
    assert {after for _, after in _placed(timeline, *range(0, 20 * step, step))} == {""}


def test_a_gap_does_not_make_the_next_one_look_usual() -> None:
    stamps = [0, 40, 80, 120, 60_000, 60_040, 60_080, 200_000]
    assert [after for _, after in _placed(_timeline(), *stamps)].count("gap") == 2


def test_going_back_forgets_what_was_placed() -> None:
    timeline = _timeline()
    _placed(timeline, 0, 40)
    before = timeline.state()
    _placed(timeline, 80, 120, 160, 2000)
    timeline.go_back(before)
    assert _placed(timeline, 80, 120) == [(80, ""), (120, "")]
