"""Fits WISE weights: one vector for each prefix of the cascade (paper.md 4).

For prefix k the weights w solve

    min_w  mean_n -log softmax(sum_j w_j logits_nj)[label_n]  +  l2 / 2 * sum_j w_j^2,   w >= 0

which is convex, so L-BFGS finds the optimum (the reference takes 500 steps of SGD on an L1 pull).
The logits must be of clips that no network was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from edgepkd.cascade import Order, WiseWeights, positions, softmax
from edgepkd.config import MODALITIES, Modality, check

Floats = NDArray[np.float64]
Labels = NDArray[np.int64]


def all_orders() -> tuple[Order, ...]:
    """Every permutation of one, two and three modalities, 15 in all."""
    return tuple(
        order for size in range(1, len(MODALITIES) + 1) for order in permutations(MODALITIES, size)
    )


def in_order(logits: Mapping[Modality, Floats], order: Order) -> Floats:
    """Logits [N, 4, classes] of each modality -> [N, 4 * len(order), classes] along the cascade."""
    return np.concatenate([logits[modality] for modality in order], axis=1)


def wise_objective(
    weights: Floats, logits: Floats, labels: Labels, *, l2: float
) -> tuple[float, Floats]:
    """Value and gradient [k] of the problem above for `logits` [N, k, classes], `labels` [N]."""
    combined = np.einsum("j,njc->nc", weights, logits)
    probabilities = softmax(combined)
    rows = np.arange(len(labels))
    shifted = combined - combined.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    value = float(np.mean(log_sums - shifted[rows, labels]) + l2 / 2 * np.sum(weights**2))
    errors = probabilities.copy()
    errors[rows, labels] -= 1  # [N, classes]
    gradient: Floats = np.einsum("nc,njc->j", errors, logits) / len(labels) + l2 * weights
    return value, gradient


def fit_vector(logits: Floats, labels: Labels, *, l2: float) -> Floats:
    """Optimal weights [k] of one prefix for `logits` [N, k, classes], `labels` [N]."""
    from scipy.optimize import minimize

    count = logits.shape[1]
    result = minimize(
        lambda weights: wise_objective(weights, logits, labels, l2=l2), np.full(count, 1 / count),
        jac=True, method="L-BFGS-B", bounds=[(0, None)] * count,
        options={"maxiter": 1000, "ftol": 1e-14, "gtol": 1e-8},
    )
    weights: Floats = np.asarray(result.x, np.float64)
    return weights


def fit_wise(logits: Floats, labels: Labels, *, order: Order, l2: float) -> WiseWeights:
    """WISE weights of `order` from held-out `logits` [N, K, classes] along it, `labels` [N]."""
    count = len(positions(order))
    check(logits.shape[1] == count, "exits of the logits", got=logits.shape[1],
          allowed=f"{count} for {','.join(order)}")
    return WiseWeights(order, tuple(
        tuple(float(w) for w in fit_vector(logits[:, :k], labels, l2=l2))
        for k in range(1, count + 1)
    ))
