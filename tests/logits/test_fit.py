"""Weights and policies of whole cascades: each order has its own, made as its parts are."""

from __future__ import annotations

from dataclasses import replace

import pytest

from edgepkd.cascade import Order, WiseWeights, replay
from edgepkd.errors import ConfigError
from edgepkd.logits.choice import CrossFit, Evidence, choose, parts_of
from edgepkd.logits.fit import WiseRecipe, fit_deployed, fit_order_policy, policy_on
from edgepkd.logits.policy import fit_policy
from edgepkd.logits.wise import Convex, fit_orders, in_order
from tests.logits.made_logits import make_logits

ORDERS: tuple[Order, ...] = (("mv",), ("iframe", "mv"))
RECIPE = WiseRecipe(l2=0.1, accuracy_loss=0.05, min_confidence=0.6, safety_clips=1)


def test_every_order_gets_weights_and_a_policy_by_the_recipe() -> None:
    data = make_logits()
    fitted = fit_deployed(data.logits, data.labels, groups=data.groups, orders=ORDERS,
                          settings=replace(RECIPE, take="wise"))
    assert tuple(fitted) == ORDERS
    expected = fit_orders(data.logits, data.labels, orders=ORDERS, method=Convex(l2=0.1))
    for order, (weights, policy) in fitted.items():
        assert weights == expected[order]
        assert policy == fit_policy(
            in_order(data.logits, order), data.labels, weights=weights, accuracy_loss=0.05,
            min_confidence=0.6, safety_clips=1)


def test_left_alone_it_takes_what_cross_fitting_shows_to_be_better() -> None:
    data = make_logits(num_clips=120)
    fitted = fit_deployed(data.logits, data.labels, groups=data.groups, orders=ORDERS,
                          settings=RECIPE)
    evidence = Evidence(data.logits, data.labels, data.groups,
                        parts_of(data.labels, data.groups), 3)
    for order, (weights, policy) in fitted.items():
        taken = choose(CrossFit(evidence).tracks(order), evidence).taken
        assert weights == taken.weights
        assert policy == policy_on(taken.combined, data.labels, order=order, settings=RECIPE)
    few = make_logits(num_clips=30)
    for order, (weights, _) in fit_deployed(few.logits, few.labels, groups=few.groups,
                                            orders=ORDERS, settings=RECIPE).items():
        assert weights == WiseWeights.ones(order)


def test_sums_on_demand() -> None:
    data = make_logits(num_clips=60)
    fitted = fit_deployed(data.logits, data.labels, groups=data.groups, orders=ORDERS,
                          settings=replace(RECIPE, take="sums"))
    for order, (weights, policy) in fitted.items():
        assert weights == WiseWeights.ones(order)
        assert policy == fit_policy(in_order(data.logits, order), data.labels, weights=weights,
                                    accuracy_loss=0.05, min_confidence=0.6, safety_clips=1)


def test_a_policy_keeps_what_the_recipe_promises() -> None:
    data = make_logits()
    order: Order = ("residual", "iframe")
    weights = fit_orders(data.logits, data.labels, orders=[order], method=Convex())[order]
    policy = fit_order_policy(data.logits, data.labels, weights=weights, settings=RECIPE)
    assert min(policy.thresholds[:-1]) >= RECIPE.min_confidence
    stacked = in_order(data.logits, order)
    answered = replay(stacked, weights, policy)
    full = (stacked * weights.matrix()[-1][None, :, None]).sum(axis=1).argmax(axis=1)
    lost = (full == data.labels).mean() - (answered.labels == data.labels).mean()
    assert lost <= RECIPE.accuracy_loss + 1e-9
    assert answered.exits.mean() < 8


@pytest.mark.parametrize(("name", "value", "allowed"), [
    ("take", "both", "auto, wise, sums"),
    ("l2", -0.1, "0 or more"), ("accuracy_loss", 1, "0 <= value < 1"),
    ("accuracy_loss", -0.1, "0 <= value < 1"), ("min_confidence", 1.0, "0 <= value < 1"),
    ("safety_clips", -1, "0 or more")])
def test_settings_out_of_their_range_are_named(name: str, value: float, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value!r}; allowed: {allowed}"):
        WiseRecipe(**{name: value})  # type: ignore[arg-type]
