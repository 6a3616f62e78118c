"""WISE: the fit is at the optimum, and beats plain sums; the paper's way is the paper's."""

from __future__ import annotations

import numpy as np
import pytest

from edgepkd.cascade import Floats, Labels, Order, WiseWeights, prefix_logits, softmax
from edgepkd.errors import ConfigError
from edgepkd.logits.wise import (
    Convex,
    PaperSgd,
    fit,
    fit_vector,
    fit_vector_sgd,
    kkt_violation,
    wise_objective,
)

ORDER: Order = ("mv",)
METHODS = [
    Convex(), Convex(l1=0.05, l2=0), Convex(l1=0.02, l2=0.05), Convex(non_negative=False),
    Convex(l1=0.05, l2=0, non_negative=False), Convex(l1=0.02, l2=0.05, non_negative=False),
]


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


@pytest.mark.smoke
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
    fitted = fit(logits[:100], labels[:100], order=ORDER, method=Convex(l2=0.01))

    def accuracy(weights: WiseWeights) -> float:
        answers = prefix_logits(logits[100:], weights)[:, -1].argmax(axis=1)
        return float((answers == labels[100:]).mean())

    assert accuracy(fitted) > accuracy(WiseWeights.ones(ORDER)) + 0.2


def test_l2_pulls_weights_together_and_down(noisy_exits: tuple[Floats, Labels]) -> None:
    logits, labels = noisy_exits
    loose, tight = (fit_vector(logits, labels, l2=l2) for l2 in (1e-4, 10.0))
    assert np.linalg.norm(tight) < 0.3 * np.linalg.norm(loose)


def test_vectors_have_the_lengths_of_their_prefixes(noisy_exits: tuple[Floats, Labels]) -> None:
    weights = fit(*noisy_exits, order=ORDER, method=Convex(l2=0.01))
    assert [len(vector) for vector in weights.vectors] == [1, 2, 3, 4]
    with pytest.raises(ConfigError, match="exits of the logits"):
        fit(*noisy_exits, order=("mv", "iframe"), method=Convex(l2=0.01))


# ---- the convex problem


@pytest.fixture(scope="module")
def helpful_and_harmful() -> tuple[Floats, Labels]:
    """Six exits, [120, 6, 4]: two that know, two of noise, one that speaks against the truth, and
    a copy of the first."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, 120)
    worth = np.array([1.5, 1.0, 0.0, 0.0, -0.8])[:, None]
    logits = np.eye(4)[labels][:, None] * worth + rng.normal(size=(120, 5, 4))
    return np.concatenate([logits, logits[:, :1]], axis=1), labels


def full_objective(weights: Floats, logits: Floats, labels: Labels, method: Convex) -> float:
    """The problem written out anew: no code of the module under test."""
    probabilities = softmax(np.tensordot(logits, weights, axes=(1, 0)))
    losses = -np.log(probabilities[np.arange(len(labels)), labels])
    return float(losses.mean() + method.l1 * np.abs(weights).sum()
                 + method.l2 / 2 * (weights @ weights))


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_no_step_leads_downhill_from_the_fit(
    helpful_and_harmful: tuple[Floats, Labels], method: Convex
) -> None:
    logits, labels = helpful_and_harmful
    weights = fit_vector(logits, labels, l1=method.l1, l2=method.l2,
                         non_negative=method.non_negative)
    assert kkt_violation(weights, logits, labels, method=method) < 1e-6
    best = full_objective(weights, logits, labels, method)
    rng = np.random.default_rng(6)
    for size in (1e-3, 1e-2, 0.1, 1.0):
        for _ in range(50):
            other = weights + rng.normal(size=6) * size
            if method.non_negative:
                other = np.maximum(other, 0)
            assert full_objective(other, logits, labels, method) >= best - 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS, ids=str)
def test_another_solver_finds_the_same_optimum(
    helpful_and_harmful: tuple[Floats, Labels], method: Convex
) -> None:
    from scipy.optimize import minimize

    logits, labels = helpful_and_harmful
    logits = logits[:, 1:5]  # no copies: the optimum is one point
    weights = fit_vector(logits, labels, l1=method.l1, l2=method.l2,
                         non_negative=method.non_negative)
    # Powell needs no gradient, so the kink of the L1 term does not mislead it.
    other = minimize(lambda w: full_objective(w, logits, labels, method), np.ones(4),
                     method="Powell", bounds=[(0 if method.non_negative else -9, 9)] * 4,
                     options={"xtol": 1e-9, "ftol": 1e-15, "maxiter": 10000})
    assert full_objective(weights, logits, labels, method) <= other.fun + 1e-10
    np.testing.assert_allclose(weights, other.x, atol=1e-4)


@pytest.mark.filterwarnings("ignore:delta_grad == 0.0")
@pytest.mark.parametrize("method", METHODS[:4:3], ids=str)
def test_trust_constr_agrees(
    helpful_and_harmful: tuple[Floats, Labels], method: Convex
) -> None:
    from scipy.optimize import Bounds, minimize

    logits, labels = helpful_and_harmful
    weights = fit_vector(logits, labels, l2=method.l2, non_negative=method.non_negative)
    bounds = Bounds(0 if method.non_negative else -np.inf, np.inf)
    other = minimize(full_objective, np.ones(6), args=(logits, labels, method),
                     method="trust-constr", bounds=bounds, options={"gtol": 1e-9})
    np.testing.assert_allclose(weights, other.x, atol=1e-3)


def test_kkt_violation_sees_what_is_not_the_optimum(
    helpful_and_harmful: tuple[Floats, Labels]
) -> None:
    logits, labels = helpful_and_harmful
    for method in METHODS:
        assert kkt_violation(np.ones(6), logits, labels, method=method) > 0.01
        assert kkt_violation(np.zeros(6), logits, labels, method=method) > 0.01


def test_l1_empties_useless_exits(helpful_and_harmful: tuple[Floats, Labels]) -> None:
    logits, labels = helpful_and_harmful
    for non_negative in (True, False):
        weights = fit_vector(logits, labels, l1=0.1, l2=0, non_negative=non_negative)
        assert (np.abs(weights) > 1e-9).sum() < 5
        assert not weights[2:4].any()  # noise: exactly 0, not only small
        assert not fit_vector(logits, labels, l1=9.0, l2=0, non_negative=non_negative).any()


def test_a_harmful_exit_gets_a_negative_weight_only_where_allowed(
    helpful_and_harmful: tuple[Floats, Labels]
) -> None:
    logits, labels = helpful_and_harmful
    assert fit_vector(logits, labels, l2=0.01)[4] == 0
    assert fit_vector(logits, labels, l2=0.01, non_negative=False)[4] < -0.3
    assert fit_vector(logits, labels, l1=0.01, l2=0.01, non_negative=False)[4] < -0.3


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_the_optimum_is_reached_at_any_scale_of_logits(
    helpful_and_harmful: tuple[Floats, Labels], scale: float
) -> None:
    logits, labels = helpful_and_harmful
    logits = logits * np.array([scale, 1, 1, 1, 1, 1])[:, None]
    method = Convex()
    weights = fit_vector(logits, labels, l2=method.l2)
    assert kkt_violation(weights, logits, labels, method=method) < 1e-4


@pytest.mark.parametrize(("name", "value"), [("l1", -0.1), ("l2", -1.0), ("l2", float("nan"))])
def test_pulls_below_zero_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigError, match=f"{name} is .*allowed: 0 or more"):
        Convex(**{name: value})  # type: ignore[arg-type]


# ---- the paper's way


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 5, 6, 12])
def test_paper_sgd_is_the_reference_step_by_step(count: int) -> None:
    import torch

    rng = np.random.default_rng(count)
    labels = rng.integers(0, 5, 40)
    logits = np.eye(5)[labels][:, None] + rng.normal(size=(40, count, 5))
    weights = torch.ones(count, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([weights], lr=0.1)
    alpha = 0.1 if count >= 6 else 0.0
    for _ in range(500):
        combined = (weights[:, None] * torch.tensor(logits)).sum(1)
        loss = torch.nn.functional.cross_entropy(combined, torch.tensor(labels))
        optimizer.zero_grad()
        (loss + alpha * weights.norm(1)).backward()
        optimizer.step()
    fitted = fit_vector_sgd(logits, labels, method=PaperSgd())
    np.testing.assert_allclose(fitted, weights.detach().numpy(), atol=1e-9)


def test_paper_sgd_leaves_the_first_exit_raw_and_starts_from_ones(
    noisy_exits: tuple[Floats, Labels]
) -> None:
    assert fit(*noisy_exits, order=ORDER, method=PaperSgd()).vectors[0] == (1.0,)
    unmoved = fit(*noisy_exits, order=ORDER, method=PaperSgd(num_steps=0))
    assert unmoved == WiseWeights.ones(ORDER)


def test_paper_sgd_is_no_better_than_the_optimum(
    helpful_and_harmful: tuple[Floats, Labels]
) -> None:
    logits, labels = helpful_and_harmful
    method = Convex(l1=0.1, l2=0, non_negative=False)  # the problem that it takes steps on
    steps = fit_vector_sgd(logits, labels, method=PaperSgd())
    best = fit_vector(logits, labels, l1=0.1, l2=0, non_negative=False)
    assert (full_objective(best, logits, labels, method)
            <= full_objective(steps, logits, labels, method))
