"""Fits WISE weights: one vector for each prefix of the cascade (paper.md 4).

For prefix k the weights w solve

    min_w  mean_n -log softmax(sum_j w_j logits_nj)[label_n]
           + l1 * sum_j |w_j| + l2 / 2 * sum_j w_j^2,   w >= 0 unless negative ones are allowed

which is convex, so L-BFGS finds the optimum: `Convex`. `PaperSgd` is the reference's way.
The logits must be of clips that no network was trained on.

`WiseVariant` names what an ablation leaves out, one factor each. The reference mixes two: its "no
lateral" loses the late fusion of the last exit only there, its "no scaling" divides on one data
set and not on the other (paper.md 6, trap 10).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations

import numpy as np

from edgepkd._optional import require
from edgepkd.cascade import Floats, Labels, Order, Position, WiseWeights, positions, softmax
from edgepkd.config import MODALITIES, Modality, check

MIN_SCALE = 1e-6
"""Least weight of an exit that decides alone: at 0 it would give up its own answer."""


@dataclass(frozen=True, kw_only=True)
class Convex:
    """Weights at the optimum of the problem above, by L-BFGS-B."""

    l1: float = 0.0
    l2: float = 0.01
    non_negative: bool = True

    def __post_init__(self) -> None:
        for name in ("l1", "l2"):
            value = getattr(self, name)
            check(0 <= value < np.inf, name, got=value, allowed="0 or more")


@dataclass(frozen=True, kw_only=True)
class PaperSgd:
    """The reference's fit: full-batch gradient steps from all ones, no momentum, no clipping.

    A vector of length 1 is not fitted: exit 1 answers with its raw logits. Some weights may end
    below zero.
    """

    learning_rate: float = 0.1
    num_steps: int = 500
    l1: float = 0.1
    """Pull on vectors longer than `free_length`."""
    free_length: int = 5
    """Vectors up to this length have no pull."""

    def __post_init__(self) -> None:
        check(self.learning_rate > 0, "learning_rate", got=self.learning_rate, allowed="above 0")
        check(self.num_steps >= 0, "num_steps", got=self.num_steps, allowed="0 or more")
        check(0 <= self.l1 < np.inf, "l1", got=self.l1, allowed="0 or more")


Method = Convex | PaperSgd


@dataclass(frozen=True, kw_only=True)
class WiseVariant:
    """The method as it is, or with one part changed; each field is one factor."""

    scaling: bool = True
    """False: every weight is 1."""
    lateral: bool = True
    """False: every exit decides on its own logits, the last one too (its late fusion *is* a lateral
    connection). Its weight is 1, or with `scaling` a fitted positive scale: the answers are then
    the exit's own, and its confidence is fitted."""
    division: bool = False
    """True: z_k is divided by the number of exits summed (1 without `lateral`). The answers stay,
    confidences fall; a temperature fitted afterwards undoes it."""


FULL = WiseVariant()
ENSEMBLES: Mapping[str, tuple[Method, WiseVariant]] = {
    "wise": (Convex(), FULL),
    "wise_paper": (PaperSgd(), FULL),
    "plain_sum": (Convex(), WiseVariant(scaling=False)),
    "mean": (Convex(), WiseVariant(scaling=False, division=True)),
    "no_lateral": (Convex(), WiseVariant(lateral=False)),
}
"""What a comparison table shows."""


def all_orders(modalities: Sequence[Modality] = MODALITIES) -> tuple[Order, ...]:
    """Every permutation of one or more of `modalities`: 15 for three."""
    return tuple(
        order for size in range(1, len(modalities) + 1) for order in permutations(modalities, size)
    )


def in_order(logits: Mapping[Modality, Floats], order: Order) -> Floats:
    """Logits [N, 4, classes] of each modality -> [N, 4 * len(order), classes] along the cascade."""
    return np.concatenate([logits[modality] for modality in order], axis=1)


# ---- one prefix


def wise_objective(
    weights: Floats, logits: Floats, labels: Labels, *, l2: float | Floats, centre: float = 0.0
) -> tuple[float, Floats]:
    """Value and gradient [k] of the smooth part of the problem above (all but the L1 term).

    `logits` [N, k, classes], `labels` [N]. The pull `l2`, one for all or [k], is towards `centre`.
    """
    combined = np.einsum("j,njc->nc", weights, logits)
    apart = weights - centre
    probabilities = softmax(combined)
    rows = np.arange(len(labels))
    shifted = combined - combined.max(axis=1, keepdims=True)
    log_sums = np.log(np.exp(shifted).sum(axis=1))
    value = float(np.mean(log_sums - shifted[rows, labels]) + np.sum(l2 * apart**2) / 2)
    errors = probabilities.copy()
    errors[rows, labels] -= 1  # [N, classes]
    gradient: Floats = np.einsum("nc,njc->j", errors, logits) / len(labels) + l2 * apart
    return value, gradient


def fit_vector(
    logits: Floats, labels: Labels, *, l2: float | Floats, l1: float = 0.0, centre: float = 0.0,
    non_negative: bool = True, tolerance: float = 1e-14,
) -> Floats:
    """Optimal weights [k] of one prefix for `logits` [N, k, classes], `labels` [N].

    `l2` and `centre` are those of `wise_objective`; `tolerance` is L-BFGS-B's relative one.

    Raises:
        MissingExtraError: scipy is not installed.
    """
    require("scipy", purpose="Fitting WISE weights")
    from scipy.optimize import minimize

    count = logits.shape[1]
    # |w| has a kink at 0. Where w may be negative, w = plus - minus with both >= 0 has none.
    split = l1 > 0 and not non_negative
    signs = np.concatenate([np.eye(count), -np.eye(count)], axis=1) if split else np.eye(count)

    def objective(parts: Floats) -> tuple[float, Floats]:
        value, gradient = wise_objective(signs @ parts, logits, labels, l2=l2, centre=centre)
        return value + l1 * float(parts.sum()), signs.T @ gradient + l1

    start = np.full(signs.shape[1], centre or 1 / count)
    start[count:] = 0
    result = minimize(
        objective, start, jac=True, method="L-BFGS-B",
        bounds=[(0 if non_negative or split else None, None)] * len(start),
        options={"maxiter": 1000, "ftol": tolerance, "gtol": 1e-8},
    )
    weights: Floats = signs @ np.asarray(result.x, np.float64)
    return weights


def kkt_violation(
    weights: Floats, logits: Floats, labels: Labels, *, method: Convex
) -> float:
    """How far `weights` [k] are from the optimum of `method`: 0 there and only there.

    The largest component of the gradient that a step could still follow downhill: at a weight of 0
    only the part that its bound, or the kink of the L1 term, does not hold back.
    """
    _, gradient = wise_objective(weights, logits, labels, l2=method.l2)
    moved = np.abs(gradient + method.l1 * np.sign(weights))
    held = -gradient if method.non_negative else np.abs(gradient)
    return float(np.where(weights != 0, moved, np.maximum(held - method.l1, 0)).max())


def fit_vector_sgd(logits: Floats, labels: Labels, *, method: PaperSgd) -> Floats:
    """Weights [k] of one prefix as the reference fits them, `logits` [N, k, classes].

    Loss: cross-entropy + alpha * sum_j |w_j|, alpha 0 for short vectors (paper.md 4.1).
    """
    count = logits.shape[1]
    weights = np.ones(count)
    if count == 1:
        return weights
    alpha = method.l1 if count > method.free_length else 0.0
    for _ in range(method.num_steps):
        _, gradient = wise_objective(weights, logits, labels, l2=0.0)
        weights = weights - method.learning_rate * (gradient + alpha * np.sign(weights))
    return weights


def _solve(logits: Floats, labels: Labels, method: Method) -> Floats:
    if isinstance(method, PaperSgd):
        return fit_vector_sgd(logits, labels, method=method)
    return fit_vector(logits, labels, l1=method.l1, l2=method.l2,
                      non_negative=method.non_negative)


def fit_prefix(
    logits: Floats, labels: Labels, *, method: Method, variant: WiseVariant = FULL
) -> tuple[float, ...]:
    """Weights, one for each exit of the prefix, from `logits` [N, k, classes], `labels` [N]."""
    count = logits.shape[1]
    num_summed = count if variant.lateral else 1
    summed = np.ones(num_summed)
    if variant.scaling:
        summed = _solve(logits[:, count - num_summed:], labels, method)
    if not variant.lateral:
        summed = np.maximum(summed, MIN_SCALE)
    if variant.division:
        summed = summed / num_summed
    padded: list[float] = [0.0] * (count - num_summed) + summed.tolist()
    return tuple(padded)


# ---- whole orders


def fit(
    logits: Floats, labels: Labels, *, order: Order, method: Method,
    variant: WiseVariant = FULL,
) -> WiseWeights:
    """WISE weights of `order` from held-out `logits` [N, K, classes] along it, `labels` [N].

    The device runs the result as it is, whatever the variant.

    Raises:
        ConfigError: the number of exits does not fit the order.
    """
    count = len(positions(order))
    check(logits.shape[1] == count, "exits of the logits", got=logits.shape[1],
          allowed=f"{count} for {','.join(order)}")
    return WiseWeights(order, tuple(
        fit_prefix(logits[:, :k], labels, method=method, variant=variant)
        for k in range(1, count + 1)
    ))


def fit_orders(
    logits: Mapping[Modality, Floats], labels: Labels, *, orders: Sequence[Order],
    method: Method, variant: WiseVariant = FULL,
) -> dict[Order, WiseWeights]:
    """`fit` for each of `orders`, from logits [N, 4, classes] of each modality.

    Orders that begin alike share prefixes; each is fitted once (60 fits instead of 132 for all 15).
    """
    known: dict[tuple[Position, ...], tuple[float, ...]] = {}
    fitted = {}
    for order in orders:
        stacked, places = in_order(logits, order), positions(order)
        prefixes = [places[:k] for k in range(1, len(places) + 1)]
        for prefix in prefixes:
            if prefix not in known:
                known[prefix] = fit_prefix(stacked[:, : len(prefix)], labels, method=method,
                                           variant=variant)
        fitted[order] = WiseWeights(order, tuple(known[prefix] for prefix in prefixes))
    return fitted


def ensembles(
    logits: Floats, labels: Labels, *, order: Order, names: Sequence[str] = tuple(ENSEMBLES)
) -> dict[str, WiseWeights]:
    """The ensembles of a comparison table (see ENSEMBLES), fitted on held-out `logits` [N, K, C].

    Raises:
        ConfigError: an unknown name, or the exits do not fit the order.
    """
    unknown = sorted(set(names) - set(ENSEMBLES))
    check(not unknown, "ensembles", got=unknown, allowed=", ".join(ENSEMBLES))
    return {
        name: fit(logits, labels, order=order, method=ENSEMBLES[name][0],
                  variant=ENSEMBLES[name][1])
        for name in names
    }
