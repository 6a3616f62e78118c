"""Options and values that verbs of training share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from edgepkd.errors import UsageError

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

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Workers = Annotated[int, typer.Option(help="Processes that make batches (same batches).")]
Mixed = Annotated[bool, typer.Option("--amp", help="Mixed precision (bfloat16) on a GPU.")]
Compile = Annotated[bool, typer.Option("--compile", help="torch.compile on a GPU.")]
TensorBoard = Annotated[bool, typer.Option(
    "--tensorboard", help="TensorBoard event files beside the CSV.")]


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
