"""Weights and policies of whole cascades: each order has its own, made as its parts are."""

from __future__ import annotations

import pytest

from edgepkd.cascade import Order, replay
from edgepkd.errors import ConfigError
from edgepkd.logits.fit import WiseRecipe, fit_deployed, fit_order_policy
from edgepkd.logits.policy import fit_policy
from edgepkd.logits.wise import Convex, fit_orders, in_order
from tests.logits.made_logits import make_logits

ORDERS: tuple[Order, ...] = (("mv",), ("iframe", "mv"))
RECIPE = WiseRecipe(l2=0.1, accuracy_loss=0.05, min_confidence=0.6, safety_clips=1)


def test_every_order_gets_weights_and_a_policy_by_the_recipe() -> None:
    data = make_logits()
    fitted = fit_deployed(data.logits, data.labels, orders=ORDERS, settings=RECIPE)
    assert tuple(fitted) == ORDERS
    expected = fit_orders(data.logits, data.labels, orders=ORDERS, method=Convex(l2=0.1))
    for order, (weights, policy) in fitted.items():
        assert weights == expected[order]
        assert policy == fit_policy(
            in_order(data.logits, order), data.labels, weights=weights, accuracy_loss=0.05,
            min_confidence=0.6, safety_clips=1)


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
    ("l2", -0.1, "0 or more"), ("accuracy_loss", 1, "0 <= value < 1"),
    ("accuracy_loss", -0.1, "0 <= value < 1"), ("min_confidence", 1.0, "0 <= value < 1"),
    ("safety_clips", -1, "0 or more")])
def test_settings_out_of_their_range_are_named(name: str, value: float, allowed: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} is {value}; allowed: {allowed}"):
        WiseRecipe(**{name: value})  # type: ignore[arg-type]
