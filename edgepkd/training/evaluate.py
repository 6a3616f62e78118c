"""What a trained cascade is worth on labelled clips: accuracy with intervals, exits, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

import numpy as np

from edgepkd.cascade import (
    ExitPolicy,
    Order,
    WiseWeights,
    order_key,
    positions,
    prefix_logits,
    replay,
    softmax,
)
from edgepkd.config import NUM_EXITS, Modality, check
from edgepkd.training.fitted import Fitted
from edgepkd.training.logits import ClipLogits
from edgepkd.training.metrics import (
    Accuracy,
    Interval,
    accuracy_interval,
    calibration_error,
    confusion_matrix,
    difference_interval,
    negative_log_likelihood,
    top_k_accuracy,
)
from edgepkd.training.wise import Floats, Labels, in_order

__all__ = [
    "Accuracy", "Answers", "Difference", "Evaluation", "ExitRow", "Report", "Score", "accuracy_of",
    "answer", "evaluate_logits", "format_report", "pool", "report_of",
]

Kind = Literal["exit", "modality", "prefix", "cascade"]
Weights = Literal["own", "wise", "sums"]

TOP = 5


@dataclass(frozen=True)
class ExitRow:
    """One position of a cascade."""

    name: str
    own: Accuracy
    """Of this exit's logits alone."""
    ensemble: Accuracy
    """Of the WISE ensemble up to here, if every clip were answered here."""
    share: float
    """Share of the clips that the cascade answers here."""


@dataclass(frozen=True)
class Report:
    """A cascade on one set of clips."""

    order: Order
    rows: tuple[ExitRow, ...]
    cascade: Accuracy
    """With early exits."""
    full_chain: Accuracy
    """All exits of all networks."""
    mean_exit: float
    """Mean position taken, 1..len(rows)."""
    gmac: float
    """Networks, per clip, with early exits."""
    gmac_full: float
    """The same when every segment runs."""
    per_label: Mapping[str, Accuracy]
    """Of the cascade."""

    @property
    def saved(self) -> float:
        """Share of the networks' MACs that early exits save."""
        return 1 - self.gmac / self.gmac_full


def accuracy_of(answers: Labels, labels: Labels) -> Accuracy:
    """Right answers [N] against `labels` [N]."""
    return Accuracy(int((answers == labels).sum()), len(labels))


@dataclass(frozen=True, eq=False)
class Answers:
    """What every exit, every ensemble and the cascade answer to N clips."""

    own: Labels
    """[N, K], each exit alone."""
    ensemble: Labels
    """[N, K], each prefix."""
    cascade: Labels
    """[N], with early exits."""
    exits: Labels
    """[N], position taken, 1..K."""
    truth: Labels
    """[N]"""


def answer(
    logits: Mapping[Modality, Floats], labels: Labels, *, weights: WiseWeights, policy: ExitPolicy
) -> Answers:
    """Replay the cascade over stored logits [N, 4, classes] of each modality.

    The code is that of the device.
    """
    stacked = in_order(logits, weights.order)
    result = replay(stacked, weights, policy)
    return Answers(own=stacked.argmax(axis=2), cascade=result.labels, exits=result.exits,
                   ensemble=prefix_logits(stacked, weights).argmax(axis=2), truth=labels)


def pool(parts: Sequence[Answers]) -> Answers:
    """Answers to different clips, as one."""
    return Answers(**{
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(Answers)
    })


def report_of(
    answers: Answers, *, order: Order, gmac: Mapping[Modality, tuple[float, ...]],
    label_names: tuple[str, ...],
) -> Report:
    """Accuracies and cost of `answers`; `gmac` is what each segment costs for one clip."""
    costs = np.cumsum([cost for modality in order for cost in gmac[modality]])
    truth = answers.truth
    rows = tuple(
        ExitRow(str(position), accuracy_of(answers.own[:, k], truth),
                accuracy_of(answers.ensemble[:, k], truth),
                float(np.mean(answers.exits == k + 1)))
        for k, position in enumerate(positions(order))
    )
    return Report(
        order=order, rows=rows, cascade=accuracy_of(answers.cascade, truth),
        full_chain=rows[-1].ensemble, mean_exit=float(answers.exits.mean()),
        gmac=float(costs[answers.exits - 1].mean()), gmac_full=float(costs[-1]),
        per_label={name: accuracy_of(answers.cascade[truth == i], truth[truth == i])
                   for i, name in enumerate(label_names) if (truth == i).any()},
    )


def format_report(report: Report) -> str:
    """Two Markdown tables: exits, and the cascade as a whole."""
    lines = [
        f"Order {order_key(report.order)}, {report.cascade.num_clips} clips.",
        "",
        "| exit | this exit alone | WISE ensemble up to it | answered here |",
        "|---|---|---|---:|",
        *(f"| {row.name} | {row.own} | {row.ensemble} | {100 * row.share:.0f} % |"
          for row in report.rows),
        "",
        "| | |",
        "|---|---|",
        f"| cascade with early exits | {report.cascade} |",
        f"| full chain, no early exit | {report.full_chain} |",
        f"| mean exit | {report.mean_exit:.2f} of {len(report.rows)} |",
        f"| networks, GMAC per clip | {report.gmac:.3f} of {report.gmac_full:.3f} "
        f"({100 * report.saved:.0f} % saved) |",
    ]
    return "\n".join(lines)


# ---- every answer, one by one


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
        """The score of that kind and name."""
        return next(s for s in self.scores if (s.kind, s.name) == (kind, name))


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
