"""The cascade that a choice of weights gives, cross-fitted, against the best of its own exits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from edgepkd.cascade import ExitPolicy, Floats, Labels, Order, decide, order_key
from edgepkd.logits.choice import Bools, Choice, Evidence
from edgepkd.logits.verdicts import Shortfall, cautious_interval, constant_answer


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
    def shortfall(self) -> Shortfall:
        """How the cascade compares with its best exit."""
        paired = self.right.astype(np.float64) - self.best
        return Shortfall(f"the cascade {order_key(self.order)}", "its best exit",
                         cautious_interval(paired, self.groups), float(self.best.mean()))

    def fault(self, label_names: Sequence[str]) -> str | None:
        """What speaks against the cascade, in words: a constant answer, or a better exit."""
        constant = constant_answer(self.full, self.labels, label_names=label_names,
                                   of=f"the full chain {order_key(self.order)}")
        return constant or (str(self.shortfall) if self.shortfall.is_shown else None)


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
