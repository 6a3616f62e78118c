"""`edgepkd train backbone` and `train exits`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgepkd.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgepkd.cli.output import JsonTarget
    from edgepkd.pipeline.quantize import QuantizeConfig
    from edgepkd.pipeline.train import StepDone, TrainConfig

train = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                    help="Train trunks, then their exits.")

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of the run: runs/NAME.")]
Data = Annotated[Path | None, typer.Option(
    help="Folder with an index.csv, as `edgepkd data prepare` writes it, or the index; default:"
         " the run's.")]
Dataset = Annotated[str | None, typer.Option(
    help="Rows of the index with this value in column dataset.")]
Recipe = Annotated[str | None, typer.Option(
    help="Recipe of calibration/, or a .toml file; default: the run's, or small.")]
Set = Annotated[list[str] | None, typer.Option(
    "--set", metavar="KEY=VALUE", help="Change one value of the recipe, e.g."
    " backbones.mv.epochs=10; may be given again.")]
Modalities = Annotated[str, typer.Option(
    "--modality", help="mv, residual, iframe, several with commas, or all.")]
Seed = Annotated[int | None, typer.Option(help="Seed; default: the recipe's.")]
Resume = Annotated[bool, typer.Option(
    "--resume", help="Keep what is done, and go on after a kill.")]
Force = Annotated[bool, typer.Option(
    "--force", help="Replace networks that are there, and the file of --json.")]
Cache = Annotated[Path, typer.Option(help="Where decoded clips are kept.")]
Jobs = Annotated[int, typer.Option(help="Processes that decode.")]
Threads = Annotated[int | None, typer.Option(help="Threads of PyTorch.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Workers = Annotated[int, typer.Option(help="Processes that make batches (same batches).")]
Mixed = Annotated[bool, typer.Option("--amp", help="Mixed precision (bfloat16) on a GPU.")]
Compile = Annotated[bool, typer.Option("--compile", help="torch.compile on a GPU.")]
TensorBoard = Annotated[bool, typer.Option(
    "--tensorboard", help="TensorBoard event files beside the CSV.")]
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


def execution(
    device: str, workers: int = 0, amp: bool = False, compiled: bool = False
) -> Any:
    """Where to compute: --device and what goes with it."""
    from edgepkd.training.execution import Execution, auto_device, gpu_of_rank

    if device == "auto":
        device = auto_device()
    elif device == "cuda":
        device = gpu_of_rank()
    return Execution(device=device, workers=workers, mixed_precision=amp, compile=compiled)


def modalities(text: str) -> Any:
    """Networks named by --modality."""
    from edgepkd.config import MODALITIES

    return MODALITIES if text == "all" else tuple(part.strip() for part in text.split(","))


def _pair(text: str, *, option: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise UsageError(f"{option} is {text!r}; allowed: KEY=VALUE.")
    return key.strip(), value.strip()


def recipe_changes(texts: list[str] | None) -> dict[str, Any]:
    """Values of a recipe given by --set."""
    from edgepkd.recipes import toml_value

    return {key: toml_value(value)
            for key, value in (_pair(text, option="--set") for text in texts or ())}
