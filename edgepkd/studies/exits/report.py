"""docs/results/reproduce.{json,md} and plots, from the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgepkd.logits.metrics import Interval
from edgepkd.machine.conditions import machine_conditions
from edgepkd.plots import BarRow, Points, bars_with_intervals, curves
from edgepkd.studies.exits.page import CLAIMED, TITLES, page
from edgepkd.studies.exits.tables import WEIGHINGS, SetResult
from edgepkd.studies.markdown import write_report
from edgepkd.studies.study import ARMS, EQUAL, Study


def write(results: Sequence[SetResult], study: Study, folder: Path, *, name: str) -> None:
    """Write NAME.json, NAME.md and plots into `folder`.

    Raises:
        StorageError: a file cannot be written. MissingExtraError: matplotlib is not installed.
    """
    document = {
        "schema_version": 1, "conditions": _conditions(study), "claimed_at_best": CLAIMED,
        "sets": {r.plan.recipe.name: _as_json(r) for r in results},
    }
    plots = [plot for result in results for plot in _plots(result, folder)]
    write_report(folder, name, document=document, lines=page(results, study, plots, name))


def _conditions(study: Study) -> dict[str, Any]:
    return {
        **machine_conditions(("numpy", "numba", "av", "torch", "scipy")),
        "trunk_seeds": study.trunk_seeds, "exit_seeds": study.exit_seeds,
        "arms": {arm.name: asdict(arm) for arm in ARMS},
    }


def _as_json(result: SetResult) -> dict[str, Any]:
    answered = result.answered
    return {
        "dataset": answered.dataset, "clips": len(answered.truth),
        "labels": answered.label_names, "groups": answered.num_groups,
        "folds": answered.num_folds, "seeds_trunk_exits": answered.seeds,
        "floor": result.plan.floor, "recipe": asdict(result.plan.recipe),
        "seconds": answered.seconds, "exits": result.exits, "means": result.means,
        "weighing": result.weighing, "flatness": result.flatness,
    }


# ---- plots


def _plots(result: SetResult, folder: Path) -> list[Path]:
    name, dataset = result.plan.recipe.name, result.answered.dataset
    bars = [
        BarRow(str(row["exit"]), TITLES[arm.name], *_percents(row["accuracy"][arm.name]))
        for row in result.exits for arm in EQUAL if not str(row["exit"]).endswith("_4")
    ]
    series: dict[str, Points] = {
        TITLES[kind]: [(k + 1.0, 100 * row["accuracy"][kind].value)
                       for k, row in enumerate(result.weighing["pkd"][:-1])]
        for kind in WEIGHINGS
    }
    return [
        bars_with_intervals(folder / f"{name}-exits.png", bars, y_label="accuracy, %",
                            floor=100 * result.plan.floor,
                            title=f"{dataset}: internal classifiers, equal epochs"),
        curves(folder / f"{name}-wise.png", series, x_label="position in the cascade",
               y_label="accuracy, %", title=f"{dataset}: PKD, prefixes of the cascade"),
    ]


def _percents(found: Interval) -> tuple[float, float, float]:
    return 100 * found.value, 100 * found.low, 100 * found.high
