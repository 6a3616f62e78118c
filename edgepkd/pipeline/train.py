"""`train backbone` and `train exits`: from labelled clips to networks with four exits.

    >>> for step in train_backbones(TrainConfig(run=Path("runs/a"), data=Path("my-data"))):
    ...     print(step.modality, step.values["accuracy_calibration"])
    mv ...
    residual ...
    iframe ...

Under `torchrun` every process runs the same call; rank 0 writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist

from edgepkd.config import MODALITIES, Modality
from edgepkd.datasets.index import Sample, labels_of
from edgepkd.datasets.splits import split_three
from edgepkd.errors import ModelError, UsageError
from edgepkd.models.checkpoint import load_network, save_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.models.weights import load_backbone, read_checkpoint
from edgepkd.outputs import check_folder
from edgepkd.pipeline.clips import Clips, clips_to_train_on, decoded_clips
from edgepkd.pipeline.step_logs import StepLog, kept_extra, refuse_quantized, step_logs
from edgepkd.pipeline.train_config import DEFAULT_RECIPE, ExitsConfig, StepDone, TrainConfig
from edgepkd.training.backbone import new_network, train_backbone
from edgepkd.training.execution import process_group, rank, world_size
from edgepkd.training.exits import (
    CachedFeatures,
    FeatureSource,
    OnlineFeatures,
    calibration_views,
    label_rows,
    teacher_at,
    train_exits,
    view_plan,
)
from edgepkd.training.features import trunk_hash
from edgepkd.training.loader import LabelledClips
from edgepkd.training.loop import Checkpoint, hash_of, mix_seed
from edgepkd.training.recipe import (
    ExitRecipe,
    TrainRecipe,
    changed_recipe,
    load_train_recipe,
)
from edgepkd.training.runs import (
    RUN_FILE,
    Run,
    read_run,
    refuse_other_run,
    write_run,
)


def train_backbones(config: TrainConfig, *, init: Path | None = None,
                    key_map: Mapping[str, str] | None = None) -> Iterator[StepDone]:
    """Train trunk and last exit of each modality; yields each when it is written.

    `init` holds a backbone's weights (torchvision, CoViAR, PKD, own).

    Raises:
        DataError, TrainingError, ModelError, StorageError, UsageError: see their modules.
    """
    with _started(config) as (run, clips):
        start = _read_init(init, key_map)
        for modality in config.modalities:
            yield _backbone(config, run, clips, modality, start)


def train_all_exits(config: ExitsConfig) -> Iterator[StepDone]:
    """Train exits 1..3 of each modality on its frozen trunk; yields each when it is written.

    Raises:
        as `train_backbones`; ModelError: a trunk that is needed is not there.
    """
    with _started(config) as (run, clips):
        run = replace(run, recipe=_with_method(config, run.recipe))
        if rank() == 0:
            write_run(run)
        needed = {*config.modalities}.union(
            *(teachers_of(run.recipe.exits_of(m)) for m in config.modalities))
        trunks = {m: _trunk(run, m, device=config.execution.device)
                  for m in MODALITIES if m in needed}
        for modality in config.modalities:
            yield _exits(config, run, clips, modality, trunks)


# ---- the run and its clips


@contextmanager
def _started(config: TrainConfig) -> Iterator[tuple[Run, Clips]]:
    """Processes joined, threads set, run opened, clips decoded."""
    with ExitStack() as stack:
        stack.enter_context(process_group(on_gpu=config.execution.on_gpu))
        if config.threads:
            torch.set_num_threads(config.threads)
        run, samples = _open_run(config)
        yield run, decoded_clips(run, samples, folder=config.cache, jobs=config.jobs,
                                 console=config.console)


def _open_run(config: TrainConfig) -> tuple[Run, tuple[Sample, ...]]:
    check_folder("RUN", config.run)
    check_folder("--cache", config.cache)
    if isinstance(config, ExitsConfig):
        check_folder("--features", config.features.folder)
    refuse_quantized(config.run)
    old = read_run(config.run) if (config.run / RUN_FILE).exists() else None
    data = config.data or (old.index if old else None)
    if data is None:
        raise UsageError(f"{config.run} is no training run yet, and no data was named.",
                         hint="Give --data FOLDER, with an index.csv as `edgepkd data` writes it.")
    recipe = _recipe(config, old)
    clips = clips_to_train_on(data, recipe=recipe)
    split_three(clips.samples)  # before anything is written: data that is refused leaves no run
    seed = recipe.seed if config.seed is None else config.seed
    run = Run(config.run, replace(recipe, seed=seed), clips.index, labels_of(clips.samples), seed,
              old.fold if old else None)
    if old:
        refuse_other_run(old, run)
    elif rank() == 0:
        write_run(run)
    return run, clips.samples


def _recipe(config: TrainConfig, old: Run | None) -> TrainRecipe:
    if old and config.recipe is None:  # with the changes it was started with
        recipe = changed_recipe(old.recipe, config.changes)
    else:
        recipe = load_train_recipe(config.recipe or DEFAULT_RECIPE, config.changes)
    return recipe if config.dataset is None else replace(recipe, dataset=config.dataset)


# ---- backbones


def _read_init(
    init: Path | None, key_map: Mapping[str, str] | None
) -> Callable[[SegmentedNetwork], object] | None:
    if init is None:
        return None
    state = read_checkpoint(init)
    return lambda network: load_backbone(network, state, source=str(init), key_map=key_map)


def _backbone(
    config: TrainConfig, run: Run, clips: Clips, modality: Modality,
    init: Callable[[SegmentedNetwork], object] | None,
) -> StepDone:
    start, recipe, spec = time.perf_counter(), run.recipe, run.recipe.inputs[modality]
    seed = mix_seed(run.seed, modality)
    network = None
    if init:
        torch.manual_seed(seed)
        network = new_network(spec, recipe.backbones[modality], num_classes=len(run.labels))
        init(network)
    key = hash_of({
        "step": "backbone", "seed": seed, "input": asdict(spec), "clip": asdict(recipe.clip),
        "backbone": asdict(recipe.backbones[modality]), "labels": run.labels,
        "train": clips.keys(clips.train), "calibration": clips.keys(clips.calibration),
        "init": trunk_hash(network) if network else "",
    })
    path, folder = run.trunk(modality), run.step("backbone", modality)
    if kept := _kept(config, path, key, "backbone", modality, start):
        return kept
    with _logs(config, folder, f"backbone {modality}", recipe.backbones[modality].epochs) as log:
        log.event("start", step="backbone", modality=modality, seed=seed, key=key,
                  recipe=asdict(recipe.backbones[modality]))
        trained = train_backbone(
            clips.load(clips.train), spec=spec, recipe=recipe.backbones[modality],
            num_classes=len(run.labels), rule=recipe.clip.sampling, seed=seed,
            calibration=clips.load(clips.calibration), start=network,
            execution=config.execution, log=log,
            checkpoint=Checkpoint(folder / "checkpoint.safetensors", key, resume=config.resume),
        )
    return _finished(run, trained, path, "backbone", modality, key, log, start)


# ---- exits


def _with_method(config: ExitsConfig, recipe: TrainRecipe) -> TrainRecipe:
    """`recipe` with the method that was asked for, in every network."""
    asked: dict[str, Any] = {name: value for name, value in (
        ("scheme", config.method), ("last_teacher", config.last_teacher)) if value}
    changes = {modality: {**values, **asked} for modality, values in recipe.exit_changes.items()}
    return replace(recipe, exits=replace(recipe.exits, **asked), exit_changes=changes)


def teachers_of(recipe: ExitRecipe) -> set[Modality]:
    """Networks that teach others in some epoch."""
    named = {teacher_at(recipe.scheme, epoch=e, num_epochs=recipe.epochs,
                        last_teacher=recipe.last_teacher) for e in range(recipe.epochs)}
    return {m for m in MODALITIES if m in named}


def _trunk(run: Run, modality: Modality, *, device: str) -> SegmentedNetwork:
    try:
        network, _ = load_network(run.trunk(modality))
    except ModelError as error:
        raise ModelError(f"the trunk of {modality} is needed and cannot be read: {error.message}",
                         hint="Train it with `edgepkd train backbone`, in the same folder."
                         ) from error
    return network.to(device)


def _exits(
    config: ExitsConfig, run: Run, clips: Clips, modality: Modality,
    trunks: Mapping[Modality, SegmentedNetwork],
) -> StepDone:
    start, network = time.perf_counter(), trunks[modality]
    recipe = run.recipe.exits_of(modality)
    run = replace(run, recipe=replace(run.recipe, exits=recipe))  # views and teachers follow it
    seed = mix_seed(run.seed, modality, "exits")
    key = hash_of({
        "step": "exits", "seed": seed, "recipe": asdict(recipe), "online": config.online,
        "trunks": {m: trunk_hash(trunks[m]) for m in {modality, *teachers_of(recipe)}},
        "plan": asdict(view_plan(run.recipe, modality)),
        "train": clips.keys(clips.train), "calibration": clips.keys(clips.calibration),
    })
    path, folder = run.network(modality), run.step("exits", modality)
    if kept := _kept(config, path, key, "exits", modality, start):
        return kept
    with _logs(config, folder, f"exits {modality}", recipe.epochs) as log:
        log.event("start", step="exits", modality=modality, seed=seed, key=key,
                  online=config.online, recipe=asdict(recipe))
        data = clips.load(clips.train)
        train_exits(
            network, _features(config, run, clips, modality, trunks, data),
            label_rows(data, num_views=recipe.num_views), recipe=recipe, seed=seed,
            calibration=calibration_views(network, clips.load(clips.calibration),
                                          spec=run.recipe.inputs[modality])
            if clips.calibration else None,
            execution=config.execution, log=log,
            checkpoint=Checkpoint(folder / "checkpoint.safetensors", key, resume=config.resume),
        )
    return _finished(run, network, path, "exits", modality, key, log, start)


def _features(
    config: ExitsConfig, run: Run, clips: Clips, modality: Modality,
    trunks: Mapping[Modality, SegmentedNetwork], data: LabelledClips,
) -> FeatureSource:
    teachers = teachers_of(run.recipe.exits)
    plans = {m: view_plan(run.recipe, m) for m in {modality, *teachers}}
    if config.online:
        return OnlineFeatures(modality, trunks, plans, data)
    keys = clips.keys(clips.train)
    views = {m: config.features.views(trunks[m], data.clips, plan, clip_keys=keys)
             for m, plan in plans.items()}
    return CachedFeatures(views[modality], {m: views[m].logits for m in teachers})


# ---- what both steps share


def _logs(
    config: TrainConfig, folder: Path, title: str, epochs: int
) -> AbstractContextManager[StepLog]:
    return step_logs(folder, title=title, epochs=epochs, resume=config.resume,
                     tensorboard=config.tensorboard, console=config.console)


def _kept(
    config: TrainConfig, path: Path, key: str, step: str, modality: Modality, start: float
) -> StepDone | None:
    """What an earlier run left, if it is to be kept; refuses to overwrite unasked."""
    json_path = path.with_name(path.name + ".json")
    if config.force or not json_path.exists():
        return None
    extra = kept_extra(path, key, resume=config.resume)
    return StepDone(step, modality, json_path, True, extra["values"],
                    time.perf_counter() - start)


def _finished(
    run: Run, network: SegmentedNetwork, path: Path, step: str, modality: Modality, key: str,
    log: StepLog, start: float,
) -> StepDone:
    values = log.numbers.values
    if rank() == 0:
        recipe = run.recipe.exits
        method = {"method": recipe.scheme, "last_teacher": recipe.last_teacher}
        save_network(network, path, extra={
            "key": key, "values": values, "seed": run.seed, "labels": run.labels,
            **(method if step == "exits" else {})})
    if world_size() > 1:
        dist.barrier()
    return StepDone(step, modality, path.with_name(path.name + ".json"), False, values,
                    time.perf_counter() - start)
