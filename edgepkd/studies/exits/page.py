"""docs/results/reproduce.md: the tables, and what they show by rule; no number is written by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgepkd.config import MODALITIES
from edgepkd.studies.exits.tables import WEIGHED_ARMS, WEIGHINGS, SetResult
from edgepkd.studies.markdown import holds, listed, points, share, table, times
from edgepkd.studies.study import ARMS, EQUAL, Study

TITLES = {"ce": "CE", "pkd": "PKD", "pkd_last_iframe": "PKD, last teacher I-frame",
          "anticurriculum": "anti-curriculum", "iframe": "I-frame KD", "pkd_x2": "PKD, 2x epochs",
          "wise": "WISE", "wise_paper": "WISE, paper's SGD", "plain_sum": "plain sum",
          "no_lateral": "exit alone"}
CLAIMED = {"pkd": (5.87, 11.42), "wise": (4.28, 9.30)}
"""Points, at best, on UCF-101 and HMDB-51 (the paper's abstract)."""
KEPT_S = 0.5
"""A step that takes less was done before."""


def page(
    results: Sequence[SetResult], study: Study, plots: Sequence[Path], name: str
) -> list[str]:
    """Lines of NAME.md, which shows `plots` that lie beside it."""
    lines = [
        "# CE, PKD, WISE: what holds here", "",
        f"Written by `just reproduce` ([JSON]({name}.json)). Accuracies are %, differences are "
        "points, brackets are 95 % intervals over whole groups. Every clip is answered by networks "
        "that never saw its group; all streams are normalised first. One deployable network per "
        "modality. Nothing was chosen on these answers.", "",
        f"Seeds: trunks {listed(study.trunk_seeds)}; exits {listed(study.exit_seeds)} on each. All "
        "arms share trunks, views and batches. WISE is cross-fitted: a fold is weighed by vectors "
        "fitted on the answers to the others. The losses are the paper's: the teacher alone, no "
        "labels, temperature 1.", "",
        *_set_lines(results), "", *_verdict(results), "",
    ]
    lines += ["## Internal classifiers, equal epochs", "",
              "Mean over exits 1 to 3; exit 4 is the same trunk in every arm.", "",
              *_mean_lines(results, [arm.name for arm in EQUAL]), ""]
    lines += ["## Internal classifiers, the paper's epochs", "",
              "PKD has twice the epochs of the rest, as in the reference code (300 to 150).", "",
              *_mean_lines(results, ["ce", "pkd_x2", "anticurriculum", "iframe"]), ""]
    for result in results:
        lines += [f"## {result.answered.dataset}, each exit", "", *_exit_lines(result), "",
                  f"Floor: {100 * result.plan.floor:.0f} (eight RGB frames, frozen network, "
                  "logistic regression; held-out groups).", ""]
        lines += [f"## {result.answered.dataset}, WISE", "", *_weighing_lines(result), ""]
        own = [p for p in plots if p.name.startswith(f"{result.plan.recipe.name}-")]
        lines += [f"![{p.stem}]({p.name})" for p in own] + [""]
    lines += ["## Flatness of the trunks", "", *_flatness_lines(results, study), ""]
    lines += ["## Time", "", *_time_lines(results)]
    return lines


def _set_lines(results: Sequence[SetResult]) -> list[str]:
    rows = []
    for r in results:
        groups, folds = r.answered.num_groups, r.answered.num_folds
        kind = "leave one group out" if groups == folds else f"{folds} folds of whole groups"
        base = r.weighing["pkd"][-2]["accuracy"]
        rows.append([
            r.answered.dataset, str(len(r.answered.truth)), str(len(r.answered.label_names)),
            str(groups), kind, f"{100 * r.plan.floor:.0f}", share(base["wise"]),
        ])
    return table(["set", "clips", "classes", "groups", "protocol", "floor",
                   "all 12 exits, PKD and WISE"], rows)


def _mean_lines(results: Sequence[SetResult], arms: Sequence[str]) -> list[str]:
    rows = []
    for r in results:
        for row in r.means:
            cells = [share(row["accuracy"]["ce"])]
            cells += [points(row["less_ce"][arm]) for arm in arms if arm != "ce"]
            rows.append([r.answered.dataset, str(row["network"]), *cells])
    head = ["set", "network", "CE", *(f"{TITLES[a]} less CE" for a in arms if a != "ce")]
    return table(head, rows)


def _exit_lines(result: SetResult) -> list[str]:
    arms = [arm.name for arm in ARMS]
    rows = [[str(row["exit"]), *(share(row["accuracy"][arm]) for arm in arms),
             points(row["less_ce"]["pkd"])] for row in result.exits]
    return table(["exit", *(TITLES[arm] for arm in arms), "PKD less CE"], rows)


def _weighing_lines(result: SetResult) -> list[str]:
    lines = []
    for arm in WEIGHED_ARMS:
        rows = [[str(row["position"]), *(share(row["accuracy"][k]) for k in WEIGHINGS),
                 points(row["wise_less"]["no_lateral"]), points(row["wise_less"]["plain_sum"])]
                for row in result.weighing[arm]]
        lines += [f"Exits by {TITLES[arm]}:", "",
                  *table(["up to", *(TITLES[k] for k in WEIGHINGS), "WISE less exit alone",
                           "WISE less plain sum"], rows), ""]
    return lines[:-1]


def _flatness_lines(results: Sequence[SetResult], study: Study) -> list[str]:
    rows = []
    for r in results:
        for found in r.flatness:
            for m in MODALITIES:
                trace, sharp = found[m]["trace"], found[m]["sharpness"]
                rows.append([
                    r.answered.dataset, m, found[m]["backbone"],
                    f"{trace['mean']:.3g} ± {trace['standard_error']:.2g}",
                    f"{found[m]['trace_per_parameter']:.2e}",
                    f"{trace['relative_mean']:.3g} ± {trace['relative_standard_error']:.2g}",
                    f"{sharp['value']:.3g}", f"{trace['loss']:.3f}",
                ])
    return [
        "Smaller is flatter. Trace of the Hessian of exit 4's loss on "
        f"{study.flatness_clips} clips of the training side (Hutchinson, ± its standard error); "
        "the relative trace counts each weight tensor in units of its own size; sharpness is the "
        "rise of the loss, in %, in a box of 1e-4 (`edgepkd.training.flatness` has the "
        "definitions). The motion network is of another architecture: only residual against iframe "
        "is a fair comparison.", "",
        *table(["set", "network", "backbone", "tr H", "per weight", "relative trace", "sharpness",
                 "loss"], rows), "",
        *(_flatness_order(r) for r in results),
    ]


def _flatness_order(result: SetResult) -> str:
    measures: dict[str, Callable[[Mapping[str, Any]], float]] = {
        "relative trace": lambda f: float(f["trace"]["relative_mean"]),
        "sharpness": lambda f: float(f["sharpness"]["value"]),
    }
    parts = []
    for name, measure in measures.items():
        mean = {str(m): float(np.mean([measure(found[m]) for found in result.flatness]))
                for m in MODALITIES}
        parts.append(f"{name}: {' < '.join(sorted(mean, key=mean.__getitem__))}")
    return (f"- {result.answered.dataset}, flattest first: {'; '.join(parts)}. "
            "The paper: iframe < residual < mv.")


def _time_lines(results: Sequence[SetResult]) -> list[str]:
    rows = [[r.answered.dataset, *row] for r in results
            for row in times(r.answered.seconds, {}, least_s=KEPT_S)]
    return ["Seconds a fold, one thread, two folds side by side on a busy machine; exits: all six "
            "arms, one seed. Steps that an earlier run had done are left out.", "",
            *table(["set", "step", "median", "most"], rows)]


# ---- what holds


def _verdict(results: Sequence[SetResult]) -> list[str]:
    """Sentences that follow from the intervals by rule."""
    lines = ["## In short", ""]
    for r in results:
        pkd = next(row for row in r.means if row["network"] == "all")["less_ce"]["pkd"]
        ics = [row for row in r.exits if not str(row["exit"]).endswith("_4")]
        best = max(ics, key=lambda row: row["less_ce"]["pkd"].value)
        lines.append(
            f"- **{r.answered.dataset}, PKD against CE** at equal epochs: {points(pkd)} points "
            f"over the nine internal classifiers, {holds(pkd, 'PKD is better', 'CE is better')}. "
            f"Best exit: {best['exit']}, {points(best['less_ce']['pkd'])} (the abstract's best: "
            f"+{CLAIMED['pkd'][0]} and +{CLAIMED['pkd'][1]}).")
        rows = r.weighing["pkd"]
        mean, last = rows[-1]["wise_less"], rows[-2]["wise_less"]
        top = max(rows[:-1], key=lambda row: row["wise_less"]["no_lateral"].value)
        lines.append(
            f"- **{r.answered.dataset}, WISE** (PKD exits): {points(mean['no_lateral'])} "
            f"against each exit alone, mean of 12 positions, "
            f"{holds(mean['no_lateral'], 'WISE is better', 'WISE is worse')}; "
            f"{points(mean['plain_sum'])} against plain sums, "
            f"{holds(mean['plain_sum'], 'WISE is better', 'WISE is worse')}; at the full chain "
            f"{points(last['no_lateral'])} against the last exit. Best position: "
            f"{top['position']}, {points(top['wise_less']['no_lateral'])} (the abstract's best: "
            f"+{CLAIMED['wise'][0]} and +{CLAIMED['wise'][1]}).")
    lines.append("- A best exit of nine, or position of twelve, is picked after the fact: its "
                 "interval does not allow for that.")
    return lines
