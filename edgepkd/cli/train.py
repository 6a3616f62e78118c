"""`edgepkd train backbone` and `train exits`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgepkd.cli.training_options import (
    Cache,
    Compile,
    Data,
    Dataset,
    Device,
    Force,
    Jobs,
    Mixed,
    Modalities,
    Recipe,
    Resume,
    Seed,
    Set,
    TensorBoard,
    Workers,
    _pair,
    execution,
    modalities,
    recipe_changes,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgepkd.cli.output import JsonTarget
    from edgepkd.pipeline.quantize import QuantizeConfig
    from edgepkd.pipeline.train import StepDone, TrainConfig

train = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                    help="Train trunks, then their exits.")

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run: runs/NAME.")]
Threads = Annotated[int | None, typer.Option(help="Threads of PyTorch.")]
Json = Annotated[str | None, typer.Option(
    metavar="PATH|-", help="Write JSON lines: one for each network.")]


@train.command("backbone")
def backbone(
    run: RunFolder, data: Data = None, dataset: Dataset = None, recipe: Recipe = None,
    changes: Set = None, modality: Modalities = "all",
    init: Annotated[Path | None, typer.Option(
        help="Weights to start from: .safetensors or .pth of torchvision, CoViAR, PKD, or own.",
    )] = None,
    key_map: Annotated[list[str] | None, typer.Option(
        metavar="REGEX=TEXT", help="Rename keys of --init first; may be given again.")] = None,
    seed: Seed = None, resume: Resume = False, force: Force = False,
    cache: Cache = Path("runs/cache"), jobs: Jobs = 2, threads: Threads = None,
    device: Device = "auto", workers: Workers = 0, amp: Mixed = False, compiled: Compile = False,
    tensorboard: TensorBoard = False, json: Json = None,
) -> None:
    """Train the trunk and the last exit of each network."""
    from edgepkd._optional import require
    from edgepkd.cli import output

    require("torch", purpose="Training")
    from edgepkd.pipeline import train as pipeline

    config = pipeline.TrainConfig(
        run=run, data=data, dataset=dataset, recipe=recipe, changes=recipe_changes(changes),
        modalities=modalities(modality), seed=seed, resume=resume, force=force, cache=cache,
        jobs=jobs, threads=threads, execution=execution(device, workers, amp, compiled),
        tensorboard=tensorboard, console=output.stderr())
    pairs = dict(_pair(text, option="--key-map") for text in key_map or ())
    place = json_target(json, config, init)
    _show(pipeline.train_backbones(config, init=init, key_map=pairs or None), place)


@train.command("exits")
def exits(
    run: RunFolder,
    method: Annotated[str | None, typer.Option(
        help="pkd, anticurriculum, iframe or ce; default: the recipe's.")] = None,
    last_teacher: Annotated[str | None, typer.Option(
        help="Of pkd: own (the student's own exit 4) or iframe; default: the recipe's.")] = None,
    online: Annotated[bool, typer.Option(
        "--online", help="Fresh views in every epoch instead of cached features.")] = False,
    features: Annotated[Path, typer.Option(help="Where features are kept.")]
    = Path("runs/features"),
    cache_limit: Annotated[float, typer.Option(help="Size of that folder, GB.")] = 20.0,
    data: Data = None, dataset: Dataset = None, recipe: Recipe = None, changes: Set = None,
    modality: Modalities = "all", seed: Seed = None, resume: Resume = False, force: Force = False,
    cache: Cache = Path("runs/cache"), jobs: Jobs = 2, threads: Threads = None,
    device: Device = "auto", tensorboard: TensorBoard = False, json: Json = None,
) -> None:
    """Train the internal classifiers of each network on its frozen trunk."""
    from edgepkd._optional import require
    from edgepkd.cli import output

    require("torch", purpose="Training")
    from edgepkd.pipeline import train as pipeline
    from edgepkd.training.features import FeatureCache

    config = pipeline.ExitsConfig(
        run=run, data=data, dataset=dataset, recipe=recipe, changes=recipe_changes(changes),
        modalities=modalities(modality), seed=seed, resume=resume, force=force, cache=cache,
        jobs=jobs, threads=threads, execution=execution(device),
        tensorboard=tensorboard, console=output.stderr(), method=method,  # type: ignore[arg-type]
        last_teacher=last_teacher, online=online,  # type: ignore[arg-type]
        features=FeatureCache(features, cache_limit))
    _show(pipeline.train_all_exits(config), json_target(json, config))


def json_target(
    json: str | None, config: TrainConfig | QuantizeConfig, *others: Path | None
) -> JsonTarget:
    """Where --json goes, which is none of the files that training reads or writes.

    Raises:
        UsageError: nothing may be written there.
    """
    from edgepkd.cli import output
    from edgepkd.pipeline.reads import run_read
    from edgepkd.training.runs import files_of

    recipe = config.recipe if (config.recipe or "").endswith(".toml") else None
    folders = [config.run, *([config.out] if hasattr(config, "out") else [])]
    return output.json_target(
        json, force=config.force, writes=[file for one in folders for file in files_of(one)],
        reads=run_read(config.run, config.data, recipe, config.cache, *others))


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
