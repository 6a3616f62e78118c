"""Temperatures and thresholds on logits whose best answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from edgepkd.cascade import Floats, Labels, Order, WiseWeights, replay
from edgepkd.logits.policy import NEVER, fit_policy, fit_temperature, likeliest_scales

ORDER: Order = ("mv",)
LAST_ONLY = WiseWeights(ORDER, ((1.0,), (0.0, 1.0), (0.0, 0.0, 1.0), (0.0, 0.0, 0.0, 1.0)))
"""Every prefix answers with its last exit alone."""


def chain(margins: Floats, right: np.ndarray, labels: Labels) -> Floats:
    """Logits [N, 4, 2] of exits that favour the true label by `margins`, or the other one."""
    signs = np.where(right, 1.0, -1.0) * np.where(labels == 1, 1.0, -1.0)[:, None]
    half = margins * signs / 2
    return np.stack([-half, half], axis=-1)


def test_temperature_undoes_a_known_scale() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 3)) * 2
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (rng.random((4000, 1)) > probabilities.cumsum(axis=1)).sum(axis=1)
    assert fit_temperature(logits, labels) == pytest.approx(1.0, abs=0.1)
    assert fit_temperature(logits * 5, labels) == pytest.approx(5.0, abs=0.5)


def test_scales_of_all_exits_are_one_over_their_temperatures() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    signal = np.array([0.0, 0.5, 5.0, 20.0])[:, None] * np.eye(3)[labels][:, None]
    logits = signal + np.array([1.0, 1.0, 6.0, 20.0])[:, None] * rng.normal(size=(60, 4, 3))
    expected = [1 / fit_temperature(logits[:, k], labels) for k in range(4)]
    np.testing.assert_allclose(likeliest_scales(logits, labels), expected, rtol=1e-3)


def test_the_first_exit_takes_just_the_clips_it_is_right_about() -> None:
    labels = np.arange(100) % 2
    margins = np.tile(np.linspace(5.0, 1.0, 100)[:, None], (1, 4))
    right = np.ones((100, 4), bool)
    right[60:, :3] = False  # the least sure 40 are wrong until the last exit
    policy = fit_policy(chain(margins, right, labels), labels, weights=LAST_ONLY,
                        accuracy_loss=0.0)
    result = replay(chain(margins, right, labels), LAST_ONLY, policy)
    assert (result.exits[:60] == 1).all()
    assert (result.exits[60:] == 4).all()
    assert (result.labels == labels).all()


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.2])
def test_accuracy_stays_within_the_stated_loss(loss: float) -> None:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 2, 300)
    right = rng.random((300, 4)) < np.array([0.6, 0.7, 0.8, 0.95])
    logits = chain(rng.random((300, 4)) * 4 + right, right, labels)
    policy = fit_policy(logits, labels, weights=LAST_ONLY, accuracy_loss=loss)
    result = replay(logits, LAST_ONLY, policy)
    assert (result.labels == labels).mean() >= right[:, -1].mean() - loss - 1e-12
    assert result.exits.mean() < 4


def test_a_larger_allowance_exits_earlier() -> None:
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 2, 300)
    right = rng.random((300, 4)) < np.array([0.6, 0.7, 0.8, 0.95])
    logits = chain(rng.random((300, 4)) * 4 + right, right, labels)
    means = [
        replay(logits, LAST_ONLY,
               fit_policy(logits, labels, weights=LAST_ONLY, accuracy_loss=loss)).exits.mean()
        for loss in (0.0, 0.1, 0.3)
    ]
    assert means[0] > means[1] > means[2]


def test_an_exit_that_is_surely_wrong_is_never_taken() -> None:
    labels = np.arange(50) % 2
    right = np.ones((50, 4), bool)
    right[:, 0] = False
    policy = fit_policy(chain(np.full((50, 4), 3.0), right, labels), labels, weights=LAST_ONLY,
                        accuracy_loss=0.0)
    assert policy.thresholds[0] == NEVER
    assert policy.thresholds[1] < NEVER


def test_equal_confidences_leave_together_or_not_at_all() -> None:
    labels = np.zeros(10, int)
    right = np.ones((10, 4), bool)
    right[3, :3] = False  # one wrong answer among ten equally sure ones
    policy = fit_policy(chain(np.full((10, 4), 2.0), right, labels), labels, weights=LAST_ONLY,
                        accuracy_loss=0.0)
    assert policy.thresholds[:3] == (NEVER,) * 3


def test_the_brakes_hold_back_unsure_clips() -> None:
    labels = np.arange(100) % 2
    margins = np.tile(np.linspace(5.0, 1.0, 100)[:, None], (1, 4))
    right = np.ones((100, 4), bool)
    right[60:, :3] = False
    logits = chain(margins, right, labels)

    def first_exits(**brakes: float) -> int:
        policy = fit_policy(logits, labels, weights=LAST_ONLY, accuracy_loss=0.0,
                            **brakes)  # type: ignore[arg-type]
        return int((replay(logits, LAST_ONLY, policy).exits == 1).sum())

    assert first_exits() == 60
    assert first_exits(safety_clips=5) == 55
    assert first_exits(min_confidence=0.9999) < 55
