"""Rows of the run table, and its summary."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgepkd.cascade import Position, positions
from edgepkd.cli.show_run import columns, row, summary_lines
from edgepkd.runtime.answers import ClipAnswer, DecodeCounts
from edgepkd.runtime.summary import RunSummary

ANSWER = ClipAnswer(
    index=0, start_s=0, end_s=1, label="walk", confidence=0.9, top_k=(), exit=Position("mv", 1),
    exit_number=1, segments_run=positions(("mv",))[:1], segments_skipped=positions(("mv",))[1:],
    read_ms=10, decode_ms=20, load_ms=300, nets_ms=4, decision_ms=1, gmac=0, gmac_static=0,
    decode=DecodeCounts(), probabilities=())
SUMMARY = RunSummary(
    ended="complete", error=None, model="m", backend="b", order=("mv",), exit_rule="policy",
    num_sources=2, num_failed=0, num_clips=1, exits={"mv_1": 1}, mean_exit=1.0, segments_run=1,
    segments_skipped=3, gmac=1.0, gmac_static=4.0, packets_decoded=1, packets_skipped=2, load_s=1.0,
    wall_s=2.0, networks_load_s=0.3, num_warnings=0, warnings=())


@pytest.mark.parametrize("narrow", [True, False])
def test_the_times_of_a_row_add_up_and_loading_is_one_of_them(narrow: bool) -> None:
    cells = dict(zip(columns(narrow=narrow), row(ANSWER, narrow=narrow), strict=True))
    times = {name: float(cell) for name, cell in cells.items() if name.endswith("\nms")}
    assert times["load\nms"] == 300
    assert sum(times.values()) == pytest.approx(335)


@pytest.mark.parametrize(("changes", "said"), [
    ({}, "1 clip in 2.00 s after 1.00 s of loading; m on b"),
    ({"num_failed": 1, "ended": "source failed"}, "loading, 1 of 2 sources failed; m"),
    ({"num_warnings": 2}, "loading, 2 warnings; m"),
    ({"ended": "interrupted"}, "loading, interrupted; m"),
    ({"ended": "error"}, "loading, ended by an error; m"),
])
def test_the_summary_says_how_the_run_ended(changes: dict[str, object], said: str) -> None:
    first, *rest = summary_lines(replace(SUMMARY, **changes))  # type: ignore[arg-type]
    assert said in first
    assert len(rest) == 2


def test_a_run_without_answers_is_one_line() -> None:
    nothing = replace(SUMMARY, num_clips=0, exits={}, mean_exit=None, ended="interrupted")
    assert summary_lines(nothing) == ["0 clips in 2.00 s after 1.00 s of loading, interrupted"]


def test_one_packet_is_no_packets() -> None:
    answer = replace(ANSWER, segments_skipped=positions(("mv",))[3:],
                     decode=DecodeCounts(packets_skipped=1))
    assert row(answer, narrow=False)[-1] == "1 segment, 1 packet"
    last = summary_lines(replace(SUMMARY, packets_skipped=1))[-1]
    assert last.endswith("GMAC, 1 packet never decoded")
