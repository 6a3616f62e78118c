"""Options and values that the verbs which work on a training run share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgepkd.errors import UsageError

if TYPE_CHECKING:
    from edgepkd.cli.output import JsonTarget
    from edgepkd.pipeline.quantize_config import QuantizeConfig
    from edgepkd.pipeline.train_config import TrainConfig

Data = Annotated[Path | None, typer.Option(
    help="Clips: a folder with an index.csv, as `edgepkd data prepare` writes it, or the index"
         " itself; default: the run's.")]
Recipe = Annotated[str | None, typer.Option(
    help="Recipe of calibration/, or a .toml file; default: the run's, or small.")]
Preset = Annotated[str | None, typer.Option(
    help="Recipe for own data by how long it trains: quick, small or best; the time that each"
         " takes is shown before it starts.")]
Set = Annotated[list[str] | None, typer.Option(
    "--set", metavar="KEY=VALUE", help="Change one value of the recipe, e.g."
    " backbones.mv.epochs=10; may be given again.")]
Modalities = Annotated[str, typer.Option(
    "--modality", help="Networks: mv, residual, iframe, several with commas, or all.")]
Seed = Annotated[int | None, typer.Option(
    help="Seed of all that is random; default: the recipe's.")]
Resume = Annotated[bool, typer.Option(
    "--resume", help="Keep networks that are done, and go on where an interrupted run stopped.")]
Force = Annotated[bool, typer.Option(
    "--force", help="Replace networks and the file of --json that exist already.")]
Jobs = Annotated[int, typer.Option(help="Processes that decode clips.")]
Threads = Annotated[int | None, typer.Option(
    help="CPU threads of PyTorch; default: PyTorch's choice.")]
Device = Annotated[str, typer.Option(
    help="Where to compute: auto (a GPU if there is one), cpu, cuda or cuda:N.")]
Workers = Annotated[int, typer.Option(
    help="Processes that make batches; the batches are the same for any number.")]
Mixed = Annotated[bool, typer.Option("--amp", help="Mixed precision (bfloat16) on a GPU.")]
Compile = Annotated[bool, typer.Option("--compile", help="Use torch.compile on a GPU.")]
TensorBoard = Annotated[bool, typer.Option(
    "--tensorboard", help="Also write TensorBoard event files.")]
Json = Annotated[str | None, typer.Option(
    metavar="PATH|-", help="Write JSON lines: one for each network.")]


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


def is_first() -> bool:
    """Whether this process is the one that speaks, of those that `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def modalities(text: str) -> Any:
    """Networks named by --modality."""
    from edgepkd.config import MODALITIES

    return MODALITIES if text == "all" else tuple(part.strip() for part in text.split(","))


def recipe_of_preset(preset: str | None, recipe: str | None) -> str | None:
    """What --recipe or --preset names.

    Raises:
        UsageError: both are given, or there is no such preset.
    """
    from edgepkd.pipeline.train_config import PRESETS

    if preset is None:
        return recipe
    if recipe is not None:
        raise UsageError(f"--preset {preset} and --recipe {recipe} both name a recipe.",
                         hint="Give one of them; --set changes single values of either.")
    if preset not in PRESETS:
        raise UsageError(f"preset is {preset!r}; allowed: {', '.join(PRESETS)}.")
    return preset


def pair(text: str, *, option: str) -> tuple[str, str]:
    """Key and value of KEY=VALUE, given with `option`.

    Raises:
        UsageError: it is not of this form.
    """
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise UsageError(f"{option} is {text!r}; allowed: KEY=VALUE.")
    return key.strip(), value.strip()


def recipe_changes(texts: list[str] | None) -> dict[str, Any]:
    """Values of a recipe given by --set."""
    from edgepkd.recipes import toml_value

    return {key: toml_value(value)
            for key, value in (pair(text, option="--set") for text in texts or ())}


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
    folders = [config.run, *([out] if (out := getattr(config, "out", None)) else [])]
    return output.json_target(
        json, force=config.force, writes=[file for one in folders for file in files_of(one)],
        reads=run_read(config.run, config.data, recipe, config.cache, *others))
