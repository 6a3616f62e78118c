"""`edgepkd wise`: WISE weights and exit policies from the logits of held-out clips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgepkd.cli import next_steps
from edgepkd.cli.options import Cache
from edgepkd.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from edgepkd.cli.output import JsonLines
    from edgepkd.pipeline.wise import HeldOutRow, OrderFit, WiseFitResult

wise = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None,
    help="Fit how exits are weighed and when to stop.",
)

COLUMNS = ("exit", "weights", "loss", "ensemble", "alone", "plain sum")
NUMBERS = ("loss", "ensemble", "alone", "plain sum")
HELD_OUT = ("up to", "WISE", "plain sums", "best exit so far")
ENDS = ("order", "taken", "loss", "all exits", "cascade")
TAKEN = {"wise": "WISE", "sums": "plain sums", "best": "the best exit so far"}


@wise.callback()
def group() -> None:
    """Fit how exits are weighed (WISE) and when to stop (exit policy)."""


@wise.command()
def fit(
    logits: Annotated[Path, typer.Argument(
        metavar="RUN|FILE", help="Folder of a run: its folds and calibration clips are taken. Or"
        " logits of held-out clips (.npz), as `edgepkd eval` writes them.")],
    out: Annotated[Path | None, typer.Option(
        help="Folder of the run: wise.json, policy.json and wise-fit.json go there; default: RUN.",
    )] = None,
    order: Annotated[str, typer.Option(
        help="Networks in the order they are asked, e.g. mv,residual,iframe, or all: every order of"
             " the networks in the file.")] = "all",
    take: Annotated[str | None, typer.Option(
        help="Weights that are taken: auto (plain sums, unless cross-fitting shows WISE to be"
             " better), wise or sums; default: auto, or wise where --method, --variant, --l1 or"
             " --l2 is given.")] = None,
    method: Annotated[str | None, typer.Option(
        help="How weights are fitted: convex (L-BFGS, to the optimum; the default) or paper (500"
             " steps of SGD).")] = None,
    l1: Annotated[float | None, typer.Option(
        help="Strength of the L1 penalty on weights; method convex only; default: 0.")] = None,
    l2: Annotated[float | None, typer.Option(
        help="Strength of the L2 penalty on weights; method convex only; default: several, or"
             " 0.01 where another option of the fit is given.")] = None,
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
    cache: Cache = Path("runs/cache"),
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
        allow_test=allow_test, force=force, cache=cache,
        take=take,  # type: ignore[arg-type]
    )
    place = output.json_target(json, force=force, reads=run_read(config.folder, logits),
                               writes=config.files)
    with output.JsonLines(place) as lines:
        result = fit_wise_file(config)
        _write_lines(lines, result)
    for note in result.notes:
        output.note(f"note: {note}")
    if json != "-":
        _show(output.stdout(), result)
    if (config.folder / "run.json").exists():
        output.next_step(next_steps.after_wise_fit(config.folder))


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
            **fitted.facts,
        })
    lines.write("wise_fit", {**result.facts, "out": str(result.out), "notes": result.notes})


def _show(console: Console, result: WiseFitResult) -> None:
    """The first order in full; with several, one line for the end of each."""
    from edgepkd.cli import output

    first = result.orders[0]
    console.print(f"rests on {result.rests_on}", soft_wrap=True, markup=False)
    console.print(f"order {','.join(first.order)}: {counted(result.num_clips, 'clip')}, the same"
                  " that the weights were fitted on")
    console.print(output.table(COLUMNS, _rows(first), right=NUMBERS, whole=["exit"]))
    console.print("cross-fitted, on clips held out from the weights: accuracy, loss")
    console.print(output.table(HELD_OUT, [_held_out(row) for row in first.held_out],
                               right=HELD_OUT[1:], whole=HELD_OUT))
    console.print(f"taken: {TAKEN[first.choice.taken.kind]} ({first.choice.why})", markup=False)
    if len(result.orders) > 1:
        console.print("the full chain of each order, cross-fitted")
        console.print(output.table(ENDS, [_end(fitted) for fitted in result.orders],
                                   right=ENDS[2:], whole=["order"]))
    console.print(f"written: {result.out}/wise.json, policy.json, wise-fit.json")


def _held_out(row: HeldOutRow) -> tuple[str, ...]:
    scores = (row.scores.get(kind) for kind in ("wise", "sums", "best"))
    return (row.position, *(f"{100 * score.accuracy:.1f} %, {score.loss:.3f}" if score else "-"
                            for score in scores))


def _end(fitted: OrderFit) -> tuple[str, ...]:
    kind = fitted.choice.taken.kind
    last = fitted.held_out[-1].scores[kind]
    return (",".join(fitted.order), TAKEN[kind], f"{last.loss:.4f}", f"{100 * last.accuracy:.1f} %",
            f"{100 * fitted.trial.right.mean():.1f} %")


def _rows(fitted: OrderFit) -> list[tuple[str, ...]]:
    return [
        (row.position, " ".join(f"{weight:.3g}" for weight in row.weights), f"{row.loss:.4f}",
         *(f"{100 * accuracy.value:.1f} %"
           for accuracy in (row.ensemble, row.alone, row.plain_sum)))
        for row in fitted.rows
    ]
