"""What `train` says before and after: health of the networks, and the command that may help."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgepkd.config import NUM_EXITS, Modality
from edgepkd.datasets.index import Sample
from edgepkd.datasets.mirror import mirror_pairs
from edgepkd.datasets.splits import split_three
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.pipeline.estimate import (
    NetworkTime,
    duration,
    measure_decoding,
    measure_pace,
    scaled,
    time_lines,
    time_of,
    total_s,
)
from edgepkd.pipeline.motion_form import NUM_FOLDS, processes_of, with_form
from edgepkd.pipeline.train_config import PRESETS, ExitsConfig, TrainConfig
from edgepkd.recipes import recipe_names
from edgepkd.text import command
from edgepkd.training.cache import cache_spec
from edgepkd.training.health import Health, findings
from edgepkd.training.loader import LabelledClips
from edgepkd.training.mirror import mirror_answers, swapped_classes, told_apart
from edgepkd.training.recipe import OptimizerRecipe, TrainRecipe, load_train_recipe
from edgepkd.training.runs import Run

NO_FLIP = "augment.flip=false"
"""What keeps training views from being mirrored."""
_SAFE_BATCH = 16
"""Clips in a batch from which the trunk of the default recipe was seen to live."""


def logged_losses(folder: Path) -> tuple[float, ...]:
    """Training loss of each epoch, from the results.csv of a step; also of one that was resumed."""
    try:
        with (folder / "results.csv").open(encoding="utf-8", newline="") as file:
            return tuple(float(row["loss"]) for row in csv.DictReader(file))
    except (OSError, KeyError, TypeError, ValueError):
        return ()


def balance_line(samples: Sequence[Sample]) -> str:
    """How many training clips the classes have."""
    parts = split_three(samples)
    sizes = Counter(s.label for s in parts.train)
    (largest, most), (smallest, fewest) = sizes.most_common()[0], sizes.most_common()[-1]
    balance = f"{most} each" if most == fewest else (
        f"smallest {smallest} {fewest}, largest {largest} {most} ({most / fewest:.1f} times)")
    return f"training clips of the classes: {balance}"


def flips(recipe: TrainRecipe) -> bool:
    """Whether training views are mirrored at random."""
    return recipe.augment.flip


def mirror_warning(labels: Sequence[str], recipe: TrainRecipe) -> tuple[str, ...]:
    """Said before training, where views are mirrored and labels name sides."""
    pairs = mirror_pairs(labels) if flips(recipe) else ()
    if not pairs:
        return ()
    more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
    return (f"warning: half of the training views are mirror images, which makes {pairs[0][0]!r} of"
            f" {pairs[0][1]!r}{more}: if the side matters, give --set {NO_FLIP}",)


def mirror_notes(
    network: SegmentedNetwork, data: LabelledClips, run: Run
) -> tuple[str, ...]:
    """Said after training the motion network, where views were mirrored and classes are sides."""
    if not flips(run.recipe) or len(data) == 0:
        return ()
    answers = mirror_answers(network, data, spec=run.recipe.inputs[network.spec.modality])
    said = []
    for pair in swapped_classes(answers):
        a, b = (run.labels[i] for i in pair.labels)
        said.append(f"mv: mirrored, {pair.num_mirrored} of {pair.num_clips} clips of {a!r} and"
                    f" {b!r} are taken for the other ({pair.num_plain} as they are): --set"
                    f" {NO_FLIP} keeps them apart")
    for a, b in mirror_pairs(run.labels):
        right = told_apart(answers, run.labels.index(a), run.labels.index(b))
        if right and right.interval[0] <= 0.5:
            said.append(f"mv: it does not tell {a!r} from {b!r}: {right} of {right.num_clips}"
                        f" clips; --set {NO_FLIP} may help")
    return tuple(said)


def training_time(
    config: TrainConfig, run: Run, samples: Sequence[Sample]
) -> tuple[str, ...]:
    """How long it will take, from a few steps of each network that is to be trained."""
    exits_only = isinstance(config, ExitsConfig)
    todo = [m for m in config.modalities if config.force or not _is_there(config, run, m)]
    if not todo:
        return ()
    parts = split_three(samples)
    decoding = measure_decoding((*parts.train, *parts.calibration), spec=cache_spec(run.recipe),
                                folder=config.cache, jobs=config.jobs)
    paces = {m: measure_pace(run.recipe, m, num_classes=len(run.labels), trunk=not exits_only,
                             execution=config.execution) for m in todo}

    def times(recipe: TrainRecipe) -> dict[Modality, NetworkTime]:
        online = isinstance(config, ExitsConfig) and config.online
        return {m: time_of(recipe, m, scaled(pace, run.recipe, recipe, m), online=online,
                           num_clips=len(parts.train)) for m, pace in paces.items()}

    others = {name: total_s(times(load_train_recipe(name, config.changes)), decoding)
              for name in PRESETS if name != run.recipe.name
              } if run.recipe.name in PRESETS and not exits_only else {}
    return (*time_lines(run.recipe, times(run.recipe), decoding, others=others,
                        exits_only=exits_only), *_time_of_trial(config, run, times))


def _is_there(config: TrainConfig, run: Run, modality: Modality) -> bool:
    if isinstance(config, ExitsConfig):
        path = replace(run, folder=config.out or run.folder).network(modality)
    else:
        path = run.trunk(modality)
    return path.with_name(f"{path.name}.json").exists()


def _time_of_trial(
    config: TrainConfig, run: Run, times: Callable[[TrainRecipe], dict[Modality, NetworkTime]]
) -> tuple[str, ...]:
    """What trying both forms of the motion network takes, where that is to be done."""
    if not run.recipe.choose_stack or isinstance(config, ExitsConfig) or (
            "mv" not in config.modalities):
        return ()
    both = [times(with_form(run.recipe, is_stacked=it))["mv"].trunk_s for it in (False, True)]
    took = NUM_FOLDS * sum(both) / processes_of(config)
    return (f"before that, both forms of the motion network on {NUM_FOLDS} folds:"
            f" {duration(took)} (--set inputs.mv.stack=false or true names one)",)


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
        if run.recipe.name in PRESETS[:-1]:
            return f"try {_again(config, run, {}, preset=PRESETS[-1])}"
        longer = _longer(run.recipe.backbones[modality], f"backbones.{modality}")
        return f"try {_again(config, run, longer)}"
    if health.failed_exits:
        [(key, value)] = _longer(run.recipe.exits_of(modality), "exits").items()
        return "try " + command("edgepkd", "train", "exits", run.folder, "--modality", modality,
                                "--force", "--set", f"{key}={value}")
    return ("clips of more groups help most; with calibration clips of one or two groups it may be"
            " chance")


def _longer(recipe: OptimizerRecipe, table: str) -> dict[str, Any]:
    """Three times the length, by the key that the recipe gives it in."""
    name = "steps" if recipe.steps else "epochs"
    return {f"{table}.{name}": 3 * getattr(recipe, name)}


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
        if not (preset and key.endswith((".epochs", ".steps")))}  # of which the preset has more
    for key, value in {**kept, **changes}.items():
        words += ["--set", f"{key}={_toml(value)}"]
    return command(*words)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(list(value)) if isinstance(value, (list, tuple)) else str(value)
