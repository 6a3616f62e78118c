"""Reports: shares, accuracies and costs against numbers known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from edgepkd.cascade import ExitPolicy, WiseWeights
from edgepkd.logits.report import Report, answer, format_report, pool, report_of


@pytest.fixture
def report() -> Report:
    """Four clips; two are sure and right at exit 1, one right only at exit 4, one never."""
    labels = np.array([0, 1, 1, 1])
    sure = np.array([[9.0, 0], [0, 9.0], [0.1, 0], [0.1, 0]])
    last = np.array([[9.0, 0], [0, 9.0], [0, 9.0], [9.0, 0]])
    logits = np.stack([sure, sure, sure, last], axis=1)  # [4 clips, 4 exits, 2 labels]
    order = ("mv",)
    weights = WiseWeights(order, ((1.0,), (0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 1.0)))
    policy = ExitPolicy.constant(order, threshold=0.9)
    halves = [answer({"mv": logits[half]}, labels[half], weights=weights, policy=policy)
              for half in (slice(0, 1), slice(1, 4))]
    return report_of(pool(halves), order=order, gmac={"mv": (1.0, 2.0, 3.0, 4.0)},
                     label_names=("a", "b"))


def test_exits_accuracy_and_cost(report: Report) -> None:
    assert (report.cascade.num_right, report.full_chain.num_right) == (3, 3)
    assert [row.share for row in report.rows] == [0.5, 0, 0, 0.5]
    assert [row.own.num_right for row in report.rows] == [2, 2, 2, 3]
    assert report.mean_exit == 2.5
    assert report.gmac_full == 10
    assert report.gmac == pytest.approx((1 + 1 + 10 + 10) / 4)
    assert report.saved == pytest.approx(0.45)


def test_each_label_is_reported_apart(report: Report) -> None:
    assert {name: (a.num_right, a.num_clips) for name, a in report.per_label.items()} == {
        "a": (1, 1), "b": (2, 3)}


def test_the_table_names_every_exit_and_the_totals(report: Report) -> None:
    text = format_report(report)
    for word in ("mv_1", "mv_4", "75.0 %", "2.50 of 4", "45 % saved"):
        assert word in text
