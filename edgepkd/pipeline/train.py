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
from rich.console import Console
from torch import distributed as dist

from edgepkd.config import MODALITIES, NUM_EXITS, Modality, facts_of
from edgepkd.datasets.index import Sample, labels_of
from edgepkd.datasets.splits import (
    Drawn,
    absent_classes,
    check_splits,
    draw_splits,
    splits_in_words,
)
from edgepkd.errors import ModelError, UsageError
from edgepkd.models.checkpoint import load_network, save_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.models.weights import load_backbone, read_checkpoint
from edgepkd.outputs import check_folder
from edgepkd.pipeline.clips import Clips, clips_to_train_on, decoded_clips, recipe_for
from edgepkd.pipeline.exits_out import check_out, copy_trunks
from edgepkd.pipeline.motion_form import formed, with_form
from edgepkd.pipeline.step_logs import StepLog, kept_extra, refuse_quantized, step_logs
from edgepkd.pipeline.train_config import DEFAULT_RECIPE, ExitsConfig, StepDone, TrainConfig
from edgepkd.pipeline.train_notes import (
    balance_line,
    health_notes,
    logged_losses,
    mirror_notes,
    mirror_warning,
    training_time,
)
from edgepkd.training.backbone import new_network, train_backbone
from edgepkd.training.execution import process_group, rank, world_size
from edgepkd.training.exits import (
    CachedFeatures,
    FeatureSource,
    OnlineFeatures,
    calibration_views,
    label_rows,
    teachers_of,
    train_exits,
    view_plan,
)
from edgepkd.training.features import trunk_hash
from edgepkd.training.health import (
    Health,
    health_facts,
    health_of_network,
    measure_health,
    read_health,
    zero_features,
)
from edgepkd.training.loader import LabelledClips
from edgepkd.training.loop import Checkpoint, hash_of, mix_seed
from edgepkd.training.recipe import (
    ExitRecipe,
    TrainRecipe,
    augment_facts,
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
        run, clips = _with_motion_form(config, run, clips)
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
        needed = {*config.modalities}.union(
            *(teaching_networks(run.recipe.exits_of(m)) for m in config.modalities))
        if config.out and rank() == 0:
            run = copy_trunks(run, config.out, [m for m in MODALITIES if m in needed])
        if world_size() > 1:
            dist.barrier()
        run = replace(run, folder=config.out or run.folder)
        if rank() == 0:
            write_run(run)
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
        if config.console and world_size() == 1 and not run.fold:  # the whole run said it
            for line in (balance_line(samples), *mirror_warning(run.labels, run.recipe),
                         *training_time(config, run, samples)):
                config.console.print(line)
        yield run, decoded_clips(run, samples, folder=config.cache, jobs=config.jobs,
                                 limit_gb=config.cache_gb, console=config.console)


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
    recipe = _recipe(config, old, data)
    clips = clips_to_train_on(data, recipe=recipe)
    drawn = draw_splits(clips.samples)
    check_splits(drawn.samples)  # before anything is written: data that is refused leaves no run
    if config.console and rank() == 0 and not isinstance(config, ExitsConfig):
        _tell_splits(config.console, drawn)
    seed = recipe.seed if config.seed is None else config.seed
    run = Run(config.run, replace(recipe, seed=seed), clips.index, labels_of(clips.samples), seed,
              old.trunks_from if old else "", old.fold if old else None)
    if isinstance(config, ExitsConfig) and config.out:
        check_out(run, config.out)
    if old:
        refuse_other_run(old, run)
    elif rank() == 0:
        write_run(run)
    return run, drawn.samples


def _tell_splits(console: Console, drawn: Drawn) -> None:
    """What is trained, chosen and tested on, and which classes a part has no clip of."""
    console.print(splits_in_words(drawn.samples), soft_wrap=True)
    for note in (*drawn.notes, *absent_classes(drawn.samples)):
        console.print(f"note: {note}", soft_wrap=True)


def _recipe(config: TrainConfig, old: Run | None, data: Path) -> TrainRecipe:
    if old and config.recipe is None:  # with the changes it was started with
        recipe = changed_recipe(old.recipe, config.changes)
    else:
        recipe = load_train_recipe(config.recipe or DEFAULT_RECIPE, config.changes)
    if "inputs.mv.stack" in config.changes:
        recipe = replace(recipe, choose_stack=False)
    elif old and recipe.choose_stack and not old.recipe.choose_stack:  # decided there
        recipe = with_form(recipe, is_stacked=old.recipe.inputs["mv"].stack)
    if config.dataset is not None:
        return replace(recipe, dataset=config.dataset)
    recipe, said = recipe_for(data, recipe)
    if said and config.console and rank() == 0:
        config.console.print(f"note: {said}")
    return recipe


# ---- backbones


def _with_motion_form(config: TrainConfig, run: Run, clips: Clips) -> tuple[Run, Clips]:
    """The run with the form of its motion network decided, before that is trained."""
    if not run.recipe.choose_stack or "mv" not in config.modalities:
        return run, clips
    recipe, choice = formed(clips, config)
    run = replace(run, recipe=recipe)
    if rank() == 0:
        write_run(run)
        if config.console:
            config.console.print(f"motion network: {'stacked' if choice.is_stacked else 'averaged'}"
                                 f" fields ({choice.why})", soft_wrap=True, markup=False)
    return run, replace(clips, run=run)


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
    backbone = recipe.backbones[modality]
    seed = mix_seed(run.seed, modality)
    network = None
    if init:
        torch.manual_seed(seed)
        network = new_network(spec, backbone, num_classes=len(run.labels))
        init(network)
    key = hash_of({
        "step": "backbone", "seed": seed, "input": facts_of(spec),
        "clip": facts_of(recipe.clip), "backbone": facts_of(backbone), "labels": run.labels,
        "train": clips.keys(clips.train), "calibration": clips.keys(clips.calibration),
        "init": trunk_hash(network) if network else "", **augment_facts(recipe),
    })
    path, folder = run.trunk(modality), run.step("backbone", modality)
    if kept := _kept(config, run, path, key, "backbone", modality, start):
        return kept
    data, num_zero = clips.load(clips.train), _zero_at_start(
        config, run, clips, modality, network)
    epochs = backbone.for_clips(len(clips.train)).epochs
    with _logs(config, folder, f"backbone {modality}", epochs) as log:
        log.event("start", step="backbone", modality=modality, seed=seed, key=key, epochs=epochs,
                  recipe=asdict(backbone))
        trained = train_backbone(
            data, spec=spec, recipe=backbone,
            num_classes=len(run.labels), rule=recipe.clip.sampling, seed=seed,
            augment=recipe.augment, calibration=clips.load_calibration(), start=network,
            execution=config.execution, log=log,
            checkpoint=Checkpoint(folder / "checkpoint.safetensors", key, resume=config.resume),
        )
    health = _health(config, run, clips, trained, exits=(NUM_EXITS,), num_zero_at_start=num_zero,
                     losses=logged_losses(folder))
    done = _finished(config, run, trained, path, "backbone", key, log, start, health)
    if modality == "mv" and rank() == 0:  # the one that sees directions
        both = clips.load((*clips.train, *clips.calibration))
        done = replace(done, notes=(*done.notes, *mirror_notes(trained, both, run)))
    return done


def _zero_at_start(
    config: TrainConfig, run: Run, clips: Clips, modality: Modality, start: SegmentedNetwork | None
) -> int | None:
    """Last features that are always zero in the network that training starts from."""
    if rank() != 0:
        return None
    spec = run.recipe.inputs[modality]
    if start is None:
        with torch.random.fork_rng():
            torch.manual_seed(mix_seed(run.seed, modality))  # as `train_backbone` does
            start = new_network(spec, run.recipe.backbones[modality], num_classes=len(run.labels))
    start.to(config.execution.device)
    return zero_features(start, clips.load(clips.train).clips, spec=spec)


# ---- exits


def _with_method(config: ExitsConfig, recipe: TrainRecipe) -> TrainRecipe:
    """`recipe` with the method that was asked for, in every network."""
    asked: dict[str, Any] = {name: value for name, value in (
        ("scheme", config.method), ("last_teacher", config.last_teacher)) if value}
    changes = {modality: {**values, **asked} for modality, values in recipe.exit_changes.items()}
    return replace(recipe, exits=replace(recipe.exits, **asked), exit_changes=changes)


def teaching_networks(recipe: ExitRecipe) -> set[Modality]:
    """Networks that teach others in some epoch."""
    named = teachers_of(recipe.scheme, last_teacher=recipe.last_teacher)
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
        "step": "exits", "seed": seed, "recipe": facts_of(recipe),
        "online": config.online,
        "trunks": {m: trunk_hash(trunks[m]) for m in {modality, *teaching_networks(recipe)}},
        "plan": facts_of(view_plan(run.recipe, modality)),
        "train": clips.keys(clips.train), "calibration": clips.keys(clips.calibration),
    })
    path, folder = run.network(modality), run.step("exits", modality)
    if kept := _kept(config, run, path, key, "exits", modality, start):
        return kept
    epochs = recipe.for_clips(len(clips.train)).epochs
    with _logs(config, folder, f"exits {modality}", epochs) as log:
        log.event("start", step="exits", modality=modality, seed=seed, key=key, epochs=epochs,
                  online=config.online, recipe=asdict(recipe))
        data, held_out = clips.load(clips.train), clips.load_calibration()
        train_exits(
            network, _features(config, run, clips, modality, trunks, data),
            label_rows(data, num_views=recipe.num_views), recipe=recipe, seed=seed,
            calibration=calibration_views(network, held_out, spec=run.recipe.inputs[modality])
            if held_out else None,
            execution=config.execution, log=log,
            checkpoint=Checkpoint(folder / "checkpoint.safetensors", key, resume=config.resume),
        )
    trunk = health_of_network(run.trunk(modality))
    losses = (trunk.first_loss, trunk.lowest_loss) if trunk else ()
    health = _health(config, run, clips, network, exits=range(1, NUM_EXITS + 1),
                     num_zero_at_start=trunk.num_zero_at_start if trunk else None,
                     losses=[loss for loss in losses if loss is not None])
    return _finished(config, run, network, path, "exits", key, log, start, health)


def _features(
    config: ExitsConfig, run: Run, clips: Clips, modality: Modality,
    trunks: Mapping[Modality, SegmentedNetwork], data: LabelledClips,
) -> FeatureSource:
    teachers = teaching_networks(run.recipe.exits)
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
    config: TrainConfig, run: Run, path: Path, key: str, step: str, modality: Modality,
    start: float,
) -> StepDone | None:
    """What an earlier run left, if it is to be kept; refuses to overwrite unasked."""
    json_path = path.with_name(path.name + ".json")
    if config.force or not json_path.exists():
        return None
    extra = kept_extra(path, key, resume=config.resume)
    return StepDone(step, modality, json_path, True, extra["values"], time.perf_counter() - start,
                    health_notes(config, run, modality, read_health(extra)))


def _health(
    config: TrainConfig, run: Run, clips: Clips, network: SegmentedNetwork, **known: Any
) -> Health | None:
    """Health of a network whose training ended; `known`: as in `measure_health`."""
    if rank() != 0:
        return None
    network.to(config.execution.device)
    return measure_health(network, clips.load(clips.train), clips.load(clips.calibration),
                          spec=run.recipe.inputs[network.spec.modality], **known)


def _finished(
    config: TrainConfig, run: Run, network: SegmentedNetwork, path: Path, step: str, key: str,
    log: StepLog, start: float, health: Health | None,
) -> StepDone:
    values, modality = log.numbers.values, network.spec.modality
    if rank() == 0:
        recipe = run.recipe.exits
        method = {"method": recipe.scheme, "last_teacher": recipe.last_teacher}
        save_network(network, path, extra={
            "key": key, "values": values, "seed": run.seed, "labels": run.labels,
            **health_facts(health), **(method if step == "exits" else {})})
    if world_size() > 1:
        dist.barrier()
    return StepDone(step, modality, path.with_name(path.name + ".json"), False, values,
                    time.perf_counter() - start, health_notes(config, run, modality, health))
