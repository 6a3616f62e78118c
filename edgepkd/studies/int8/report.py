"""docs/results/int8.{json,md}, from the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgepkd.int8 import Int8Recipe
from edgepkd.machine.conditions import machine_conditions
from edgepkd.studies.int8.page import page
from edgepkd.studies.int8.tables import SetResult
from edgepkd.studies.markdown import write_report
from edgepkd.studies.study import Study

PACKAGES = ("torch", "nvidia-modelopt", "numpy", "scipy", "av", "numba")


def write(
    results: Sequence[SetResult], study: Study, recipe: Int8Recipe, folder: Path, *, name: str
) -> None:
    """Write NAME.json and NAME.md into `folder`.

    Raises:
        StorageError: a file cannot be written.
    """
    document = {
        "schema_version": 1, "conditions": _conditions(study, recipe),
        "sets": {r.answered.plan.recipe.name: _as_json(r) for r in results},
    }
    write_report(folder, name, document=document, lines=page(results, study, recipe, name))


def _conditions(study: Study, recipe: Int8Recipe) -> dict[str, Any]:
    return {
        **machine_conditions(PACKAGES),
        "trunk_seeds": study.trunk_seeds, "exit_seeds": study.exit_seeds, "recipe": asdict(recipe),
    }


def _as_json(result: SetResult) -> dict[str, Any]:
    answered = result.answered
    return {
        "dataset": answered.dataset, "clips": len(answered.truth), "labels": answered.label_names,
        "groups": answered.num_groups, "folds": answered.num_folds,
        "seeds_trunk_exits": answered.seeds, "recipe": asdict(answered.plan.recipe),
        "seconds": answered.seconds, "exits": result.exits, "networks": result.networks,
        "cascade": result.cascade, "verdict": result.verdict,
    }
