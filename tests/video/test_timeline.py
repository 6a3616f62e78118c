"""One clock for all frames of a source, whatever the source's own clock does."""

from __future__ import annotations

from fractions import Fraction

import pytest

from edgepkd.video.timeline import (
    Timeline,
    plausible_rate,
    plausible_stamp,
    usable_time_base,
)


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


@pytest.mark.slow
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


@pytest.mark.parametrize("rate", [
    None, 0, Fraction(1, 10**9), Fraction(3, 10**6), -25, 10**9, Fraction(2**31 - 1, 1)])
def test_what_no_video_has_is_no_rate(rate: Fraction | None) -> None:
    assert plausible_rate(rate) is None


@pytest.mark.parametrize("rate", [Fraction(1, 600), Fraction(30_000, 1001), 25.0, 960, 1000])
def test_rates_of_videos_are_kept(rate: Fraction | float) -> None:
    assert plausible_rate(rate) == rate


def test_timestamps_centuries_away_are_none() -> None:
    ms, day_s = Fraction(1, 1000), 86_400
    since_1970 = 1_764_300_000_000
    assert plausible_stamp(since_1970, ms) == since_1970
    assert plausible_stamp(None, ms) is plausible_stamp(5, None) is None
    for stamp in (2**63 - 1, -(2**63), 400 * 366 * day_s * 1000):
        assert plausible_stamp(stamp, ms) is None
    assert plausible_stamp(2**62 + 1, Fraction(1, 2**31 - 1)) is None


def test_a_tick_is_no_longer_than_a_frame_and_a_second() -> None:
    assert usable_time_base(Fraction(1, 90_000), fps=None) == Fraction(1, 90_000)
    assert usable_time_base(Fraction(60), fps=Fraction(1, 60)) == 60
    assert usable_time_base(Fraction(1), fps=Fraction(25)) == 1
    for nonsense in (None, Fraction(335_544), Fraction(2), Fraction(0), Fraction(-1, 25)):
        assert usable_time_base(nonsense, fps=Fraction(25)) == Fraction(1, 25)
        assert usable_time_base(nonsense, fps=None) == Fraction(1, 25)


@pytest.mark.parametrize("sign", [1, -1])
def test_timestamps_at_the_end_of_their_range_are_not_blurred(sign: int) -> None:
    first = sign * (2**63 - 1000)
    assert _placed(_timeline(), *(first + 40 * n for n in range(4))) == [
        (0, ""), (40, ""), (80, ""), (120, "")]


@pytest.mark.parametrize("jump", [2**63 - 1, -(2**63), 100 * 366 * 86_400_000, 86_401_000])
def test_a_clock_that_jumps_by_more_than_a_day_goes_on(jump: int) -> None:
    stamps = [0, 40, 80, 120, 160]
    placed = _placed(_timeline(), *stamps, *(jump + stamp for stamp in stamps), 200)
    assert placed[5:10] == [(200, "restart"), (240, ""), (280, ""), (320, ""), (360, "")]
    assert placed[10] == (400, "restart")


def test_going_back_forgets_a_clock_that_was_set() -> None:
    timeline = _timeline()
    _placed(timeline, 0, 40, 80, 120)
    state = timeline.state()
    assert _placed(timeline, 10**15, 10**15 + 40)[0] == (160, "restart")
    timeline.go_back(state)
    assert _placed(timeline, 160, 200) == [(160, ""), (200, "")]
