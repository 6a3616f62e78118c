"""WISE: the fit is at the optimum, and beats plain sums where exits differ in worth."""

from __future__ import annotations

import numpy as np
import pytest

from edgepkd.cascade import Order, WiseWeights, prefix_logits
from edgepkd.errors import ConfigError
from edgepkd.training.wise import (
    Floats,
    Labels,
    all_orders,
    fit_vector,
    fit_wise,
    in_order,
    wise_objective,
)

ORDER: Order = ("mv",)


@pytest.fixture
def noisy_exits() -> tuple[Floats, Labels]:
    """Four exits, [200, 4, 3]: two loud ones that know nothing, two quiet ones that know."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 200)
    truth = np.eye(3)[labels][:, None]
    noise = rng.normal(size=(200, 4, 3)) * np.array([4.0, 0.7, 4.0, 0.5])[:, None]
    return truth * np.array([0.0, 1.0, 0.0, 1.0])[:, None] + noise, labels


def test_gradient_agrees_with_finite_differences(noisy_exits: tuple[Floats, Labels]) -> None:
    logits, labels = noisy_exits
    weights = np.array([0.3, 1.0, 0.0, 2.0])
    _, gradient = wise_objective(weights, logits, labels, l2=0.1)
    for j in range(4):
        step = np.eye(4)[j] * 1e-5
        rise = (wise_objective(weights + step, logits, labels, l2=0.1)[0]
                - wise_objective(weights - step, logits, labels, l2=0.1)[0])
        assert gradient[j] == pytest.approx(rise / 2e-5, abs=1e-7)


def test_objective_equals_a_hand_computation() -> None:
    logits = np.array([[[2.0, 0.0], [0.0, 1.0]]])  # one clip, two exits, two classes
    value, _ = wise_objective(np.array([1.0, 3.0]), logits, np.array([0]), l2=0.5)
    assert value == pytest.approx(np.log(1 + np.exp(3.0 - 2.0)) + 0.25 * 10)


def test_the_fit_is_at_the_optimum(noisy_exits: tuple[Floats, Labels]) -> None:
    logits, labels = noisy_exits
    weights = fit_vector(logits, labels, l2=0.01)
    value, gradient = wise_objective(weights, logits, labels, l2=0.01)
    free = weights > 0
    assert free.any()
    np.testing.assert_allclose(gradient[free], 0, atol=1e-5)
    assert (gradient[~free] >= -1e-5).all()  # held at zero: going up would not help
    rng = np.random.default_rng(1)
    for _ in range(20):
        other = np.maximum(weights + rng.normal(size=4) * 0.2, 0)
        assert wise_objective(other, logits, labels, l2=0.01)[0] >= value


def test_the_fit_beats_plain_sums(noisy_exits: tuple[Floats, Labels]) -> None:
    logits, labels = noisy_exits
    fitted = fit_wise(logits[:100], labels[:100], order=ORDER, l2=0.01)

    def accuracy(weights: WiseWeights) -> float:
        answers = prefix_logits(logits[100:], weights)[:, -1].argmax(axis=1)
        return float((answers == labels[100:]).mean())

    assert accuracy(fitted) > accuracy(WiseWeights.ones(ORDER)) + 0.2


def test_l2_pulls_weights_together_and_down(noisy_exits: tuple[Floats, Labels]) -> None:
    logits, labels = noisy_exits
    loose, tight = (fit_vector(logits, labels, l2=l2) for l2 in (1e-4, 10.0))
    assert np.linalg.norm(tight) < 0.3 * np.linalg.norm(loose)


def test_vectors_have_the_lengths_of_their_prefixes(noisy_exits: tuple[Floats, Labels]) -> None:
    weights = fit_wise(*noisy_exits, order=ORDER, l2=0.01)
    assert [len(vector) for vector in weights.vectors] == [1, 2, 3, 4]
    with pytest.raises(ConfigError, match="exits of the logits"):
        fit_wise(*noisy_exits, order=("mv", "iframe"), l2=0.01)


def test_orders_are_all_permutations_of_all_subsets() -> None:
    orders = all_orders()
    assert len(orders) == len(set(orders)) == 15
    logits = {"mv": np.zeros((2, 4, 3)), "iframe": np.ones((2, 4, 3))}
    stacked = in_order(logits, ("iframe", "mv"))  # type: ignore[arg-type]
    assert stacked.shape == (2, 8, 3)
    assert stacked[:, :4].all()
    assert not stacked[:, 4:].any()
