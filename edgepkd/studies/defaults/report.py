"""docs/results/defaults.{json,md}, from the tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from edgepkd.config import MODALITIES, NUM_EXITS
from edgepkd.machine.conditions import machine_conditions
from edgepkd.studies.defaults.page import page
from edgepkd.studies.defaults.tables import SeedResult, SetResult
from edgepkd.studies.markdown import write_report
from edgepkd.studies.study import Study

PACKAGES = ("torch", "numpy", "scipy", "scikit-learn", "av", "numba")


def write(results: Sequence[SetResult], study: Study, folder: Path, *, name: str) -> None:
    """Write NAME.json and NAME.md into `folder`.

    Raises:
        StorageError: a file cannot be written.
    """
    document = {
        "schema_version": 1,
        "conditions": {**machine_conditions(PACKAGES), "trunk_seeds": study.trunk_seeds,
                       "exit_seeds": study.exit_seeds},
        "sets": {r.plan.recipe.name: _as_json(r) for r in results},
    }
    write_report(folder, name, document=document, lines=page(results, study, name))


def _as_json(result: SetResult) -> dict[str, Any]:
    answered = result.answered
    return {
        "dataset": answered.dataset, "clips": len(answered.truth), "labels": answered.label_names,
        "groups": answered.num_groups, "folds": answered.num_folds,
        "recipe": asdict(result.plan.recipe), "tuned": result.plan.tuned,
        "chance": result.chance, "rgb_floor": answered.interval(result.floor.astype(float)),
        "no_look": asdict(result.no_look) if result.no_look else None,
        "full": result.interval(result.full), "cascade": result.interval(result.early),
        "within_3_points": result.is_near,
        "exits": {f"{m}_{i + 1}": result.interval(result.exit(m, i))
                  for m in MODALITIES for i in range(NUM_EXITS)},
        "seconds": answered.seconds, "seeds": [_seed_as_json(seed) for seed in result.seeds],
    }


def _seed_as_json(seed: SeedResult) -> dict[str, Any]:
    trial = seed.trial
    return {
        "motion": asdict(seed.form), "taken": seed.taken, "why": seed.why,
        "full": float((trial.full == trial.labels).mean()), "cascade": float(trial.right.mean()),
        "mean_exit": float(trial.exits.mean()), "macs_saved": float(seed.saved.mean()),
        "less_best_exit": trial.shortfall.difference,
    }
