"""Scores of every answer against numbers known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from edgepkd.cascade import ExitPolicy, Order, WiseWeights
from edgepkd.errors import ConfigError
from edgepkd.logits.clip_logits import ClipLogits, ViewsProtocol
from edgepkd.logits.evaluate import evaluate_logits
from edgepkd.logits.metrics import Accuracy
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


def test_wilson_interval_equals_published_values() -> None:
    low, high = Accuracy(81, 263).interval  # Newcombe 1998, table I, method 3
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert Accuracy(10, 10).interval[1] == pytest.approx(1.0)
    assert Accuracy(0, 10).interval[0] == pytest.approx(0.0)


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


# ---- every answer, one by one

MV_FIRST: Order = ("mv", "residual")
COST = {"mv": (1.0, 1.0, 1.0, 1.0), "residual": (2.0, 2.0, 2.0, 2.0)}


def answered_clips() -> ClipLogits:
    """Six clips of three groups and two labels; residual is right, motion says 0 throughout."""
    labels = np.array([0, 0, 1, 1, 1, 0])
    sure = np.where(labels[:, None] == np.arange(2), 4.0, 0.0)
    wrong = np.tile([1.0, 0.0], (6, 1))
    logits = {"mv": np.stack([wrong] * 4, axis=1), "residual": np.stack([sure] * 4, axis=1)}
    return ClipLogits(
        logits=logits, labels=labels, label_names=("a", "b"), split="calibration",
        groups=("x", "x", "y", "y", "z", "z"), paths=tuple("123456"),
        views=ViewsProtocol({"mv": 3, "residual": 3}), weights_sha256={"mv": "1", "residual": "2"},
    )


def test_without_a_fit_prefixes_are_plain_sums() -> None:
    found = evaluate_logits(answered_clips(), order=MV_FIRST, gmac=COST)
    assert [s.kind for s in found.scores].count("cascade") == 0
    assert {s.weights for s in found.scores if s.kind != "exit"} == {"sums"}
    assert [s.top1.value for s in found.scores if s.kind == "prefix"] == [0.5] * 4 + [0.5, 1, 1, 1]
    assert found.score("modality", "residual").top1.value == 1
    assert found.score("prefix", "residual_2").gmac == 8
    assert found.score("exit", "residual_2").gmac == 4
    assert found.confusion.tolist() == [[3, 0], [0, 3]]
    assert found.mean_exit is None


def test_with_a_fit_the_cascade_is_scored_and_compared() -> None:
    count = 8
    weights = WiseWeights(MV_FIRST, tuple(
        (0.0,) * (k - 1) + (1.0,) for k in range(1, count + 1)))
    policy = ExitPolicy(MV_FIRST, (1.0,) * count, (0.99,) * 4 + (0.9,) * 4)
    found = evaluate_logits(answered_clips(), order=MV_FIRST, gmac=COST,
                            fitted={MV_FIRST: (weights, policy)})
    cascade = found.score("cascade", "mv,residual")
    assert cascade.top1.value == 1
    assert cascade.gmac == 6
    assert found.mean_exit == 5
    assert found.score("prefix", "residual_1").share == 1
    assert found.score("prefix", "residual_1").weights == "wise"
    assert found.score("modality", "mv").weights == "sums"  # this order alone was not fitted
    assert [d.of.value for d in found.differences] == [0, 0, 0]
    assert cascade.ece == pytest.approx(1 - 1 / (1 + np.exp(-4)))
    assert cascade.top5 is None


def test_an_order_without_logits_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"order is 'iframe'; allowed: orders of \['mv'"):
        evaluate_logits(answered_clips(), order=("iframe",), gmac=COST)
