"""What one fitted cascade answers to a set of clips: exits taken, accuracy, cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np

from edgepkd.cascade import (
    ExitPolicy,
    Labels,
    Order,
    WiseWeights,
    order_key,
    positions,
    prefix_logits,
    replay,
)
from edgepkd.config import Modality
from edgepkd.logits.clip_logits import ModalityLogits
from edgepkd.logits.metrics import Accuracy
from edgepkd.logits.wise import in_order


@dataclass(frozen=True, eq=False)
class CascadeAnswers:
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
    logits: ModalityLogits, labels: Labels, *, weights: WiseWeights, policy: ExitPolicy
) -> CascadeAnswers:
    """Replay the cascade over stored logits [N, 4, classes] of each modality.

    The code is that of the device.
    """
    stacked = in_order(logits, weights.order)
    result = replay(stacked, weights, policy)
    return CascadeAnswers(
        own=stacked.argmax(axis=2), cascade=result.labels, exits=result.exits,
        ensemble=prefix_logits(stacked, weights).argmax(axis=2), truth=labels)


def pool(parts: Sequence[CascadeAnswers]) -> CascadeAnswers:
    """Answers to different clips, as one."""
    return CascadeAnswers(**{
        field.name: np.concatenate([getattr(part, field.name) for part in parts])
        for field in fields(CascadeAnswers)
    })


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


def report_of(
    answers: CascadeAnswers, *, order: Order, gmac: Mapping[Modality, tuple[float, ...]],
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
