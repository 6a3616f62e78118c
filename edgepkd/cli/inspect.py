"""`edgepkd inspect`: what is in a bundle, or in a video and which route it takes."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Annotated

import typer

from edgepkd.cli import options
from edgepkd.text import counted
from edgepkd.video.limits import limits_of

if TYPE_CHECKING:
    from rich.console import Console

    from edgepkd.pipeline.inspect import BundleReport, EnginesFound, VideoReport


def inspect(
    path: Annotated[list[str], typer.Argument(
        metavar="PATH", help="Bundles NAME.edgepkd, videos, folders of videos, or patterns such as"
        " 'clips/*.mp4'.")],
    fps: options.Fps = None,
    limit: options.Limit = None,
    allow_playlists: options.AllowPlaylists = False,
    json: Annotated[str | None, typer.Option(
        metavar="PATH|-", help="Write JSON lines: one for the bundle or each video.")] = None,
    force: options.Force = False,
) -> None:
    """Show what is in a bundle or a video.

    Of a bundle: labels, inputs, exits, engines. Of a video: its stream, and which route `run` would
    take and why.
    """
    from dataclasses import asdict

    from edgepkd.cli import output
    from edgepkd.pipeline import inspect as verb
    from edgepkd.pipeline.reads import sources_read
    from edgepkd.pipeline.run import SourceFailed, SourcesSkipped

    place = output.json_target(json, force=force, reads=sources_read(path))
    failed, console = 0, output.stdout()
    limits = limits_of(limit or (), playlists=allow_playlists)
    with output.JsonLines(place) as lines:
        for report in verb.inspect(path, fps=fps, limits=limits):
            if isinstance(report, SourceFailed):
                failed += 1
                output.note(f"error: {report.error.message}")
                if report.error.hint:
                    output.note(f"  next: {report.error.hint}")
                lines.write("error", {"source": report.source, "message": report.error.message,
                                      "hint": report.error.hint})
            elif isinstance(report, SourcesSkipped):
                output.write_skipped(lines, report.skipped)
                output.show_skipped(output.stderr(), report.skipped)
            elif isinstance(report, verb.BundleReport):
                lines.write("bundle", {"path": str(report.bundle.path),
                                       **_without_version(asdict(report.bundle.manifest)),
                                       "engines": [_engine_facts(one) for one in report.engines]})
                _show_bundle(console, report, shown=json != "-")
            else:
                lines.write("video", {**asdict(report.info), "verdict": asdict(report.verdict)})
                for note in report.notes:
                    output.note(f"note: {note}")
                _show_video(console, report, shown=json != "-")
    raise typer.Exit(1 if failed else 0)


def _without_version(manifest: dict[str, object]) -> dict[str, object]:
    """The manifest's own schema_version under another name: the line has one too."""
    return {"manifest_schema_version": manifest.pop("schema_version"), **manifest}


def _engine_facts(found: EnginesFound) -> dict[str, object]:
    engines = found.engines
    return {"target": found.target, "is_covered": found.is_covered, "error": found.error,
            "library": engines and engines.built_on.library,
            "library_version": engines and engines.built_on.library_version,
            "num_plans": engines and len(engines.plans)}


def _engine_text(found: EnginesFound) -> str:
    if found.engines is None:
        return f"cannot be used: {found.error}"
    built_on = found.engines.built_on
    return (f"{counted(len(found.engines.plans), 'plan')}, {built_on.library}"
            f" {built_on.library_version}, " + ("built here by this user" if found.is_covered else
               "not built here by this user: run uses them only with --trust-engines"))


def _show_bundle(console: Console, report: BundleReport, *, shown: bool) -> None:
    from edgepkd.cli import output

    if not shown:
        return
    bundle, manifest = report.bundle, report.bundle.manifest
    size_mb = sum(entry.bytes for entry in manifest.files.values()) / 1e6
    clip = manifest.clip
    output.print_facts(console, [
        ("bundle", f"{manifest.name} ({bundle.path})"),
        ("whole", f"yes: {counted(len(manifest.files), 'file')}, {size_mb:.1f} MB, every SHA-256"
                  " is right"),
        ("labels", f"{len(manifest.labels)}: {', '.join(manifest.labels)}"),
        ("clip", f"{clip.clip_frames} frames, every {clip.stride_frames}; GOP of"
                 f" {clip.gop_frames}; sampling {clip.sampling}"),
        *((f"input {name}", f"{spec.num_segments} frames a clip,"
           f"{' stacked:' if spec.stack else ''} {spec.num_channels} x"
           f" {spec.crop_px} x {spec.crop_px}") for name, spec in manifest.inputs.items()),
        ("default order", ",".join(manifest.cascade.default_order)),
        ("orders", "; ".join(sorted(bundle.wise))),
        *((f"engines {found.target}", _engine_text(found)) for found in report.engines),
        *((f"provenance {key}", str(value)) for key, value in manifest.provenance.items()),
    ], whole=["bundle"])
    policy = bundle.policy[",".join(manifest.cascade.default_order)]
    rows, total = [], 0.0
    for number, (modality, exit_) in enumerate(product(
        manifest.cascade.default_order, range(1, manifest.cascade.num_exits + 1))
    ):
        segment = manifest.segment(modality, exit_)
        gmac = segment.gmac * manifest.inputs[modality].num_passes
        total += gmac
        rows.append((str(number + 1), f"{modality} {exit_}", segment.file,
                     f"{manifest.files[segment.file].bytes / 1e6:.2f}", f"{gmac:.4f}",
                     f"{total:.4f}", f"{policy.thresholds[number]:.3f}",
                     f"{policy.temperatures[number]:.2f}"))
    columns = ("", "exit", "file", "MB", "GMAC/clip", "so far", "thresh.", "temp.")
    output.print_table(console, columns, rows, paths=["file"], right=[columns[0], *columns[3:]],
                       whole=["exit"])


def _show_video(console: Console, report: VideoReport, *, shown: bool) -> None:
    from edgepkd.cli import output

    if not shown:
        return
    info = report.info
    header = f", header says {info.num_frames_from_header} frames" \
        if info.num_frames_from_header else ""
    yes = {True: "yes", False: "no"}
    output.print_facts(console, [
        ("video", info.source),
        ("stream", f"{info.codec} {info.profile or ''} in {info.container},"
                   f" {info.pix_fmt or 'unknown pixels'}"),
        ("picture", f"{info.width_px}x{info.height_px}"
                    + (f", cropped by {info.crop.left} px left, {info.crop.top} px top"
                       if info.crop and info.crop.moves_origin else "")
                    + (", mirrored" if info.mirrored else "")
                    + (f", rotated by {info.rotation_deg} degrees" if info.rotation_deg else "")
                    + (", interlaced" if info.interlaced else "")),
        ("time", (f"{info.duration_s:.2f} s" if info.duration_s is not None else "open end")
         + (f", {info.fps:.4g} fps" if info.fps else "") + header),
        ("GOP", _gop_text(info.gop_min, info.gop_max)),
        ("B-frames", yes[info.has_b_frames]),
        ("reference frames", "-" if info.num_ref_frames is None else str(info.num_ref_frames)),
        ("motion vectors", yes[info.exports_vectors]),
        ("route", f"{report.verdict.route}: {report.verdict.reason}"),
    ], whole=["video"])
    console.print()


def _gop_text(shortest: int | None, longest: int | None) -> str:
    if longest is None:
        return "no second key frame seen"
    return f"{longest} frames" if shortest == longest else f"{shortest} to {longest} frames"
