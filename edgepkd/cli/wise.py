"""`edgepkd wise`: WISE weights and exit policies from the logits of held-out clips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgepkd.cli import next_steps
from edgepkd.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from edgepkd.cli.output import JsonLines
    from edgepkd.pipeline.wise import OrderFit, WiseFitResult

wise = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="Fit how exits are weighed and when to stop.",
)

COLUMNS = ("exit", "weights", "loss", "ensemble", "alone", "plain sum")
NUMBERS = ("loss", "ensemble", "alone", "plain sum")


@wise.callback()
def group() -> None:
    """Fit how exits are weighed (WISE) and when to stop (exit policy)."""


@wise.command()
def fit(
    logits: Annotated[Path, typer.Argument(
        help="Logits of held-out clips (.npz), as `edgepkd eval` writes them.")],
    out: Annotated[Path, typer.Option(
        help="Folder of the run: wise.json, policy.json and wise-fit.json go there.")],
    order: Annotated[str, typer.Option(
        help="Networks in the order they are asked, e.g. mv,residual,iframe, or all: every order of"
             " the networks in the file.")] = "all",
    method: Annotated[str, typer.Option(
        help="How weights are fitted: convex (L-BFGS, to the optimum) or paper (500 steps of"
             " SGD).")] = "convex",
    l1: Annotated[float | None, typer.Option(
        help="Strength of the L1 penalty on weights; method convex only; default: 0.")] = None,
    l2: Annotated[float | None, typer.Option(
        help="Strength of the L2 penalty on weights; method convex only; default: 0.01.")] = None,
    allow_negative: Annotated[bool | None, typer.Option(
        "--allow-negative/--non-negative",
        help="Whether weights may be below 0; method convex only; default: they may not.",
        show_default=False)] = None,
    variant: Annotated[str, typer.Option(
        help="WISE in full, or changed in one part to compare: no-scaling (plain sums), no-lateral"
             " (each exit alone), division (sums divided by the number of exits).")] = "full",
    policy: Annotated[bool, typer.Option(
        help="Fit a temperature and a threshold for each exit; without, the cascade never stops"
             " early.")] = True,
    accuracy_loss: Annotated[float, typer.Option(
        help="Accuracy that early exits may lose on these clips; 0.01 is one percentage"
             " point.")] = 0.01,
    min_confidence: Annotated[float, typer.Option(
        help="Lowest threshold that an exit may get.")] = 0.8,
    safety_clips: Annotated[int, typer.Option(
        help="Safety margin: where --accuracy-loss limits an exit, it answers this many clips"
             " fewer.")] = 2,
    allow_test: Annotated[bool, typer.Option(
        "--allow-test", help="Accept logits of the test split, which are refused otherwise.",
    )] = False,
    json: Annotated[str | None, typer.Option(
        metavar="PATH|-", help="Write JSON lines: one for each order, then a summary.")] = None,
    force: Annotated[bool, typer.Option(
        "--force", help="Replace files of --out and --json that exist already.")] = False,
) -> None:
    """Fit WISE weights and an exit policy.

    They are fitted on stored logits, for one order of the networks or for all.
    """
    from edgepkd.cli import output
    from edgepkd.pipeline.reads import run_read
    from edgepkd.pipeline.wise import WiseFitConfig, fit_wise_file

    config = WiseFitConfig(
        logits=logits, out=out, order=order, l1=l1, l2=l2, policy=policy,
        method=method, variant=variant,  # type: ignore[arg-type]
        non_negative=None if allow_negative is None else not allow_negative,
        accuracy_loss=accuracy_loss, min_confidence=min_confidence, safety_clips=safety_clips,
        allow_test=allow_test, force=force,
    )
    place = output.json_target(json, force=force, reads=run_read(out, logits),
                               writes=config.files)
    with output.JsonLines(place) as lines:
        result = fit_wise_file(config)
        _write_lines(lines, result)
    for note in result.notes:
        output.note(f"note: {note}")
    if json != "-":
        _show(output.stdout(), result)
    if (out / "run.json").exists():
        output.next_step(next_steps.after_wise_fit(out))


def _write_lines(lines: JsonLines, result: WiseFitResult) -> None:
    from dataclasses import asdict

    for fitted in result.orders:
        lines.write("wise_order", {
            "order": ",".join(fitted.order),
            "temperatures": fitted.policy.temperatures, "thresholds": fitted.policy.thresholds,
            "positions": [
                {**asdict(row), **{name: getattr(row, name).value
                                   for name in ("ensemble", "alone", "plain_sum")}}
                for row in fitted.rows
            ],
        })
    lines.write("wise_fit", {**result.facts, "out": str(result.out), "notes": result.notes})


def _show(console: Console, result: WiseFitResult) -> None:
    """The first order in full; with several, one line for the end of each."""
    from edgepkd.cli import output

    first = result.orders[0]
    console.print(f"order {','.join(first.order)}: {counted(result.num_clips, 'clip')}, the same"
                  " that the weights were fitted on")
    console.print(output.table(COLUMNS, _rows(first), right=NUMBERS, whole=["exit"]))
    if len(result.orders) > 1:
        ends = [(",".join(fitted.order), *_rows(fitted)[-1][2:]) for fitted in result.orders]
        console.print("the full chain of each order")
        console.print(output.table(("order", *COLUMNS[2:]), ends, right=NUMBERS, whole=["order"]))
    console.print(f"written: {result.out}/wise.json, policy.json, wise-fit.json")


def _rows(fitted: OrderFit) -> list[tuple[str, ...]]:
    return [
        (row.position, " ".join(f"{weight:.3g}" for weight in row.weights), f"{row.loss:.4f}",
         *(f"{100 * accuracy.value:.1f} %"
           for accuracy in (row.ensemble, row.alone, row.plain_sum)))
        for row in fitted.rows
    ]
