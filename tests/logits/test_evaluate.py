"""Scores of every answer against numbers known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from edgepkd.cascade import ExitPolicy, Order, WiseWeights
from edgepkd.errors import ConfigError
from edgepkd.logits.clip_logits import ClipLogits, ViewsProtocol
from edgepkd.logits.evaluate import evaluate_logits

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


def test_a_score_that_is_not_there_is_refused() -> None:
    found = evaluate_logits(answered_clips(), order=MV_FIRST, gmac=COST)
    with pytest.raises(ConfigError, match=r"score of kind 'exit' is 'mv_5'; allowed: mv_1, .*_4\."):
        found.score("exit", "mv_5")
    with pytest.raises(ConfigError, match=r"kind 'cascade' is 'mv,residual'; allowed: none\."):
        found.score("cascade", "mv,residual")


def test_an_order_without_logits_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"order is 'iframe'; allowed: orders of \['mv'"):
        evaluate_logits(answered_clips(), order=("iframe",), gmac=COST)
