"""`edgepkd data`: prepare, verify, synth and cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgepkd.cli import next_steps, options
from edgepkd.cli.data_cache import cache
from edgepkd.text import counted
from edgepkd.video.limits import limits_of

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

    from rich.progress import Progress

    from edgepkd.cli.output import JsonTarget
    from edgepkd.datasets.splits import Shares
    from edgepkd.pipeline.data import DataEvent, DataSummary
    from edgepkd.pipeline.verify import ClipVerified, VerifyReport, VerifyStarted

SHOWN_FAILURES = 20
SHOWN_SKIPPED = 3
"""Names for each reason."""

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None,
                       help="Prepare, make or check sets of labelled clips.")
data_app.command("cache")(cache)

Jobs = Annotated[int | None, typer.Option(
    help="Processes that work at once; default: one for each core.")]
TestShare = Annotated[float, typer.Option(
    help="Share of the clips that becomes the test split, where no split is given.")]
CalibrationShare = Annotated[float | None, typer.Option(
    help="Share of the other clips that becomes the calibration split, where none is given;"
         " default: 0.2, and none of a set with few clips or groups.")]
Seed = Annotated[int, typer.Option(help="Seed of all that is drawn, such as the splits.")]


@data_app.command()
def prepare(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder of the data set.")],
    folder: Annotated[Path, typer.Argument(
        metavar="DST", help="Folder for the prepared set: a new one, or that of an interrupted run,"
        " which is then continued.")],
    layout: Annotated[str, typer.Option(
        help="How SRC lists its clips: folder (CLASS/clip), csv (an index), ucf101, hmdb51, or"
             " auto.")] = "auto",
    index: Annotated[Path | None, typer.Option(
        help="CSV with columns path (relative to SRC), label and, if known, group and split;"
             " other usual names, such as video and class, will do; default: SRC/index.csv.",
    )] = None,
    dataset: options.Dataset = None,
    split_files: Annotated[Path | None, typer.Option(
        help="Folder of the official split files; default: looked for in and beside SRC.")] = None,
    split: Annotated[int, typer.Option(help="Which of the three official splits: 1, 2 or 3.")] = 1,
    partial: Annotated[bool, typer.Option(
        "--partial", help="Accept an official set of which clips are missing.")] = False,
    group_pattern: Annotated[str | None, typer.Option(
        metavar="REGEX", help="A pattern for the file name without suffix, whose first (...) is the"
        " clip's group, such as a person or a recording: one split gets all of it; for folders, and"
        " for an index without groups; default: each file is a group.")] = None,
    test_share: TestShare = 0.2,
    calibration_share: CalibrationShare = None,
    seed: Seed = 0,
    jobs: Jobs = None,
    ray: Annotated[str | None, typer.Option(
        metavar="ADDRESS", help="Work on this Ray cluster, or on one that is started here"
        " (local).")] = None,
    max_failures: Annotated[float, typer.Option(
        help="Largest share of the clips that may fail and be left out.")] = 0.1,
    fps: options.Fps = None,
    limit: options.Limit = None,
    allow_playlists: options.AllowPlaylists = False,
    json: options.Json = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a set to train on from videos.

    Clips are brought to the one form that networks are trained on, cut into splits, and listed in
    an index with checksums.
    """
    from edgepkd.cli import output
    from edgepkd.datasets.layouts import SourceSpec
    from edgepkd.machine.hardware import num_cores
    from edgepkd.pipeline import prepare as verb
    from edgepkd.pipeline.data import files_of

    spec = SourceSpec(
        folder=source, layout=layout,  # type: ignore[arg-type]
        index=index, dataset=dataset, split_files=split_files, split=split, partial=partial,
        group_pattern=group_pattern)
    config = verb.PrepareConfig(
        spec, folder, _shares(test_share, calibration_share, seed),
        jobs=num_cores() if jobs is None else jobs, ray=ray, max_failures=max_failures,
        fps=fps, limits=limits_of(limit or (), playlists=allow_playlists))
    place = output.json_target(
        json, force=force, reads=[one for one in (source, index, split_files) if one],
        writes=files_of(folder))
    _show(verb.prepare(config), json_to=place, quiet=quiet)
    output.next_step(next_steps.after_data(folder), quiet=quiet)


def _shares(test: float, calibration: float | None, seed: int) -> Shares:
    """A share of calibration clips that is named is drawn, however few they are."""
    from edgepkd.datasets.splits import Shares

    if calibration is None:
        return Shares(test, seed=seed)
    return Shares(test, calibration, seed, always=True)


@data_app.command()
def synth(
    folder: Annotated[Path, typer.Argument(metavar="DST", help="Folder for the set.")],
    classes: Annotated[int, typer.Option(help="Number of motions, each one a label, 2 to 8.")] = 4,
    clips: Annotated[int, typer.Option(help="Number of clips in all.")] = 48,
    clip_frames: Annotated[int, typer.Option(help="Number of frames in each clip.")] = 36,
    test_share: TestShare = 0.2,
    calibration_share: CalibrationShare = None,
    seed: Seed = 0,
    json: options.Json = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Make a small set of moving shapes, to try things on."""
    from edgepkd.cli import output
    from edgepkd.pipeline import synth as verb
    from edgepkd.pipeline.data import files_of

    config = verb.SynthConfig(folder, classes, clips, clip_frames, seed,
                              _shares(test_share, calibration_share, seed))
    place = output.json_target(json, force=force, writes=files_of(folder))
    _show(verb.synth(config), json_to=place, quiet=quiet)
    output.next_step(next_steps.after_data(folder), quiet=quiet)


@data_app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="SET", help="Folder with an index.csv.")],
    decode: Annotated[bool, typer.Option(
        "--decode", help="Also decode every frame of every clip.")] = False,
    limit: options.Limit = None,
    jobs: Jobs = None,
    json: options.Json = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Check that a set is whole and its splits are honest.

    Looks at files, checksums and splits; exit code 1 if anything is wrong.
    """
    from edgepkd.cli import output
    from edgepkd.machine.hardware import num_cores
    from edgepkd.pipeline import verify as verb

    config = verb.VerifyConfig(folder, decode, num_cores() if jobs is None else jobs,
                               limits_of(limit or ()))
    place = output.json_target(json, force=force, reads=[folder])
    report = _show_verify(verb.verify(config), json_to=place, quiet=quiet)
    if report.problems:
        raise typer.Exit(1)
    output.next_step(next_steps.after_data(folder), quiet=quiet)


def _show(
    events: Generator[DataEvent, None, None], *, json_to: JsonTarget, quiet: bool
) -> None:
    from contextlib import closing
    from dataclasses import asdict

    from edgepkd.cli import output
    from edgepkd.pipeline import data

    console = output.stderr()
    with output.JsonLines(json_to) as lines, closing(events), _bar(quiet) as bar:
        task = bar.add_task("clips")
        for event in events:
            if isinstance(event, data.DataStarted):
                bar.update(task, total=event.num_clips)
                if not quiet:
                    console.print(f"{event.layout}: {counted(event.num_clips, 'clip')}, "
                                  f"{counted(event.num_labels, 'label')}")
                    for note in (*event.notes, *_skipped(event.skipped)):
                        console.print(f"note: {note}")
            elif isinstance(event, data.ClipPrepared):
                bar.advance(task)
                lines.write("clip", asdict(event))
            else:
                lines.write("summary", {**asdict(event), "folder": str(event.folder)})
                summary = event
    if not quiet:
        _show_failures(summary)
    if json_to != output.STDOUT:
        _show_summary(summary)


def _show_failures(summary: DataSummary) -> None:
    from edgepkd.cli import output

    console = output.stderr()
    for source, reason in summary.failures[:SHOWN_FAILURES]:
        console.print(f"left out: {source}: {reason}")
    if len(summary.failures) > SHOWN_FAILURES:
        console.print(f"and {len(summary.failures) - SHOWN_FAILURES} more: "
                      f"{summary.folder / 'failures.csv'}")


def _show_summary(summary: DataSummary) -> None:
    from edgepkd.cli import output
    from edgepkd.datasets.no_look import HOW_TO_READ

    console = output.stdout()
    labels = sorted({label for counts in summary.counts.values() for label in counts})
    splits = list(summary.counts)
    rows = [(label, *(str(summary.counts[split].get(label, 0)) for split in splits))
            for label in labels]
    rows.append(("all", *(str(sum(summary.counts[split].values())) for split in splits)))
    rows.append(("groups", *(str(summary.num_groups[split]) for split in splits)))
    console.print(output.table(("label", *splits), rows, right=splits))
    console.print(
        f"{counted(summary.num_clips, 'clip')} in {summary.folder} ({summary.num_done} made, "
        f"{summary.num_kept} kept, {len(summary.failures)} left out, {summary.num_damaged} of "
        f"damaged sources) in {summary.wall_s:.1f} s")
    if summary.no_look:
        console.print(f"{summary.no_look.in_words()}; {HOW_TO_READ}", soft_wrap=True)
    for note in (*summary.notes, *_skipped(summary.skipped)):
        console.print(f"note: {note}", soft_wrap=True)  # what is to be pasted stays in one piece


def _skipped(skipped: Iterable[tuple[str, str]]) -> Iterator[str]:
    """One line for each reason: how many, why, and the first names."""
    names: dict[str, list[str]] = {}
    for name, reason in skipped:
        names.setdefault(reason, []).append(name)
    for reason, found in names.items():
        more = ", ..." if len(found) > SHOWN_SKIPPED else ""
        yield f"{len(found)} skipped, {reason}: {', '.join(found[:SHOWN_SKIPPED])}{more}"


def _show_verify(
    events: Generator[VerifyStarted | ClipVerified | VerifyReport, None, None], *,
    json_to: JsonTarget, quiet: bool,
) -> VerifyReport:
    from contextlib import closing
    from dataclasses import asdict

    from edgepkd.cli import output
    from edgepkd.pipeline.verify import ClipVerified, VerifyStarted

    with output.JsonLines(json_to) as lines, closing(events), _bar(quiet) as bar:
        task = bar.add_task("clips", total=None)
        for event in events:
            if isinstance(event, VerifyStarted):
                bar.update(task, total=event.num_clips)
            elif isinstance(event, ClipVerified):
                bar.advance(task)
            else:
                report = event
                lines.write("verify", {**asdict(report), "folder": str(report.folder)})
    if json_to == output.STDOUT:
        return report
    console = output.stdout()
    for path, problem in report.problems:
        console.print(f"{path}: {problem}")
    counts = ", ".join(f"{count} {split or 'without split'}"
                       for split, count in sorted(report.counts.items()))
    how = "checked and decoded" if report.decoded else "checked"
    verdict = counted(len(report.problems), "problem") if report.problems else "all is well"
    console.print(f"{counted(report.num_clips, 'clip')} {how} ({counts}): {verdict}")
    return report


def _bar(quiet: bool) -> Progress:
    from edgepkd import bars
    from edgepkd.cli import output

    return bars.progress(output.stderr(), hidden=quiet)
