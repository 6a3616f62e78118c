"""Fits the exit policy: a temperature and a threshold for each exit, on held-out logits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgepkd.cascade import (
    ExitPolicy,
    Floats,
    Labels,
    Order,
    WiseWeights,
    confidence,
    prefix_logits,
    softmax,
)

NEVER = 1.0
"""Threshold that nothing exceeds."""
_LOG_TEMPERATURES = (np.log(0.05), np.log(20.0))
_SCALES = (0.05, 20.0)
_NEWTON_STEPS = 30


def fit_temperature(logits: Floats, labels: Labels) -> float:
    """Temperature in 0.05..20 that minimises cross-entropy of `logits` [N, classes].

    Convex in 1 / temperature, hence one minimum in its logarithm.
    """
    from scipy.optimize import minimize_scalar

    rows = np.arange(len(labels))

    def loss(log_temperature: float) -> float:
        probabilities = softmax(logits, temperature=float(np.exp(log_temperature)))
        return float(-np.mean(np.log(np.maximum(probabilities[rows, labels], 1e-300))))

    return float(np.exp(minimize_scalar(loss, bounds=_LOG_TEMPERATURES, method="bounded").x))


def likeliest_scales(logits: Floats, labels: Labels) -> Floats:
    """1 / temperature [k] that makes the labels [N] likeliest under each of `logits` [N, k, C].

    As `fit_temperature`, by Newton's method on the logarithm and for all k at once, because
    cross-fitting asks thousands of times.
    """
    scales, rows = np.ones(logits.shape[1]), np.arange(len(labels))
    own = logits[rows, :, labels]  # [N, k]
    for _ in range(_NEWTON_STEPS):
        probabilities = softmax(logits * scales[:, None])
        mean = (probabilities * logits).sum(axis=2)
        spread = (probabilities * (logits - mean[..., None]) ** 2).sum(axis=2).mean(axis=0)
        slope = (mean - own).mean(axis=0)  # of the loss, by the scale
        step = slope / np.maximum(spread * scales + np.abs(slope), np.finfo(np.float64).tiny)
        before, scales = scales, np.clip(scales * np.exp(-step), *_SCALES)
        if np.allclose(before, scales, rtol=1e-6, atol=0):
            break
    return scales


def fit_policy(
    logits: Floats, labels: Labels, *, weights: WiseWeights, accuracy_loss: float,
    min_confidence: float = 0.0, safety_clips: int = 0,
) -> ExitPolicy:
    """Thresholds that keep accuracy within `accuracy_loss` of the full chain.

    `logits` [N, K, classes] along the order of `weights`, of clips no network was trained on; else
    as `fit_policy_on`.
    """
    return fit_policy_on(prefix_logits(logits, weights), labels, order=weights.order,
                         accuracy_loss=accuracy_loss, min_confidence=min_confidence,
                         safety_clips=safety_clips)


def fit_policy_on(
    combined: Floats, labels: Labels, *, order: Order, accuracy_loss: float,
    min_confidence: float = 0.0, safety_clips: int = 0,
) -> ExitPolicy:
    """As `fit_policy`, from what the ensemble says at each position: `combined` [N, K, classes].

    Best from weights that were fitted without the clip (`choice.Track`): those fitted with it are
    surer of it than they will be of new ones.

    Exits are set from the first to the last. Each takes as many of the clips that reach it as it
    can while the clips it gets wrong and the full chain gets right, less the reverse, do not exceed
    what is left of the allowance; the same must hold at every higher threshold.

    Eleven thresholds on some dozens of clips fit their luck too. Two brakes: an exit that meets its
    limit gives back the `safety_clips` least sure of its clips, and no threshold is below
    `min_confidence`.
    """
    num_clips, num_exits = combined.shape[:2]
    temperatures = 1 / likeliest_scales(combined, labels)
    probabilities = softmax(combined / temperatures[:, None])
    right = probabilities.argmax(axis=-1) == labels[:, None]  # [N, K]
    sure = confidence(probabilities)  # [N, K]
    allowance = int(np.floor(accuracy_loss * num_clips + 1e-9))
    waiting = np.ones(num_clips, bool)
    thresholds = []
    for k in range(num_exits - 1):
        lost = right[:, -1].astype(int) - right[:, k]  # 1: the full chain is right, this is not
        threshold = max(min_confidence, _lowest_threshold(
            sure[waiting, k], lost[waiting], allowance=allowance, safety_clips=safety_clips))
        leaving = waiting & (sure[:, k] > threshold)
        allowance -= max(0, int(lost[leaving].sum()))
        waiting &= ~leaving
        thresholds.append(threshold)
    return ExitPolicy(order, tuple(temperatures.tolist()), (*thresholds, 0.0))


def _lowest_threshold(
    sure: Floats, lost: NDArray[np.int64], *, allowance: int, safety_clips: int
) -> float:
    """Lowest threshold at which, and above which, the net loss of leaving clips is allowed."""
    order = np.argsort(-sure, kind="stable")
    losses = np.cumsum(lost[order])
    ranked = sure[order]
    too_many = np.flatnonzero(losses > allowance)
    count = max(0, int(too_many[0]) - safety_clips) if too_many.size else len(order)
    while 0 < count < len(order) and ranked[count] == ranked[count - 1]:
        count -= 1  # equal confidences leave together or not at all
    if count == 0:
        return NEVER
    below = ranked[count] if count < len(order) else 0.0
    return float((ranked[count - 1] + below) / 2)
