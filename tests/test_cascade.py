"""Order, ensemble, confidence and the exit decision, against slow and obvious arithmetic."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from edgepkd.cascade import (
    Cascade,
    ExitPolicy,
    Order,
    Position,
    WiseWeights,
    combine,
    confidence,
    for_order,
    order_key,
    parse_order,
    positions,
    prefix_logits,
    replay,
    softmax,
)
from edgepkd.config import MODALITIES
from edgepkd.errors import ConfigError, ModelError, UsageError

ALL: Order = ("mv", "residual", "iframe")


def test_positions_are_four_for_each_network_in_order() -> None:
    places = positions(("iframe", "mv"))
    assert [str(place) for place in places] == [
        "iframe_1", "iframe_2", "iframe_3", "iframe_4", "mv_1", "mv_2", "mv_3", "mv_4"]
    assert len(positions(ALL)) == 12


@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_permutation_of_every_subset_is_an_order(count: int) -> None:
    for order in itertools.permutations(MODALITIES, count):
        assert parse_order(order_key(order)) == order
        assert len(positions(order)) == 4 * count


@pytest.mark.parametrize("text", ["", "mv,mv", "rgb", "mv,", "mv residual", "MV"])
def test_other_orders_are_refused_by_name(text: str) -> None:
    with pytest.raises(UsageError, match=r"allowed: each of mv, residual, iframe"):
        parse_order(text)


def test_parse_order_forgives_spaces() -> None:
    assert parse_order(" iframe, mv ") == ("iframe", "mv")


def test_missing_order_names_those_available() -> None:
    with pytest.raises(UsageError, match=r"'iframe,mv'.*available: iframe; mv,residual,iframe"):
        for_order({"mv,residual,iframe": 1, "iframe": 2}, ("iframe", "mv"), what="WISE weights")


def test_combine_is_the_weighted_sum() -> None:
    logits = [[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]]
    assert combine(logits, [1, 0.5, -1]).tolist() == [1 + 5 - 100, 2 + 10 - 200]
    assert combine(np.ones((1, 2), np.float32), [2]).dtype == np.float64


def test_softmax_with_temperature() -> None:
    got = softmax([1.0, 2.0], temperature=0.5)
    assert got == pytest.approx([1 / (1 + math.exp(2)), 1 / (1 + math.exp(-2))], abs=1e-15)
    assert softmax([1e4, 0.0, -1e4]).tolist() == [1.0, 0.0, 0.0]
    assert softmax([[0.0, 0.0], [0.0, 1e9]]).tolist() == [[0.5, 0.5], [0.0, 1.0]]
    assert confidence([[0.2, 0.8], [0.6, 0.4]]).tolist() == [0.8, 0.6]


def cascade(order: Order = ("mv",), *, threshold: float, max_exit: int | None = None,
            weights: WiseWeights | None = None) -> Cascade:
    return Cascade(weights or WiseWeights.ones(order),
                   ExitPolicy.constant(order, threshold=threshold), max_exit=max_exit)


def test_exit_needs_a_confidence_above_the_threshold() -> None:
    even = [0.0, 0.0]
    assert not cascade(threshold=0.5).push(even).exit  # 0.5 > 0.5 does not hold
    assert cascade(threshold=0.4999).push(even).exit


def test_threshold_one_never_exits_early_even_when_certain() -> None:
    steps = cascade(threshold=1.0)
    decisions = [steps.push([1e9, 0.0]) for _ in range(4)]
    assert [decision.exit for decision in decisions] == [False, False, False, True]
    assert decisions[0].confidence == 1.0


def test_max_exit_is_the_last_position() -> None:
    steps = cascade(threshold=1.0, max_exit=2)
    assert [steps.push([0.0, 1.0]).exit for _ in range(2)] == [False, True]
    with pytest.raises(AssertionError):
        steps.push([0.0, 1.0])
    steps.reset()
    assert not steps.push([0.0, 1.0]).exit


@pytest.mark.parametrize("max_exit", [0, 5, -1])
def test_max_exit_out_of_range(max_exit: int) -> None:
    with pytest.raises(ConfigError, match=r"max_exit is .*allowed: 1\.\.4 for mv"):
        cascade(threshold=1.0, max_exit=max_exit)


@pytest.mark.smoke
def test_later_exits_use_all_logits_so_far() -> None:
    weights = WiseWeights(("mv",), ((1.0,), (3.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 1.0)))
    steps = cascade(threshold=1.0, weights=weights)
    assert steps.push([2.0, 0.0]).label_index == 0
    # 3 * [2, 0] + [0, 4] = [6, 4]: the first exit's logits outvote the second's
    assert steps.push([0.0, 4.0]).probabilities == pytest.approx(softmax([6.0, 4.0]))
    assert steps.push([0.0, 4.0]).label_index == 1


def test_temperature_of_each_exit_changes_its_confidence() -> None:
    policy = ExitPolicy(("mv",), (1.0, 10.0, 1.0, 1.0), (0.9, 0.9, 0.9, 0.9))
    steps = Cascade(WiseWeights.ones(("mv",)), policy)
    assert steps.push([0.0, 1.0]).confidence == pytest.approx(1 / (1 + math.exp(-1)))
    assert steps.push([0.0, 9.0]).confidence == pytest.approx(1 / (1 + math.exp(-1)))


def test_logits_that_cannot_be_right_are_refused() -> None:
    with pytest.raises(ModelError, match="mv_1 are not finite"):
        cascade(threshold=1.0).push([float("nan"), 0.0])
    steps = cascade(threshold=1.0)
    steps.push([0.0, 1.0])
    with pytest.raises(ModelError, match=r"mv_2 have shape \(3,\)"):
        steps.push([0.0, 1.0, 2.0])


def test_weights_and_policies_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"lengths .*\(1, 2\)"):
        WiseWeights(("mv",), ((1.0,), (1.0, 1.0)))
    with pytest.raises(ConfigError, match="not finite"):
        WiseWeights(("mv",), ((1.0,), (1.0,) * 2, (1.0,) * 3, (float("inf"),) * 4))
    with pytest.raises(ConfigError, match="temperatures"):
        ExitPolicy(("mv",), (1.0, 0.0, 1.0, 1.0), (0.5,) * 4)
    with pytest.raises(ConfigError, match="thresholds"):
        ExitPolicy(("mv",), (1.0,) * 4, (0.5, 0.5, 0.5, 1.5))
    with pytest.raises(ConfigError, match="4 each for mv"):
        ExitPolicy(("mv",), (1.0,) * 3, (0.5,) * 4)
    with pytest.raises(ConfigError, match="order of the policy"):
        Cascade(WiseWeights.ones(("mv",)), ExitPolicy.constant(("iframe",), threshold=0.5))


def test_position_reads_as_a_file_name() -> None:
    assert str(Position("residual", 3)) == "residual_3"


@pytest.mark.parametrize("max_exit", [None, 1, 7])
def test_replay_answers_as_the_cascade_does_clip_by_clip(max_exit: int | None) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(200, 12, 5)) * np.linspace(0.5, 3, 12)[:, None]
    weights = WiseWeights(ALL, tuple(tuple(rng.normal(0.4, 0.3, k)) for k in range(1, 13)))
    policy = ExitPolicy(ALL, tuple(rng.uniform(0.5, 2, 12)), tuple(rng.uniform(0.35, 0.6, 12)))
    together = replay(logits, weights, policy, max_exit=max_exit)
    steps = Cascade(weights, policy, max_exit=max_exit)
    for n, clip in enumerate(logits):
        steps.reset()
        decision = next(d for d in map(steps.push, clip) if d.exit)
        assert together.exits[n] == steps.num_pushed
        assert together.labels[n] == decision.label_index
        assert together.confidences[n] == pytest.approx(decision.confidence, abs=1e-12)
    if max_exit != 1:
        assert len(set(together.exits)) > 2, "the draw should use several exits"


def test_prefix_logits_keep_leading_axes() -> None:
    logits = np.random.default_rng(1).normal(size=(2, 3, 4, 5))
    weights = WiseWeights.ones(("mv",))
    assert prefix_logits(logits, weights) == pytest.approx(np.cumsum(logits, axis=2))
