"""What is compared with what: the settings of the study, as read from a recipe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from edgepkd.config import Modality, check, from_mapping
from edgepkd.recipes import load_recipe
from edgepkd.training.recipe import (
    ExitRecipe,
    LastTeacher,
    Scheme,
    TrainRecipe,
    load_train_recipe,
)


@dataclass(frozen=True)
class Arm:
    """One way to train the exits."""

    name: str
    scheme: Scheme
    last_teacher: LastTeacher = "own"
    epochs_factor: int = 1
    """Epochs, in units of the recipe's."""

    def recipe(self, base: ExitRecipe) -> ExitRecipe:
        """`base` with this arm's scheme and budget."""
        return replace(base, scheme=self.scheme, last_teacher=self.last_teacher,
                       epochs=base.epochs * self.epochs_factor,
                       steps=base.steps * self.epochs_factor)

    def same_as(self, modality: Modality) -> Arm:
        """The arm that trains the same heads of `modality` under a plainer name.

        The I-frame network's own exit 4 is the I-frame teacher.
        """
        if modality == "iframe" and self.scheme == "pkd" and self.last_teacher == "iframe":
            return replace(self, name="pkd", last_teacher="own")
        return self


EQUAL: tuple[Arm, ...] = (
    Arm("ce", "ce"),
    Arm("pkd", "pkd"),
    Arm("pkd_last_iframe", "pkd", last_teacher="iframe"),
    Arm("anticurriculum", "anticurriculum"),
    Arm("iframe", "iframe"),
)
"""Equal epoch budgets."""
UNEQUAL: tuple[Arm, ...] = (Arm("pkd_x2", "pkd", epochs_factor=2),)
"""The paper's budgets, 300 epochs for PKD and 150 for the rest (paper.md 3.2), beside EQUAL."""
ARMS = (*EQUAL, *UNEQUAL)


@dataclass(frozen=True)
class SetPlan:
    """One data set of the study."""

    recipe: TrainRecipe
    floor: float = math.nan
    """Accuracy that held-out groups get without edgepkd: eight RGB frames through a frozen
    EfficientNet-Lite0 with ImageNet weights, and a logistic regression. NaN: the study measures it
    itself."""
    tuned: tuple[float, float] | None = None
    """Accuracy of full chain and cascade on held-out groups by a recipe that was tuned on the set
    (docs/results/accuracy.md). None: there is none."""


@dataclass(frozen=True)
class Study:
    """The whole study."""

    trunk_seeds: tuple[int, ...]
    exit_seeds: tuple[int, ...]
    """Heads are initialised, and their batches drawn, anew for each, on the same trunks."""
    sets: tuple[SetPlan, ...]
    flatness_clips: int = 8
    """Training clips of a fold that the flatness of its trunks is measured on."""
    flatness_probes: int = 8
    """Random vectors that the trace of the Hessian is estimated from."""
    only_training: bool = False
    """Folds of the training groups alone: test clips are neither trained on nor answered."""

    def __post_init__(self) -> None:
        for name in ("trunk_seeds", "exit_seeds", "sets"):
            check(len(getattr(self, name)) >= 1, name, got=(), allowed="one or more")
        # Measured last of all: hours too late to find out.
        for name, least in (("flatness_clips", 1), ("flatness_probes", 2)):
            check(getattr(self, name) >= least, name, got=getattr(self, name),
                  allowed=f"{least} or more")


def load_study(name: str) -> Study:
    """Recipe `name` of `calibration/`, or the TOML file of that path.

    Its `sets` are `RECIPE = FLOOR`, or `NAME = {recipe, tuned, KEY = VALUE}` with what that set has
    otherwise than the recipe, such as `dataset` and `index`.

    Raises:
        ConfigError: no such recipe, an unknown or missing key, or a value out of its range.
    """
    values = load_recipe("calibration", name)
    sets = tuple(_set_plan(key, found, where=name) for key, found in values.get("sets", {}).items())
    settings: Mapping[str, Any] = {**values, "sets": sets}
    return from_mapping(Study, {k: v for k, v in settings.items() if k != "purpose"}, where=name)


def _set_plan(name: str, found: Any, *, where: str) -> SetPlan:
    if not isinstance(found, Mapping):
        return SetPlan(load_train_recipe(name), found)
    check("recipe" in found, f"{where}: sets.{name}: key recipe", got="missing",
          allowed="a recipe of calibration/")
    changes = {k: v for k, v in found.items() if k not in ("recipe", "tuned")}
    tuned = tuple(found["tuned"]) if "tuned" in found else None
    return SetPlan(load_train_recipe(found["recipe"], {"name": name, **changes}), tuned=tuned)
