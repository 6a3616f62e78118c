"""Numbers of the INT8 study, from the kept answers. All intervals are 95 % over whole groups.

A difference is paired: the same clips, the same trunks and exits, in another form. WISE and policy
are fitted anew for each form, as in a bundle of it, and cross-fitted: a fold is answered by what
was fitted on the answers of the same form to all other folds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np

from edgepkd.cascade import Floats, Order, positions
from edgepkd.config import MODALITIES, NUM_EXITS, Modality
from edgepkd.logits.fit import fit_deployed
from edgepkd.logits.metrics import Interval
from edgepkd.logits.report import answer
from edgepkd.studies.answered import Answered
from edgepkd.studies.int8.jobs import FORMS, FP32

Row = Mapping[str, Any]

TOLERANCE = 0.01
"""What INT8 may lose against FP32: 1.0 point."""
_ROUNDING = 1e-9


# ---- each exit, each network, the cascade


def exit_table(answered: Answered) -> list[dict[str, Any]]:
    """Each exit alone: accuracy of every form, difference to FP32, agreement with FP32."""
    agreed = {(form, m): _agreement(answered, form, m) for form, m in product(FORMS, MODALITIES)}
    return [{
        "exit": f"{modality}_{index + 1}",
        **_compared(answered, {f: answered.right(f, modality)[:, index] for f in FORMS}),
        "agreement": {form: answered.interval(agreed[form, modality][:, index])
                      for form in FORMS if form != FP32},
    } for modality, index in product(MODALITIES, range(NUM_EXITS))]


def _agreement(answered: Answered, form: str, modality: Modality) -> Floats:
    """Share of seeds under which `form` gives the top label of FP32: [N, 4]."""
    own, base = answered.logits[form, modality], answered.logits[FP32, modality]
    same: Floats = (own.argmax(axis=-1) == base.argmax(axis=-1)).mean(axis=0)
    return same


def _compared(answered: Answered, right: Mapping[str, Floats]) -> dict[str, dict[str, Interval]]:
    """Accuracy of every form, and its difference to FP32, from `right` [N] of each."""
    return {
        "accuracy": {form: answered.interval(values) for form, values in right.items()},
        "less_fp32": {form: answered.interval(values - right[FP32])
                      for form, values in right.items() if form != FP32},
    }


@dataclass(frozen=True, eq=False)
class Deployed:
    """One form with WISE and policy of its own; shares and means over seeds, clip by clip."""

    networks: Mapping[Modality, Floats]
    """Whether the WISE ensemble of the four exits of one network is right: [N]."""
    full: Floats
    """The same of all exits along the set's order: [N]."""
    early: Floats
    """The same with early exits, the operating point: [N]."""
    exit_number: Floats
    """Position taken, 1..12: [N]."""
    saved: Floats
    """Share of the networks' MACs that the early exit saves: [N]."""


def deploy_form(
    answered: Answered, form: str, *, gmac: Mapping[Modality, tuple[float, ...]]
) -> Deployed:
    """Answers of `form`, cross-fitted; `gmac` is what each segment costs for one clip."""
    order = answered.plan.recipe.default_order
    settings = replace(answered.plan.recipe.wise, take="wise")  # the same for every form
    single: dict[Modality, Order] = {m: (m,) for m in MODALITIES}
    costs = np.cumsum([cost for modality in order for cost in gmac[modality]])
    names = (*MODALITIES, "full", "early", "exit", "saved")
    found = {name: np.zeros(len(answered.truth)) for name in names}
    for seed, mine in answered.held_out():
        logits = {m: answered.logits[form, m][seed] for m in MODALITIES}
        fitted = fit_deployed(
            {m: values[~mine] for m, values in logits.items()}, answered.truth[~mine],
            groups=[group for group, out in zip(answered.groups, mine, strict=True) if not out],
            orders=tuple(dict.fromkeys((*single.values(), order))), settings=settings)
        asked: dict[str, Order] = {**dict(single.items()), "full": order}
        for name, used in asked.items():
            weights, policy = fitted[used]
            said = answer({m: values[mine] for m, values in logits.items()}, answered.truth[mine],
                          weights=weights, policy=policy)
            found[name][mine] += said.ensemble[:, -1] == said.truth
        found["early"][mine] += said.cascade == said.truth  # of the set's order, the last above
        found["exit"][mine] += said.exits
        found["saved"][mine] += 1 - costs[said.exits - 1] / costs[-1]
    mean = {name: values / len(answered.seeds) for name, values in found.items()}
    return Deployed({m: mean[m] for m in MODALITIES}, mean["full"], mean["early"], mean["exit"],
                    mean["saved"])


def network_table(answered: Answered, deployed: Mapping[str, Deployed]) -> list[dict[str, Any]]:
    """Each network: the WISE ensemble of its four exits."""
    return [{"network": modality,
             **_compared(answered, {form: d.networks[modality] for form, d in deployed.items()})}
            for modality in MODALITIES]


def cascade_table(answered: Answered, deployed: Mapping[str, Deployed]) -> dict[str, Any]:
    """All exits, and the operating point with its mean exit and share of MACs saved."""
    def each(value: Callable[[Deployed], Floats]) -> dict[str, Interval]:
        return {form: answered.interval(value(d)) for form, d in deployed.items()}

    return {
        "full": _compared(answered, {form: d.full for form, d in deployed.items()}),
        "operating_point": {
            **_compared(answered, {form: d.early for form, d in deployed.items()}),
            "mean_exit": each(lambda d: d.exit_number), "macs_saved": each(lambda d: d.saved),
        },
        "num_exits": len(positions(answered.plan.recipe.default_order)),
    }


# ---- by rule


def verdict(
    answered: Answered, exits: Sequence[Row], cascade: Mapping[str, Any]
) -> dict[str, Any]:
    """What holds, by rule: within means a loss of TOLERANCE or less, a gain included.

    A form is `within` by its value alone; it is `shown` within where the interval is too.
    """
    quantized = [form for form in FORMS if form != FP32]
    right = {form: np.mean([answered.right(form, m).mean(axis=1) for m in MODALITIES], axis=0)
             for form in FORMS}  # [N], mean over the 12 exits
    losses = {form: [row["less_fp32"][form] for row in exits] for form in quantized}
    places = {name: cascade[name]["less_fp32"] for name in ("full", "operating_point")}
    return {
        "tolerance": TOLERANCE, "one_clip": 1 / len(answered.truth), "num_exits": len(exits),
        "exits_within": {f: sum(is_within(x.value) for x in losses[f]) for f in quantized},
        "exits_shown": {f: sum(is_within(x.low) for x in losses[f]) for f in quantized},
        **{f"{name}_{word}": {f: is_within(bound(less[f])) for f in quantized}
           for name, less in places.items() for word, bound in _BOUNDS.items()},
        "mean_less_fp32": {f: answered.interval(right[f] - right[FP32]) for f in quantized},
        "qad_less_ptq": answered.interval(right["qad"] - right["ptq"]),
        "qat_less_qad": answered.interval(right["qat"] - right["qad"]),
        "worst": {form: _worst(exits, form) for form in quantized},
    }


_BOUNDS: Mapping[str, Callable[[Interval], float]] = {
    "within": lambda found: found.value, "shown": lambda found: found.low}


def is_within(difference: float) -> bool:
    """Whether a difference to FP32 is a loss of TOLERANCE or less."""
    return difference >= -TOLERANCE - _ROUNDING


def _worst(exits: Sequence[Row], form: str) -> dict[str, Any]:
    """The exits that lose most against FP32, and how much."""
    least = min(row["less_fp32"][form].value for row in exits)
    return {"less_fp32": least, "exits": [
        row["exit"] for row in exits if row["less_fp32"][form].value <= least + _ROUNDING]}


# ---- all of it


@dataclass(frozen=True, eq=False)
class SetResult:
    """All tables of one set."""

    answered: Answered
    exits: Sequence[Row]
    networks: Sequence[Row]
    cascade: Mapping[str, Any]
    verdict: Mapping[str, Any]


def compute(
    answered: Answered, *, gmac: Mapping[Modality, tuple[float, ...]]
) -> SetResult:
    """All tables of one set; `gmac` is what each segment costs for one clip."""
    deployed = {form: deploy_form(answered, form, gmac=gmac) for form in FORMS}
    exits, cascade = exit_table(answered), cascade_table(answered, deployed)
    return SetResult(answered, exits, network_table(answered, deployed), cascade,
                     verdict(answered, exits, cascade))
