"""`edgepkd quantize`: a trained run to INT8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgepkd.cli.options import Cache, Dataset
from edgepkd.cli.training_options import (
    Device,
    Jobs,
    Json,
    Resume,
    Set,
    TensorBoard,
    Threads,
    execution,
    json_target,
    modalities,
    recipe_changes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from edgepkd.cli.output import JsonLines
    from edgepkd.pipeline.quantize_config import QuantDone, QuantizeConfig

SHOWN_LAYERS = 5
"""Worst layers of each network that --sensitivity prints."""


def quantize(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    method: Annotated[str, typer.Option(
        help="Method: ptq (ranges are only measured), qat (the network is then fine-tuned on"
             " labels) or qad (it is fine-tuned by distillation).")] = "qad",
    recipe: Annotated[str, typer.Option(help="Recipe of calibration/, or a .toml file.")] = "int8",
    changes: Set = None,
    modality: Annotated[str, typer.Option(
        help="Networks: mv, residual, iframe, several with commas, or all that the run has.",
    )] = "all",
    calibrator: Annotated[str | None, typer.Option(
        help="How ranges are found: max, percentile, entropy or mse; default: the recipe's.",
    )] = None,
    calib_clips: Annotated[int | None, typer.Option(
        help="Number of training clips that ranges are measured on; default: the recipe's.",
    )] = None,
    sensitivity: Annotated[bool, typer.Option(
        "--sensitivity", help="Also measure what each layer alone loses in INT8, and name those"
        " that are better left in float.")] = False,
    data: Annotated[Path | None, typer.Option(
        help="Other clips to calibrate and fine-tune on: a folder with an index.csv, or the index"
             " itself; default: the run's.")] = None,
    dataset: Dataset = None,
    seed: Annotated[int | None, typer.Option(
        help="Seed of all that is random; default: the run's.")] = None,
    resume: Resume = False,
    force: Annotated[bool, typer.Option(
        "--force", help="Replace networks and the file of --json that exist already; includes"
                        " --force-few.")] = False,
    force_few: Annotated[bool, typer.Option(
        "--force-few", help="Accept fewer calibration clips than the recipe asks for.")] = False,
    cache: Cache = Path("runs/cache"), jobs: Jobs = 2, threads: Threads = None,
    device: Device = "auto", tensorboard: TensorBoard = False, json: Json = None,
    folds: Annotated[bool, typer.Option(
        "--folds/--no-folds", help="Also quantise the folds of the run, where `train folds` made"
        " them, so that `wise fit` can rest on them.", show_default=False)] = True,
) -> None:
    """Make the INT8 networks of a run.

    The result, RUN/int8-METHOD, is a run again: `eval`, `wise fit` and `export` take it.
    """
    from edgepkd._optional import require
    from edgepkd.cli import output

    require("torch", purpose="Quantising")
    from edgepkd.pipeline import quantize as pipeline
    from edgepkd.pipeline.quantize_config import QuantizeConfig

    config = QuantizeConfig(
        run=run, method=method, recipe=recipe,  # type: ignore[arg-type]
        changes=recipe_changes(changes),
        modalities=None if modality == "all" else modalities(modality),
        calibrator=calibrator, calibration_clips=calib_clips,  # type: ignore[arg-type]
        data=data, dataset=dataset, seed=seed, resume=resume, force=force, force_few=force_few,
        cache=cache, jobs=jobs, threads=threads, execution=execution(device),
        sensitivity=sensitivity, tensorboard=tensorboard, console=output.stderr())
    place = json_target(json, config)
    finished = []
    with output.JsonLines(place) as lines:
        for done in pipeline.quantize(config):
            lines.write("network", _facts(done))
            finished.append(done)
        if folds:
            _quantize_folds(config, lines)
    if json != "-":
        _show(output.stdout(), finished)


def _quantize_folds(config: QuantizeConfig, lines: JsonLines) -> None:
    from edgepkd.cli import output
    from edgepkd.pipeline.folds import FoldsDone, quantize_folds

    for done in quantize_folds(config):
        if isinstance(done, FoldsDone):
            output.note(f"{done.num_clips} clips of {done.num_groups} groups answered by the folds:"
                        f" {done.path}")
        else:
            lines.write("network", _facts(done))


def _facts(done: QuantDone) -> dict[str, object]:
    from dataclasses import asdict

    facts = {**asdict(done), "path": str(done.path)}
    if not done.sensitivity:
        del facts["sensitivity"]
    return facts


def _show(console: Console, finished: Sequence[QuantDone]) -> None:
    from edgepkd.cli import output

    rows = [(done.modality, done.method, _number(done.values.get("loss")),
             _number(done.values.get("loss_calibration")),
             ", ".join(f"{100 * value:.1f}" for name, value in done.values.items()
                       if name.startswith("accuracy_calibration")),
             "kept" if done.kept else f"{done.seconds:.0f}", str(done.path)) for done in finished]
    columns = ("network", "method", "loss", "calibration loss", "calibration %", "s", "file")
    console.print(output.table(columns, rows, right=["loss", "calibration loss", "s"]))
    for done in finished:
        if done.sensitivity:
            _show_sensitivity(console, done)


def _show_sensitivity(console: Console, done: QuantDone) -> None:
    from edgepkd.cli import output
    from edgepkd.quantize.sensitivity import MIN_SQNR_DB, keep_float_option, worth_float

    columns = (f"{done.modality}: worst layers alone", "worst exit", "SQNR there, dB",
               "KL at exit 4")
    console.print(output.table(columns, [
        (one.layer, str(one.worst_exit), f"{one.worst_sqnr_db:.1f}", f"{one.kl_last:.2g}")
        for one in done.sensitivity[:SHOWN_LAYERS]], right=columns[1:]))
    floats = worth_float(done.sensitivity)
    console.print(f"below {MIN_SQNR_DB:g} dB: {keep_float_option(floats)}" if floats
                  else f"no layer is below {MIN_SQNR_DB:g} dB", soft_wrap=True)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
