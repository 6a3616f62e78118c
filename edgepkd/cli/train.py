"""`edgepkd train backbone` and `train exits`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgepkd.cli import next_steps
from edgepkd.cli.options import Cache, CacheGb, Dataset
from edgepkd.cli.training_options import (
    Compile,
    Data,
    Device,
    Force,
    Jobs,
    Json,
    Mixed,
    Modalities,
    Preset,
    Recipe,
    Resume,
    Seed,
    Set,
    TensorBoard,
    Threads,
    Workers,
    execution,
    is_first,
    json_target,
    modalities,
    pair,
    recipe_changes,
    recipe_of_preset,
)
from edgepkd.config import MODALITIES

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgepkd.cli.output import JsonTarget
    from edgepkd.pipeline.train_config import StepDone

train = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                    help="Train networks: first the trunks, then their exits.")

RunFolder = Annotated[Path, typer.Argument(
    metavar="RUN", help="Folder of the run, e.g. runs/NAME.")]


@train.command("backbone")
def backbone(
    run: RunFolder, data: Data = None, dataset: Dataset = None, preset: Preset = None,
    recipe: Recipe = None, changes: Set = None, modality: Modalities = "all",
    init: Annotated[Path | None, typer.Option(
        help="Weights to start from (.safetensors or .pth), of torchvision, CoViAR, PKD or"
             " edgepkd.")] = None,
    key_map: Annotated[list[str] | None, typer.Option(
        metavar="REGEX=TEXT", help="Rename keys in the file of --init; may be given again.",
    )] = None,
    seed: Seed = None, resume: Resume = False, force: Force = False,
    cache: Cache = Path("runs/cache"), cache_gb: CacheGb = 20.0, jobs: Jobs = 2,
    threads: Threads = None,
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
        run=run, data=data, dataset=dataset, recipe=recipe_of_preset(preset, recipe),
        changes=recipe_changes(changes),
        modalities=modalities(modality), seed=seed, resume=resume, force=force, cache=cache,
        cache_gb=cache_gb,
        jobs=jobs, threads=threads, execution=execution(device, workers, amp, compiled),
        tensorboard=tensorboard, console=output.stderr())
    pairs = dict(pair(text, option="--key-map") for text in key_map or ())
    place = json_target(json, config, init)
    _show(train_backbones(config, init=init, key_map=pairs or None), place)
    trunks = [m for m in MODALITIES if Path(f"{run / m}-trunk.json").exists()]
    output.next_step(next_steps.after_backbone(run, trunks, cache=cache), quiet=not is_first())


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
    out: Annotated[Path | None, typer.Option(
        help="Folder of another run, e.g. runs/mine-ce: the exits go there, with copies of the"
             " trunks; default: RUN itself.")] = None,
    online: Annotated[bool, typer.Option(
        "--online", help="Draw new views in every epoch (slow) instead of reading cached"
        " features.")] = False,
    features: Annotated[Path, typer.Option(help="Folder where features are kept.")]
    = Path("runs/features"),
    data: Data = None, dataset: Dataset = None, recipe: Recipe = None, changes: Set = None,
    modality: Modalities = "all", seed: Seed = None, resume: Resume = False, force: Force = False,
    cache: Cache = Path("runs/cache"), cache_gb: CacheGb = 20.0, jobs: Jobs = 2,
    threads: Threads = None,
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
        cache_gb=cache_gb,
        jobs=jobs, threads=threads, execution=execution(device),
        tensorboard=tensorboard, console=output.stderr(), method=method,  # type: ignore[arg-type]
        last_teacher=last_teacher, online=online, out=out,  # type: ignore[arg-type]
        features=FeatureCache(features, cache_gb))
    _show(train_all_exits(config), json_target(json, config))
    trained = [m for m in MODALITIES if (run / f"{m}.json").exists()]
    output.next_step(next_steps.after_exits(run, trained, cache=cache), quiet=not is_first())


def _show(steps: Iterator[StepDone], json: JsonTarget) -> None:
    from dataclasses import asdict

    from edgepkd.cli import output

    rows = []
    notes: list[str] = []
    with output.JsonLines(json) as lines:
        for done in steps:
            lines.write("network", {**asdict(done), "path": str(done.path)})
            notes += done.notes
            accuracies = [f"{100 * value:.1f}" for name, value in done.values.items()
                          if name.startswith("accuracy_calibration")]
            rows.append((done.modality, done.step, f"{done.values['loss']:.3f}",
                         ", ".join(accuracies) or "-",
                         "kept" if done.kept else f"{done.seconds:.0f}", str(done.path)))
    if json != output.STDOUT and rows:
        columns = ("network", "step", "loss", "calibration %", "s", "file")
        output.print_table(output.stdout(), columns, rows, paths=["file"], right=["loss", "s"])
    for note in notes:
        output.note(f"warning: {note}")
