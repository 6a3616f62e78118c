"""Numbers as Markdown and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgepkd.logits.metrics import Interval
from edgepkd.studies.markdown import (
    as_plain,
    holds,
    listed,
    points,
    share,
    table,
    times,
    write_report,
)


def interval(value: float, low: float, high: float) -> Interval:
    return Interval(value, low, high, 20, 10)


def test_a_table_has_a_head_a_rule_and_rows() -> None:
    assert table(["a", "b"], [["1", "2"], ["3", "4"]]) == [
        "| a | b |", "|---|---|", "| 1 | 2 |", "| 3 | 4 |"]


def test_shares_are_percents_and_differences_points() -> None:
    assert share(interval(0.8123, 0.7, 0.903)) == "81.2 [70.0, 90.3]"
    assert points(interval(0.012, -0.003, 0.027)) == "+1.2 [-0.3, +2.7]"
    assert listed([4711, 1, "x"]) == "4711, 1, x"


@pytest.mark.parametrize(("low", "high", "bold", "words"), [
    (0.01, 0.02, True, "better"), (-0.02, -0.01, True, "worse"),
    (-0.01, 0.01, False, "no difference shown"), (0.0, 0.01, False, "no difference shown"),
    (-0.01, 0.0, False, "no difference shown"),
])
def test_only_an_interval_without_0_shows_something(
    low: float, high: float, bold: bool, words: str
) -> None:
    found = interval((low + high) / 2, low, high)
    assert points(found).startswith("**") == points(found).endswith("**") == bold
    assert holds(found, "better", "worse") == words


def test_intervals_and_numpy_numbers_become_json_and_nothing_else() -> None:
    text = json.dumps({"i": interval(0.5, 0.25, 0.75), "n": np.float32(1.5), "k": np.int64(3)},
                      default=as_plain)
    assert json.loads(text) == {"n": 1.5, "k": 3, "i": {
        "value": 0.5, "low": 0.25, "high": 0.75, "num_clips": 20, "num_groups": 10}}
    with pytest.raises(TypeError):
        json.dumps({"a": {1, 2}}, default=as_plain)


def test_times_are_medians_and_what_was_done_before_is_left_out() -> None:
    steps = {"qad": (1.0, 9.0, 2.4), "exits": (0.4, 30.0), "mv": (0.1, 0.2)}
    assert times(steps, {"qad": "QAD"}) == [
        ["QAD", "2", "9"], ["exits", "15", "30"], ["mv", "0", "0"]]
    assert times(steps, {}, least_s=0.5) == [["qad", "2", "9"], ["exits", "30", "30"]]


def test_a_report_is_numbers_and_a_page(tmp_path: Path) -> None:
    write_report(tmp_path / "new", "study", document={"i": interval(0.5, 0.25, 0.75)},
                 lines=["# A", "", "b"])
    assert (tmp_path / "new" / "study.md").read_text() == "# A\n\nb\n"
    assert json.loads((tmp_path / "new" / "study.json").read_text())["i"]["value"] == 0.5
