"""Numbers of the study, from the kept answers. All intervals are 95 % over whole groups.

An accuracy is the mean over clips and over all seeds; its interval draws groups. A difference is
paired: the same clips, trunks, seeds and batches, another way to train or to weigh.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from edgepkd.cascade import Floats, WiseWeights, positions, prefix_logits
from edgepkd.config import MODALITIES, NUM_EXITS, Modality
from edgepkd.logits.wise import ensembles, in_order
from edgepkd.studies.answered import Answered
from edgepkd.studies.study import ARMS, SetPlan

WEIGHINGS = ("wise", "wise_paper", "plain_sum", "no_lateral")
"""See logits.wise.ENSEMBLES."""
WEIGHED_ARMS = ("ce", "pkd")
NUM_ICS = NUM_EXITS - 1

Row = Mapping[str, Any]


def exit_table(answered: Answered) -> list[dict[str, Any]]:
    """Each exit of each network: accuracy of every arm, and its difference to CE."""
    rows = []
    for modality, index in product(MODALITIES, range(NUM_EXITS)):
        base = answered.right("ce", modality)[:, index]
        row: dict[str, Any] = {"exit": f"{modality}_{index + 1}", "accuracy": {}, "less_ce": {}}
        for arm in ARMS:
            own = answered.right(arm.name, modality)[:, index]
            row["accuracy"][arm.name] = answered.interval(own)
            row["less_ce"][arm.name] = answered.interval(own - base)
        rows.append(row)
    return rows


def mean_table(answered: Answered) -> list[dict[str, Any]]:
    """The internal classifiers of each network, and of all three, as one mean."""
    parts: dict[str, tuple[Modality, ...]] = {**{m: (m,) for m in MODALITIES}, "all": MODALITIES}
    rows = []
    for name, modalities in parts.items():
        own = {arm.name: np.mean([answered.right(arm.name, m)[:, :NUM_ICS].mean(axis=1)
                                  for m in modalities], axis=0) for arm in ARMS}
        rows.append({
            "network": name,
            "accuracy": {arm: answered.interval(values) for arm, values in own.items()},
            "less_ce": {arm: answered.interval(values - own["ce"])
                        for arm, values in own.items()},
        })
    return rows


def weigh(answered: Answered, arm: str) -> dict[str, Floats]:
    """Share of seeds that answer rightly under each weighing, at each position: [N, 12].

    Cross-fitted: a fold is weighed by vectors fitted on the answers to all other folds.
    """
    order = answered.plan.recipe.default_order
    count = len(positions(order))
    right = {name: np.zeros((len(answered.truth), count)) for name in WEIGHINGS}
    for seed, mine in answered.held_out():
        stacked = in_order({m: answered.logits[arm, m][seed] for m in MODALITIES}, order)
        fitted: Mapping[str, WiseWeights] = ensembles(
            stacked[~mine], answered.truth[~mine], order=order, names=WEIGHINGS)
        for name, weights in fitted.items():
            answers = prefix_logits(stacked[mine], weights).argmax(axis=-1)
            right[name][mine] += (answers == answered.truth[mine, None]) / len(answered.seeds)
    return right


def weighing_table(answered: Answered, arm: str) -> list[dict[str, Any]]:
    """Each position of the cascade: the exit alone, WISE, and what WISE is held against.

    `no_lateral` is the exit's own logits, scaled: its answers are the exit's.
    """
    weighed = weigh(answered, arm)
    rows = []
    for k, position in enumerate(positions(answered.plan.recipe.default_order)):
        wise = weighed["wise"][:, k]
        rows.append({
            "position": str(position),
            "accuracy": {name: answered.interval(values[:, k])
                         for name, values in weighed.items()},
            "wise_less": {name: answered.interval(wise - values[:, k])
                          for name, values in weighed.items() if name != "wise"},
        })
    means = {name: values.mean(axis=1) for name, values in weighed.items()}
    rows.append({
        "position": "mean of all", "accuracy": {n: answered.interval(v) for n, v in means.items()},
        "wise_less": {n: answered.interval(means["wise"] - v)
                      for n, v in means.items() if n != "wise"},
    })
    return rows


# ---- all of it


@dataclass(frozen=True, eq=False)
class SetResult:
    """All tables of one set."""

    answered: Answered
    exits: Sequence[Row]
    means: Sequence[Row]
    weighing: Mapping[str, Sequence[Row]]
    """Arm -> rows."""
    flatness: Sequence[Mapping[str, Any]]
    """One for each trunk seed."""

    @property
    def plan(self) -> SetPlan:
        """The set."""
        return self.answered.plan


def compute(answered: Answered, flatness: Sequence[Mapping[str, Any]]) -> SetResult:
    """All tables of one set."""
    return SetResult(answered, exit_table(answered), mean_table(answered),
                     {arm: weighing_table(answered, arm) for arm in WEIGHED_ARMS}, flatness)
