"""`edgepkd export`: engines for a target from a bundle, or a bundle from a training run."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgepkd.cli import next_steps
from edgepkd.cli.options import Cache, CacheGb, Dataset
from edgepkd.text import counted

if TYPE_CHECKING:
    from rich.table import Table

    from edgepkd.bundle.engines import PlanRecord
    from edgepkd.cli.output import JsonLines, JsonTarget
    from edgepkd.deploy.gate import Along
    from edgepkd.engines.build import BuildEvent, EnginesBuilt
    from edgepkd.pipeline.export_bundle import ExportConfig
    from edgepkd.pipeline.export_run import BundleWritten


def export(
    source: Annotated[Path, typer.Argument(
        metavar="SOURCE", help="A bundle NAME.edgepkd, or the folder of a training run.")],
    target: Annotated[str, typer.Option(
        help="What to build for: a recipe of export/ (openvino, tensorrt-rtx, tensorrt,"
             " jetson-orin-nano, ...), or a .toml file.")],
    precision: Annotated[str | None, typer.Option(
        help="Precision of the engines: fp32, fp16, int8, or auto (build all and keep the fastest"
             " of each segment); default: the recipe's.")] = None,
    workspace_mb: Annotated[int | None, typer.Option(
        help="Scratch memory of the builder, in MB; default: the recipe's share of the memory.",
    )] = None,
    batch: Annotated[int | None, typer.Option(
        help="Most frames in one call; default: as many as a network sees of one clip.")] = None,
    version_compatible: Annotated[bool, typer.Option(
        "--version-compatible", help="Build engines that newer TensorRT of the same major version"
                                     " loads, too.")] = False,
    hardware_compatible: Annotated[bool, typer.Option(
        "--hardware-compatible", help="Build engines for every GPU from Ampere on.")] = False,
    dla: Annotated[int | None, typer.Option(
        help="Build for this DLA core (FP16 only); layers that cannot run there are named.",
    )] = None,
    resume: Annotated[bool, typer.Option(
        "--resume", help="Keep engines that an interrupted export has built.")] = False,
    force: Annotated[bool, typer.Option(
        "--force", help="Build engines that are up to date again, and replace the bundle of --out"
                        " and the file of --json.")] = False,
    require_timing_cache: Annotated[bool, typer.Option(
        "--require-timing-cache", help="Fail where a layer is not in the bundle's timing"
                                       " cache.")] = False,
    via: Annotated[str, typer.Option(
        help="Training run only: how engines are made, onnx or torch-tensorrt.")] = "onnx",
    out: Annotated[Path | None, typer.Option(
        help="Training run only: bundle to write, NAME.edgepkd; default: beside the run.")] = None,
    allow_drift: Annotated[bool, typer.Option(
        "--allow-drift", help="Training run only: write the bundle although its cascade answers"
                              " otherwise than that of the networks in PyTorch, or worse than one"
                              " of its parts.")] = False,
    order: Annotated[str | None, typer.Option(
        help="Training run only: default order of the bundle, such as mv,residual,iframe or mv;"
             " default: the recipe's.")] = None,
    static: Annotated[bool, typer.Option(
        "--static", help="Training run only: fix the batch size of the ONNX files to one clip.",
    )] = False,
    data: Annotated[Path | None, typer.Option(
        help="Training run only: clips to calibrate on, a folder with an index.csv or the index"
             " itself; default: the run's.")] = None,
    dataset: Dataset = None,
    cache: Cache = Path("runs/cache"), cache_gb: CacheGb = 20.0,
    json: Annotated[str | None, typer.Option(
        metavar="PATH|-", help="Write JSON lines: one for each segment, then one for all engines.",
    )] = None,
) -> None:
    """Make a bundle of a run, and build engines.

    SOURCE is a bundle, or a training run, of which a bundle is made first. The engines go to
    BUNDLE/engines/TARGET. Those for a Jetson are built on the Jetson: copy the bundle there and
    export it; no PyTorch is needed.
    """
    from edgepkd.cli import output
    from edgepkd.pipeline.export_bundle import ExportConfig, is_bundle
    from edgepkd.pipeline.reads import run_read

    config = ExportConfig(
        source=source, target=target, precision=precision,  # type: ignore[arg-type]
        workspace_mb=workspace_mb, max_frames=batch, version_compatible=version_compatible,
        hardware_compatible=hardware_compatible, dla=dla, resume=resume, force=force,
        require_timing_cache=require_timing_cache, via=via,  # type: ignore[arg-type]
        out=out, allow_drift=allow_drift, order=order, static=static, data=data, dataset=dataset,
        cache=cache, cache_gb=cache_gb)
    place = output.json_target(json, force=force, writes=[out] if out else [], reads=run_read(
        source, data, cache, target if target.endswith(".toml") else None))
    made = _show(_events(config), json_to=place)
    if not is_bundle(source):
        output.note_cache(cache, limit_gb=cache_gb)
    output.next_step(next_steps.after_export(made or source))


def _events(config: ExportConfig) -> Generator[BundleWritten | BuildEvent, None, None]:
    from edgepkd.pipeline.export_bundle import export_bundle, is_bundle

    if is_bundle(config.source):
        return export_bundle(config)
    from edgepkd._optional import require

    require("torch", purpose="Exporting a training run")
    from edgepkd.pipeline.export_run import export_run

    return export_run(config)


def _show(events: Iterable[BundleWritten | BuildEvent], *, json_to: JsonTarget) -> Path | None:
    """Progress to stderr as it comes, the table at the end; returns the bundle that was made."""
    from dataclasses import asdict

    from edgepkd.cli import output
    from edgepkd.engines.build import EnginesBuilt, SegmentBuilt, SegmentStarted, Waiting

    bundle: Path | None = None
    with output.JsonLines(json_to) as lines:
        for event in events:
            if isinstance(event, Waiting):
                output.note(f"another export builds engines for {event.target}: waiting for it")
            elif isinstance(event, SegmentStarted):
                output.note(f"[{event.number}/{event.num_segments}] {event.segment}")
            elif isinstance(event, SegmentBuilt):
                lines.write("segment", {"segment": event.segment, "reused": event.reused,
                                        **asdict(event.plan)})
            elif isinstance(event, EnginesBuilt):
                set_ = asdict(event.engines)
                del set_["sidecar_sha256"]
                for line in event.notes:
                    output.note(f"note: {line}")
                lines.write("engines", {
                    "folder": str(event.folder), "up_to_date": event.up_to_date,
                    "is_covered": event.engines.is_covered,
                    "engines_schema_version": set_.pop("schema_version"), **set_})
                if json_to != output.STDOUT:
                    _show_table(event)
            else:
                _show_bundle(event, lines, shown=json_to != output.STDOUT)
                bundle = event.bundle.path
    return bundle


def _show_bundle(written: BundleWritten, lines: JsonLines, *, shown: bool) -> None:
    """The bundle of a run: the forms of its cascade, and of each exit; notes to stderr."""
    from edgepkd.cli import output
    from edgepkd.pipeline.export_run import bundle_facts

    lines.write("bundle", bundle_facts(written))
    for note in written.notes:
        output.note(f"note: {note}")
    if not shown:
        return
    console = output.stdout()
    rows = [(f"{row.modality} {row.exit}", row.form, row.against, f"{100 * row.agreement:.1f} %",
             f"{row.max_difference:.3g}", f"{row.mean_difference:.2g}", str(row.num_clips))
            for row in written.parity.rows]
    columns = ("exit", "form", "against", "same label", "max diff.", "mean diff.", "clips")
    console.print(output.table(columns, rows, right=columns[3:], whole=columns[:1]))
    for along in written.parity.along:
        console.print(_gap_table(along))
    report = written.report
    console.print(f"{written.of}: cascade {report.cascade}, full chain {report.full_chain}",
                  soft_wrap=True)
    console.print(f"{written.bundle.path}{os.sep}")


def _gap_table(along: Along) -> Table:
    """What is judged: the ensemble at each step, and the cascade."""
    from edgepkd.cli import output
    from edgepkd.logits.verdicts import points

    first = along.gaps[0]
    columns = (f"{first.form} against {first.against}", "same answer", "points lost", "exit flips")
    rows = [(gap.step, str(gap.agreement),
             "-" if gap.accuracy_loss is None else points(gap.accuracy_loss),
             "-" if gap.exit_flips is None else f"{100 * gap.exit_flips:.1f} %")
            for gap in along.gaps]
    return output.table(columns, rows, right=columns[1:], whole=columns[:1])


def _show_table(built: EnginesBuilt) -> None:
    from edgepkd.cli import output

    engines, console = built.engines, output.stdout()
    columns = ("segment", "precision", "frames", "MB", "build s", "ms", "note")
    rows = [(segment, *_cells(plan)) for segment, plan in engines.plans.items()]
    console.print(output.table(columns, rows, right=columns[2:6], whole=columns[:2]))
    size_mb = sum(plan.bytes for plan in engines.plans.values()) / 1e6
    there = "were up to date" if built.up_to_date else "built"
    console.print(f"{counted(len(engines.plans), 'engine')} {there}, {size_mb:.1f} MB, with"
                  f" {engines.built_on.library} {engines.built_on.library_version}")
    console.print(f"{built.folder}{os.sep}")


def _cells(plan: PlanRecord) -> tuple[str, ...]:
    times = " / ".join(f"{ms:.3f} {precision}"
                       for precision, ms in (plan.measured_ms or {}).items())
    frames = f"{plan.min_frames}..{plan.max_frames}" if plan.min_frames != plan.max_frames \
        else str(plan.max_frames)
    return (plan.precision, frames, f"{plan.bytes / 1e6:.2f}", f"{plan.build_s:.1f}", times or "-",
            "; ".join(plan.notes))
