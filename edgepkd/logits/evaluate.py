"""Every way to answer along one order, scored on labelled clips: accuracy, calibration, cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgepkd.cascade import (
    Floats,
    Labels,
    Order,
    WiseWeights,
    order_key,
    positions,
    prefix_logits,
    replay,
    softmax,
)
from edgepkd.config import NUM_EXITS, Modality, check
from edgepkd.logits.clip_logits import ClipLogits
from edgepkd.logits.fit_files import Fitted
from edgepkd.logits.metrics import (
    Interval,
    accuracy_interval,
    calibration_error,
    confusion_matrix,
    difference_interval,
    negative_log_likelihood,
    top_k_accuracy,
)
from edgepkd.logits.wise import in_order

Kind = Literal["exit", "modality", "prefix", "cascade"]
Weights = Literal["own", "wise", "sums"]

TOP = 5


@dataclass(frozen=True)
class Score:
    """What one way to answer is worth on a set of clips."""

    kind: Kind
    """An exit alone; all exits of one modality; all exits up to a position; with early exits."""
    name: str
    """mv_1 for an exit and for the prefix that ends there, mv for a modality."""
    weights: Weights
    """'own': one exit's logits; 'wise': fitted weights; 'sums': all weights are 1."""
    top1: Interval
    top5: float | None
    """None where there are no more than five labels."""
    ece: float
    """Expected calibration error (`metrics.calibration_error`)."""
    nll: float
    """Mean -log probability of the true label, nats."""
    temperature: float | None
    """That the probabilities were taken at; None: that of the exit taken."""
    gmac: float
    """Networks, per clip and with all views, up to and with this answer."""
    share: float | None
    """Prefixes: share of the clips that the cascade answers here, where there is a policy."""


@dataclass(frozen=True)
class Difference:
    """Accuracy of one way to answer less that of another, on the same clips."""

    name: str
    of: Interval


@dataclass(frozen=True, eq=False)
class Evaluation:
    """All ways to answer along one order."""

    order: Order
    scores: tuple[Score, ...]
    differences: tuple[Difference, ...]
    confusion: Labels
    """[classes, classes], rows are true labels."""
    confusion_of: str
    """Which answers the confusion matrix counts."""
    mean_exit: float | None
    """Mean position taken, where there is a policy."""

    def score(self, kind: Kind, name: str) -> Score:
        """The score of that kind and name.

        Raises:
            ConfigError: there is none.
        """
        names = {score.name: score for score in self.scores if score.kind == kind}
        check(name in names, f"score of kind {kind!r}", got=name,
              allowed=", ".join(names) or "none")
        return names[name]


def evaluate_logits(
    answered: ClipLogits, *, order: Order, gmac: Mapping[Modality, tuple[float, ...]],
    fitted: Fitted | None = None,
) -> Evaluation:
    """Score every exit, every modality, every prefix of `order`, and the cascade.

    `gmac` is what each segment costs for one clip with all its views. What `fitted` has no entry
    for is summed with all weights 1; without one for `order` there is no policy and no cascade.

    Raises:
        ConfigError: `order` asks for a modality without logits.
    """
    absent = [modality for modality in order if modality not in answered.logits]
    check(not absent, "order", got=order_key(order), allowed=f"orders of {list(answered.logits)}")
    scorer = _Scorer(answered, gmac)
    fitted = fitted or {}
    scores = [scorer.exit(m, k) for m in order for k in range(NUM_EXITS)]
    scores += [scorer.prefixes((m,), fitted, kind="modality")[-1] for m in order]
    scores += scorer.prefixes(order, fitted, kind="prefix")
    stacked = in_order(answered.logits, order)
    sums = prefix_logits(stacked, WiseWeights.ones(order))[:, -1].argmax(axis=1)
    if order not in fitted:
        return Evaluation(
            order, tuple(scores), (scorer.difference("plain sums - last exit alone", sums,
                                                     stacked[:, -1].argmax(axis=1)),),
            scorer.confusion(sums), "plain sums of all exits", None)
    weights, policy = fitted[order]
    full = prefix_logits(stacked, weights)[:, -1].argmax(axis=1)
    taken = replay(stacked, weights, policy)
    return Evaluation(
        order, (*scores, scorer.cascade(order, fitted)), (
            scorer.difference("WISE, all exits - last exit alone", full,
                              stacked[:, -1].argmax(axis=1)),
            scorer.difference("WISE, all exits - plain sums", full, sums),
            scorer.difference("cascade with early exits - WISE, all exits", taken.labels, full),
        ), scorer.confusion(taken.labels), "cascade with early exits", float(taken.exits.mean()))


class _Scorer:
    """Scores of answers to one set of clips."""

    def __init__(
        self, answered: ClipLogits, gmac: Mapping[Modality, tuple[float, ...]]
    ) -> None:
        self._answered = answered
        self._gmac = gmac

    def exit(self, modality: Modality, index: int) -> Score:
        logits = self._answered.logits[modality][:, index]
        return self._score("exit", f"{modality}_{index + 1}", "own", softmax(logits),
                           temperature=1.0, gmac=float(sum(self._gmac[modality][: index + 1])))

    def prefixes(self, order: Order, fitted: Fitted, *, kind: Kind) -> list[Score]:
        stacked = in_order(self._answered.logits, order)
        weights, policy = fitted.get(order, (WiseWeights.ones(order), None))
        combined = prefix_logits(stacked, weights)
        temperatures = policy.temperatures if policy else (1.0,) * stacked.shape[1]
        taken = replay(stacked, weights, policy).exits if policy and kind == "prefix" else None
        costs = self._costs(order)
        return [
            self._score(kind, order[0] if kind == "modality" else str(position),
                        "wise" if policy else "sums",
                        softmax(combined[:, k], temperature=temperatures[k]),
                        temperature=temperatures[k], gmac=float(costs[k]),
                        share=None if taken is None else float(np.mean(taken == k + 1)))
            for k, position in enumerate(positions(order))
        ]

    def cascade(self, order: Order, fitted: Fitted) -> Score:
        stacked = in_order(self._answered.logits, order)
        weights, policy = fitted[order]
        exits = replay(stacked, weights, policy).exits
        rows = np.arange(len(exits))
        logits = prefix_logits(stacked, weights)[rows, exits - 1]
        probabilities = softmax(logits / np.asarray(policy.temperatures)[exits - 1, None])
        return self._score("cascade", order_key(order), "wise", probabilities, temperature=None,
                           gmac=float(self._costs(order)[exits - 1].mean()))

    def difference(self, name: str, a: Labels, b: Labels) -> Difference:
        truth = self._answered.labels
        return Difference(name, difference_interval(a == truth, b == truth, self._answered.groups))

    def confusion(self, answers: Labels) -> Labels:
        return confusion_matrix(answers, self._answered.labels,
                                num_classes=len(self._answered.label_names))

    def _costs(self, order: Order) -> Floats:
        costs: Floats = np.cumsum([cost for modality in order for cost in self._gmac[modality]])
        return costs

    def _score(
        self, kind: Kind, name: str, weights: Weights, probabilities: Floats, *,
        temperature: float | None, gmac: float, share: float | None = None,
    ) -> Score:
        truth = self._answered.labels
        many = probabilities.shape[1] > TOP
        return Score(
            kind, name, weights,
            top1=accuracy_interval(probabilities.argmax(axis=1) == truth, self._answered.groups),
            top5=top_k_accuracy(probabilities, truth, k=TOP) if many else None,
            ece=calibration_error(probabilities, truth),
            nll=negative_log_likelihood(probabilities, truth),
            temperature=temperature, gmac=gmac, share=share,
        )
