"""`edgepkd eval`: what the networks of a training run are worth on labelled clips."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from edgepkd.cli import next_steps
from edgepkd.cli.options import Cache, CacheGb, Dataset, Quiet
from edgepkd.cli.training_options import Data, Device, Threads
from edgepkd.errors import UsageError
from edgepkd.text import counted

if TYPE_CHECKING:
    from rich.console import Console

    from edgepkd.config import Modality
    from edgepkd.logits.evaluate import Score
    from edgepkd.pipeline.evaluate import EvalResult

KINDS = {"exit": "alone", "modality": "one network", "prefix": "up to here", "cascade": "cascade"}
COLUMNS = ("", "answer", "weights", "top-1", "top-5", "ECE", "NLL", "GMAC/clip", "share")
WIDE_ONLY = ("weights", "top-5", "NLL")


def evaluate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a trained run.")],
    data: Data = None, dataset: Dataset = None,
    split: Annotated[str, typer.Option(
        help="Clips of the index: test, calibration or train.")] = "test",
    views: Annotated[str, typer.Option(
        help="Crops of each frame: centre (one) or 10crop.")] = "centre",
    segments: Annotated[str | None, typer.Option(
        help="Frames of each clip that a network sees, e.g. mv=8,residual=6; default: the"
             " recipe's.")] = None,
    order: Annotated[str | None, typer.Option(
        help="Networks in the order they are asked, e.g. mv,residual,iframe; default: the"
             " recipe's.")] = None,
    out: Annotated[Path | None, typer.Option(
        help="Folder for the results; default: RUN/eval/SPLIT-VIEWS.")] = None,
    cache: Cache = Path("runs/cache"), cache_gb: CacheGb = 20.0,
    flatness: Annotated[bool, typer.Option(
        "--flatness", help="Also measure how flat the training loss is around the weights.",
    )] = False,
    flatness_clips: Annotated[int, typer.Option(
        help="Number of training clips for --flatness.")] = 24,
    flatness_probes: Annotated[int, typer.Option(
        help="Random vectors that estimate the trace of the Hessian, for --flatness.")] = 16,
    epsilon: Annotated[float, typer.Option(
        help="Size of the box around the weights that --flatness searches for the largest"
             " loss.")] = 1e-4,
    device: Device = "auto", threads: Threads = None,
    json: Annotated[str | None, typer.Option(
        metavar="PATH|-", help="Write what metrics.json holds as one JSON line.")] = None,
    force: Annotated[bool, typer.Option(
        "--force", help="Replace files of --out and --json that exist already.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure the accuracy of a run on labelled clips.

    Scores each exit alone, all exits up to each, each network, and the cascade with early exits.
    """
    from edgepkd.bars import Steps
    from edgepkd.cli import output
    from edgepkd.pipeline.eval_log import LOG_FILE
    from edgepkd.pipeline.evaluate import EvalConfig, read_facts
    from edgepkd.pipeline.evaluate import evaluate as run_eval
    from edgepkd.pipeline.flatness import FlatnessConfig
    from edgepkd.pipeline.reads import run_read

    config = EvalConfig(
        run=run, data=data, dataset=dataset, segments=parse_segments(segments), order=order,
        split=split, views=views,  # type: ignore[arg-type]
        out=out, force=force, cache=cache, cache_gb=cache_gb, device=device, threads=threads,
        flatness=FlatnessConfig(num_clips=flatness_clips, num_probes=flatness_probes,
                                epsilon=epsilon) if flatness else None,
    )
    place = output.json_target(json, force=force, reads=run_read(run, data, cache),
                               writes=[*config.files, run / LOG_FILE])
    with output.JsonLines(place) as lines, Steps(output.stderr(), quiet=quiet) as steps:
        result = run_eval(config, on_progress=steps.update)
        lines.write("eval", read_facts(result))
    if json != "-":
        _show(output.stdout(), result)
    for note in () if quiet else result.notes:
        output.note(f"note: {note}")
    output.note_cache(cache, limit_gb=cache_gb, quiet=quiet)
    int8 = sorted(path.parent for path in run.glob("int8-*/quantize.json"))
    output.next_step(next_steps.after_eval(
        run, split=split, is_fitted=bool(result.run.fitted),
        is_quantized=result.run.is_quantized, int8=int8[-1] if int8 else None, cache=cache),
        quiet=quiet)


def parse_segments(text: str | None) -> dict[Modality, int] | None:
    """Numbers of temporal segments written as `mv=8,residual=6`.

    Raises:
        UsageError: not of this form, or a modality twice.
    """
    if text is None:
        return None
    pairs = [part.strip().partition("=") for part in text.split(",")]
    names = [name for name, _, _ in pairs]
    if not all(count.isdecimal() for _, _, count in pairs) or len(set(names)) != len(names):
        raise UsageError(f"segments is {text!r}; allowed: MODALITY=NUMBER, each modality at most"
                         " once, separated by commas.", hint="Example: --segments mv=8,residual=6")
    return {cast("Modality", name): int(count) for name, _, count in pairs}


def _show(console: Console, result: EvalResult) -> None:
    from edgepkd.cli import output
    from edgepkd.datasets.no_look import HOW_TO_READ

    answered, evaluation = result.predicted.answered, result.evaluation
    groups = evaluation.scores[0].top1.num_groups
    console.print(f"{answered.split} split: {counted(len(answered), 'clip')} of"
                  f" {counted(groups, 'group')};"
                  f" views: {answered.views}")
    console.print(f"floor (most frequent label) {100 * result.floor:.1f} %; 95 % intervals over"
                  f" groups; order {','.join(evaluation.order)}")
    if result.no_look:
        console.print(f"{result.no_look.in_words()}; {HOW_TO_READ}", soft_wrap=True)
    narrow = console.width < output.NARROW
    kept = [i for i, name in enumerate(COLUMNS) if not (narrow and name in WIDE_ONLY)]
    console.print(output.table(
        [COLUMNS[i] for i in kept],
        [[_row(score)[i] for i in kept] for score in evaluation.scores],
        right=COLUMNS[3:], whole=COLUMNS[1:2]))
    console.print(output.table(("difference of top-1, points", "", "95 %"), [
        (d.name, f"{100 * d.of.value:+.1f}", f"[{100 * d.of.low:+.1f}, {100 * d.of.high:+.1f}]")
        for d in evaluation.differences], right=("", "95 %")))
    if result.flatness:
        _show_flatness(console, result)
    if answered.split == "test":
        console.print(f"look {result.num_looks} at the test split with this run")
    console.print(f"written: {result.out}/metrics.json, exits.csv, confusion.csv, logits.npz")


def _row(score: Score) -> tuple[str, ...]:
    return (KINDS[score.kind], score.name, score.weights, str(score.top1),
            "-" if score.top5 is None else f"{100 * score.top5:.1f} %", f"{score.ece:.3f}",
            f"{score.nll:.3f}", f"{score.gmac:.3f}",
            "" if score.share is None else f"{100 * score.share:.0f} %")


def _show_flatness(console: Console, result: EvalResult) -> None:
    from edgepkd.cli import output

    columns = ("flatness (training loss)", "loss", "Hessian trace", "per weight", "relative trace",
               "sharpness, %", "seconds")
    console.print(output.table(columns, [
        (name, f"{flat.trace.loss:.3f}", _plus_minus(flat.trace.mean, flat.trace.standard_error),
         f"{flat.trace.per_parameter:.2e}",
         _plus_minus(flat.trace.relative_mean, flat.trace.relative_standard_error),
         f"{flat.sharpness.value:.2f}", f"{flat.seconds:.0f}")
        for name, flat in result.flatness.items()], right=columns[1:], whole=columns[:1]))


def _plus_minus(value: float, error: float) -> str:
    """A value and its standard error."""
    return f"{value:.4g} ± {error:.2g}"
