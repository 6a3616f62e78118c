"""What `train` says before and after: health of the networks, and the command that may help."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepkd.config import NUM_EXITS, Modality
from edgepkd.pipeline.train_config import DEFAULT_RECIPE, ExitsConfig, TrainConfig
from edgepkd.recipes import recipe_names
from edgepkd.text import command
from edgepkd.training.health import Health, findings
from edgepkd.training.recipe import TrainRecipe
from edgepkd.training.runs import Run

BEST = "best"
"""The preset with the most steps."""
_SAFE_BATCH = 16
"""Clips in a batch from which the trunk of the default recipe was seen to live."""


def logged_losses(folder: Path) -> tuple[float, ...]:
    """Training loss of each epoch, from the results.csv of a step; also of one that was resumed."""
    try:
        with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
            return tuple(float(row["loss"]) for row in csv.DictReader(file))
    except (OSError, KeyError, TypeError, ValueError):
        return ()


def health_notes(
    config: TrainConfig, run: Run, modality: Modality, health: Health | None
) -> tuple[str, ...]:
    """What is wrong with a network that was just trained, and what to do about it."""
    said = findings(modality, health) if health else ()
    if not said or health is None:
        return ()
    return (*said, f"{modality}: {_advice(config, run, modality, health)}")


def _advice(config: TrainConfig, run: Run, modality: Modality, health: Health) -> str:
    if health.is_dead:
        return f"try {_again(config, run, _against_death(run.recipe, modality))}"
    if health.has_flat_loss or NUM_EXITS in health.failed_exits:
        if run.recipe.name in ("quick", DEFAULT_RECIPE):
            return f"try {_again(config, run, {}, preset=BEST)}"
        epochs = 3 * run.recipe.backbones[modality].epochs
        return f"try {_again(config, run, {f'backbones.{modality}.epochs': epochs})}"
    if health.failed_exits:
        epochs = 3 * run.recipe.exits_of(modality).epochs
        return "try " + command("edgepkd", "train", "exits", run.folder, "--modality", modality,
                                "--force", "--set", f"exits.epochs={epochs}")
    return ("clips of more groups help most; with calibration clips of one or two groups it may be"
            " chance")


def _against_death(recipe: TrainRecipe, modality: Modality) -> dict[str, Any]:
    """Changes of the recipe that keep a trunk alive: what was measured first, else a lower rate."""
    backbone, at = recipe.backbones[modality], f"backbones.{modality}"
    changes: dict[str, Any] = {}
    if backbone.frozen_batch_norm:
        changes[f"{at}.frozen_batch_norm"] = "false"
    if backbone.batch_clips < _SAFE_BATCH:
        changes[f"{at}.batch_clips"] = _SAFE_BATCH
    return changes or {f"{at}.learning_rate": f"{backbone.learning_rate / 5:g}"}


def _again(
    config: TrainConfig, run: Run, changes: Mapping[str, Any], *, preset: str | None = None
) -> str:
    """The command that trains the run's trunks anew, into a folder beside it."""
    words: list[str | Path] = ["edgepkd", "train", "backbone",
                               run.folder.with_name(f"{run.folder.name}-2"),
                               "--data", config.data or run.index]
    recipe = None if isinstance(config, ExitsConfig) else config.recipe
    if preset:
        words += ["--preset", preset]
    elif recipe or run.recipe.name in recipe_names("calibration"):
        words += ["--recipe", recipe or run.recipe.name]
    if config.dataset:
        words += ["--dataset", config.dataset]
    kept = {} if isinstance(config, ExitsConfig) else {
        key: value for key, value in config.changes.items()
        if not (preset and key.endswith(".epochs"))}  # of which the preset has more
    for key, value in {**kept, **changes}.items():
        words += ["--set", f"{key}={_toml(value)}"]
    return command(*words)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, (list, tuple)) else str(value)
