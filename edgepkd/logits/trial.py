"""The cascade that a choice of weights gives, cross-fitted, against the best of its own exits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgepkd.cascade import ExitPolicy, Floats, Labels, Order, decide
from edgepkd.logits.choice import Bools, Choice, Evidence
from edgepkd.logits.metrics import Interval, difference_interval

CONSTANT = 0.95
"""Share of clips with one and the same answer from which a chain says nothing."""


@dataclass(frozen=True, eq=False)
class Trial:
    """The cascade of one order, cross-fitted in weights and policy, against its best exit."""

    order: Order
    policy: ExitPolicy
    """Fitted on all cross-fitted answers of the ensemble."""
    right: Bools
    """[N], of the cascade with early exits."""
    exits: Labels
    """[N], position taken, 1..K."""
    full: Labels
    """[N], answers of the full chain."""
    best: Bools
    """[N], of the best exit, chosen without the clip's part."""
    labels: Labels
    groups: tuple[str, ...]

    @cached_property
    def against_best(self) -> Interval:
        """Accuracy of the cascade less that of its best exit."""
        return difference_interval(self.right, self.best, self.groups)

    @property
    def is_constant(self) -> bool:
        """Whether the full chain answers nearly all clips alike and is no better than that."""
        count = len(self.full)
        alike, floor = int(np.bincount(self.full).max()), int(np.bincount(self.labels).max())
        right = int((self.full == self.labels).sum())
        return alike >= CONSTANT * count > floor and right <= floor + count - alike

    @property
    def is_below_best(self) -> bool:
        """Whether the best exit alone is better, by more than the paired interval."""
        return self.against_best.high < 0


def try_cascade(
    choice: Choice, evidence: Evidence, *, fit: Callable[[Floats, Labels], ExitPolicy]
) -> Trial:
    """Answer every clip by a policy that `fit` found on the other parts' answers."""
    taken, labels = choice.taken, evidence.labels
    right, exits = np.zeros(len(labels), bool), np.zeros(len(labels), np.int64)
    for part in np.unique(evidence.parts):
        mine = evidence.parts == part
        answered = decide(taken.combined[mine], fit(taken.combined[~mine], labels[~mine]))
        right[mine], exits[mine] = answered.labels == labels[mine], answered.exits
    return Trial(taken.weights.order, fit(taken.combined, labels), right, exits,
                 taken.combined[:, -1].argmax(axis=1), choice.tracks["best"].right[:, -1], labels,
                 evidence.groups)
