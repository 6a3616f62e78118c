"""Numbers of the study of the defaults, from the kept answers. Intervals are 95 % over groups.

Weights and policy of each seed are found as `edgepkd wise fit` finds them, and cross-fitted: a fold
is answered by what was fitted on the answers to the other folds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepkd.cascade import ExitPolicy, Floats, Labels
from edgepkd.config import MODALITIES, NUM_EXITS, Modality
from edgepkd.datasets.no_look import NoLook
from edgepkd.logits.choice import CrossFit, Evidence, choose, parts_of
from edgepkd.logits.fit import policy_on
from edgepkd.logits.metrics import Interval
from edgepkd.logits.trial import Trial, try_cascade
from edgepkd.logits.verdicts import chance
from edgepkd.pipeline.motion_form import FormChoice
from edgepkd.studies.answered import Answered
from edgepkd.studies.defaults.jobs import FP32
from edgepkd.studies.study import SetPlan

Gmac = Mapping[Modality, tuple[float, ...]]
NEAR = 0.03
"""What the default recipe may lose against one that was tuned on the set: 3 points."""
_ROUNDING = 1e-9


@dataclass(frozen=True, eq=False)
class SeedResult:
    """The cascade of one seed."""

    form: FormChoice
    taken: str
    """wise, sums or best."""
    why: str
    trial: Trial
    saved: Floats
    """Share of the networks' MACs that leaving early saves: [N]."""


@dataclass(frozen=True, eq=False)
class SetResult:
    """All numbers of one set."""

    plan: SetPlan
    answered: Answered
    seeds: Sequence[SeedResult]
    chance: float
    no_look: NoLook | None
    floor: NDArray[np.bool_]
    """[N], whether the RGB floor is right."""

    def interval(self, values: Sequence[NDArray[Any]]) -> Interval:
        """Of the mean over seeds of `values`, each [N]."""
        return self.answered.interval(np.mean(values, axis=0))

    @property
    def full(self) -> list[NDArray[np.bool_]]:
        """Whether the full chain is right, seed by seed."""
        return [seed.trial.full == self.answered.truth for seed in self.seeds]

    @property
    def early(self) -> list[NDArray[np.bool_]]:
        """Whether the cascade with early exits is right."""
        return [seed.trial.right for seed in self.seeds]

    def exit(self, modality: Modality, index: int) -> list[NDArray[np.bool_]]:
        """Whether one exit alone is right."""
        answers = self.answered.logits[FP32, modality][:, :, index].argmax(axis=-1)
        return list(answers == self.answered.truth)

    @property
    def is_near(self) -> bool | None:
        """Whether full chain and cascade are within NEAR of the tuned recipe; None: there is none.
        """
        if self.plan.tuned is None:
            return None
        return all(np.mean(right) >= tuned - NEAR - _ROUNDING for right, tuned in zip(
            (self.full, self.early), self.plan.tuned, strict=True))

    def beats_chance(self, modality: Modality) -> bool:
        """Whether the whole interval of the last exit lies above chance."""
        return self.interval(self.exit(modality, NUM_EXITS - 1)).low > self.chance


def compute(
    plan: SetPlan, answered: Answered, *, forms: Sequence[FormChoice], gmac: Sequence[Gmac],
    floor: NDArray[np.bool_], no_look: NoLook | None,
) -> SetResult:
    """All numbers of one set; `forms` and `gmac` (what each segment costs for one clip) by seed."""
    seeds = [_seed_result(plan, answered, seed, form, costs)
             for seed, (form, costs) in enumerate(zip(forms, gmac, strict=True))]
    return SetResult(plan, answered, seeds, chance(answered.truth), no_look, floor)


def _seed_result(
    plan: SetPlan, answered: Answered, seed: int, form: FormChoice, gmac: Gmac
) -> SeedResult:
    order, settings = plan.recipe.default_order, plan.recipe.wise
    evidence = Evidence(
        {m: answered.logits[FP32, m][seed] for m in MODALITIES}, answered.truth, answered.groups,
        parts_of(answered.truth, answered.groups, answered.folds.tolist()),
        len(answered.label_names))
    choice = choose(CrossFit(evidence).tracks(order), evidence)

    def policy(combined: Floats, labels: Labels) -> ExitPolicy:
        return policy_on(combined, labels, order=order, settings=settings)

    trial = try_cascade(choice, evidence, fit=policy)
    costs = np.cumsum([cost for modality in order for cost in gmac[modality]])
    return SeedResult(form, choice.taken.kind, choice.why, trial,
                      1 - costs[trial.exits - 1] / costs[-1])
