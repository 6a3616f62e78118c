"""`edgepkd train backbone`, `train exits` and `train folds`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgepkd.cli.options import Cache, Dataset
from edgepkd.cli.training_options import (
    Compile,
    Data,
    Device,
    Force,
    Jobs,
    Json,
    Mixed,
    Modalities,
    Recipe,
    Resume,
    Seed,
    Set,
    TensorBoard,
    Threads,
    Workers,
    execution,
    json_target,
    modalities,
    pair,
    recipe_changes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgepkd.cli.output import JsonTarget
    from edgepkd.pipeline.folds import FoldsDone, FoldsPlan
    from edgepkd.pipeline.train_config import StepDone

train = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                    help="Train networks: first the trunks, then their exits.")

RunFolder = Annotated[Path, typer.Argument(
    metavar="RUN", help="Folder of the run, e.g. runs/NAME.")]


@train.command("backbone")
def backbone(
    run: RunFolder, data: Data = None, dataset: Dataset = None, recipe: Recipe = None,
    changes: Set = None, modality: Modalities = "all",
    init: Annotated[Path | None, typer.Option(
        help="Weights to start from (.safetensors or .pth), of torchvision, CoViAR, PKD or"
             " edgepkd.")] = None,
    key_map: Annotated[list[str] | None, typer.Option(
        metavar="REGEX=TEXT", help="Rename keys in the file of --init; may be given again.",
    )] = None,
    seed: Seed = None, resume: Resume = False, force: Force = False,
    cache: Cache = Path("runs/cache"), jobs: Jobs = 2, threads: Threads = None,
    device: Device = "auto", workers: Workers = 0, amp: Mixed = False, compiled: Compile = False,
    tensorboard: TensorBoard = False, json: Json = None,
) -> None:
    """Train trunk and last exit of each network."""
    from edgepkd._optional import require
    from edgepkd.cli import output

    require("torch", purpose="Training")
    from edgepkd.pipeline.train import train_backbones
    from edgepkd.pipeline.train_config import TrainConfig

    config = TrainConfig(
        run=run, data=data, dataset=dataset, recipe=recipe, changes=recipe_changes(changes),
        modalities=modalities(modality), seed=seed, resume=resume, force=force, cache=cache,
        jobs=jobs, threads=threads, execution=execution(device, workers, amp, compiled),
        tensorboard=tensorboard, console=output.stderr())
    pairs = dict(pair(text, option="--key-map") for text in key_map or ())
    place = json_target(json, config, init)
    _show(train_backbones(config, init=init, key_map=pairs or None), place)


@train.command("exits")
def exits(
    run: RunFolder,
    method: Annotated[str | None, typer.Option(
        help="What teaches the exits: pkd (progressive distillation), anticurriculum (its teachers"
             " in reverse order), iframe (the I-frame network alone) or ce (labels alone); default:"
             " the recipe's.")] = None,
    last_teacher: Annotated[str | None, typer.Option(
        help="Last teacher of pkd: own (the network's own exit 4) or iframe; default: the"
             " recipe's.")] = None,
    online: Annotated[bool, typer.Option(
        "--online", help="Draw new views in every epoch (slow) instead of reading cached"
        " features.")] = False,
    features: Annotated[Path, typer.Option(help="Folder where features are kept.")]
    = Path("runs/features"),
    cache_limit: Annotated[float, typer.Option(help="Most that folder may hold, in GB.")] = 20.0,
    data: Data = None, dataset: Dataset = None, recipe: Recipe = None, changes: Set = None,
    modality: Modalities = "all", seed: Seed = None, resume: Resume = False, force: Force = False,
    cache: Cache = Path("runs/cache"), jobs: Jobs = 2, threads: Threads = None,
    device: Device = "auto", tensorboard: TensorBoard = False, json: Json = None,
) -> None:
    """Train the other exits on the frozen trunks."""
    from edgepkd._optional import require
    from edgepkd.cli import output

    require("torch", purpose="Training")
    from edgepkd.pipeline.train import train_all_exits
    from edgepkd.pipeline.train_config import ExitsConfig
    from edgepkd.training.features import FeatureCache

    config = ExitsConfig(
        run=run, data=data, dataset=dataset, recipe=recipe, changes=recipe_changes(changes),
        modalities=modalities(modality), seed=seed, resume=resume, force=force, cache=cache,
        jobs=jobs, threads=threads, execution=execution(device),
        tensorboard=tensorboard, console=output.stderr(), method=method,  # type: ignore[arg-type]
        last_teacher=last_teacher, online=online,  # type: ignore[arg-type]
        features=FeatureCache(features, cache_limit))
    _show(train_all_exits(config), json_target(json, config))


@train.command("folds")
def folds(
    run: RunFolder,
    number: Annotated[int, typer.Option(
        "--folds", help="Parts that the training groups are cut into.")] = 3,
    processes: Annotated[int | None, typer.Option(
        help="Networks that train at the same time, a thread each; default: as many as there are"
             " cores, one on a GPU.")] = None,
    init: Annotated[Path | None, typer.Option(
        help="Weights that the run's own trunks started from, as in train backbone.")] = None,
    key_map: Annotated[list[str] | None, typer.Option(
        metavar="REGEX=TEXT", help="Rename keys in the file of --init; may be given again.",
    )] = None,
    features: Annotated[Path, typer.Option(help="Folder where features are kept.")]
    = Path("runs/features"),
    cache_limit: Annotated[float, typer.Option(help="Most that folder may hold, in GB.")] = 20.0,
    modality: Modalities = "all", resume: Resume = False, force: Force = False,
    cache: Cache = Path("runs/cache"), jobs: Jobs = 2, threads: Threads = None,
    device: Device = "auto", json: Json = None,
) -> None:
    """Train the run again without each part of its groups, and have that part answered.

    `wise fit` then rests on all training clips. Takes the run's recipe, clips and seed.
    """
    import os

    from edgepkd._optional import require
    from edgepkd.cli import output

    require("torch", purpose="Training")
    from edgepkd.pipeline.folds import FoldsConfig, train_folds
    from edgepkd.training.features import FeatureCache

    where = execution(device)
    if processes is None:
        processes = 1 if where.on_gpu or threads else os.cpu_count() or 1
    pairs = dict(pair(text, option="--key-map") for text in key_map or ())
    config = FoldsConfig(
        run=run, folds=number, processes=processes, init=init, key_map=pairs,
        modalities=modalities(modality), resume=resume, force=force, cache=cache, jobs=jobs,
        threads=threads, execution=where, console=output.stderr(),
        features=FeatureCache(features, cache_limit))
    _show_folds(train_folds(config), json_target(json, config, init))


def _show_folds(
    steps: Iterator[FoldsPlan | StepDone | FoldsDone], json: JsonTarget
) -> None:
    from edgepkd.cli import output
    from edgepkd.pipeline.folds import FoldsDone, FoldsPlan

    def networks() -> Iterator[StepDone]:
        for event in steps:
            if isinstance(event, FoldsPlan):
                _announce(event)
            elif isinstance(event, FoldsDone):
                done.append(event)
            else:
                yield event

    done: list[FoldsDone] = []
    _show(networks(), json)
    for one in done:
        output.note(f"{one.num_clips} clips of {one.num_groups} groups answered: {one.path}")
        output.note(f"next: edgepkd wise fit {one.path.parent.parent}")


def _announce(plan: FoldsPlan) -> None:
    from edgepkd.cli import output

    time = "" if plan.seconds is None else \
        f", about {max(1, round(plan.seconds / 60))} min by the logs of the run's own training"
    output.note(f"{plan.num_folds} folds of {', '.join(map(str, plan.clips))} clips: as much as"
                f" training {plan.num_folds} times on the rest of the clips{time}")
    if plan.missing:
        output.note(f"note: {', '.join(plan.missing)}: one group only, which no fold holds out")


def _show(steps: Iterator[StepDone], json: JsonTarget) -> None:
    from dataclasses import asdict

    from edgepkd.cli import output

    rows = []
    with output.JsonLines(json) as lines:
        for done in steps:
            lines.write("network", {**asdict(done), "path": str(done.path)})
            accuracies = [f"{100 * value:.1f}" for name, value in done.values.items()
                          if name.startswith("accuracy_calibration")]
            rows.append((done.modality, done.step, f"{done.values['loss']:.3f}",
                         ", ".join(accuracies) or "-",
                         "kept" if done.kept else f"{done.seconds:.0f}", str(done.path)))
    if json != output.STDOUT and rows:
        columns = ("network", "step", "loss", "calibration %", "s", "file")
        output.stdout().print(output.table(columns, rows, right=["loss", "s"]))
