"""`edgepkd vectors`: motion fields, residuals and I-frames of videos as .npz files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgepkd.cli import options
from edgepkd.errors import UsageError
from edgepkd.video.limits import limits_of

if TYPE_CHECKING:
    from edgepkd.cli.output import JsonTarget

ALL = "motion,residual,iframe"


def vectors(
    source: options.Sources,
    out: Annotated[Path, typer.Option(
        metavar="DIR", help="New folder for the files; of several sources, with a folder for each"
                            " in it.")],
    what: Annotated[str, typer.Option(
        metavar="NAMES", help="Arrays to write; what is left out is not decoded.")] = ALL,
    per: Annotated[str, typer.Option(
        metavar="gop|clip", help="What one file holds.")] = "gop",
    gops: Annotated[str, typer.Option(
        help="At most so many GOPs of each source, or all.")] = "all",
    clips: Annotated[str, typer.Option(
        help="With --per clip: at most so many clips of each source, or all.")] = "all",
    clip_frames: Annotated[int, typer.Option(
        help="With --per clip: frames in a clip, rounded up to whole GOPs.")] = 60,
    stride_frames: Annotated[int | None, typer.Option(
        help="With --per clip: frames from one clip's start to the next one's; default: no"
             " overlap.")] = None,
    gop_frames: Annotated[int, typer.Option(
        help="Longest GOP: a longer one is cut, and the frame there taken as an I-frame.")] = 12,
    route: options.Route = "auto",
    plot: Annotated[str | None, typer.Option(
        metavar="png|video", help="Also draw: a PNG beside each file, with arrows over the I-frame"
        " and the residual, or the source's pictures with arrows as motion.mp4.")] = None,
    compress: Annotated[bool, typer.Option(
        help="Files of a third of the size, written at a fifth of the speed, or not.")] = True,
    fps: options.Fps = None,
    limit: options.Limit = None,
    allow_playlists: options.AllowPlaylists = False,
    json: Annotated[str | None, typer.Option(
        metavar="PATH|-", help="Write JSON lines: one for each file, then a summary.")] = None,
    force: Annotated[bool, typer.Option(
        "--force", help="Replace files, and folders of an earlier run, that are there already."
    )] = False,
    quiet: options.Quiet = False,
) -> None:
    """Write motion vectors, residuals and I-frames as .npz files.

    For NumPy: motion int16 [T, rows, columns, 2] since the I-frame, in quarter pixels; residual
    int16 [T, H, W, 3]; iframe uint8 [G, H, W, 3]; times_s float64 [T]. index.csv lists the files.
    """
    from edgepkd.cli.show_vectors import show
    from edgepkd.pipeline import vectors as verb

    config = verb.VectorsConfig(
        source=source, out=out, what=_kinds(what), per=per,  # type: ignore[arg-type]
        gops=options.count_of("gops", gops), clips=options.count_of("clips", clips),
        clip_frames=clip_frames, stride_frames=stride_frames, gop_frames=gop_frames,
        route=route, plot=plot, compressed=compress, fps=fps,  # type: ignore[arg-type]
        limits=limits_of(limit or (), playlists=allow_playlists), force=force)
    raise typer.Exit(show(verb.vectors(config), source=source, quiet=quiet,
                          json_to=_json_target(json, source, out, force=force)))


def _kinds(what: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in what.split(",")))


def _json_target(
    json: str | None, source: list[str], out: Path, *, force: bool
) -> JsonTarget:
    """Where --json goes; not into the folder that is made or replaced as a whole."""
    from edgepkd.cli import output
    from edgepkd.outputs import Output
    from edgepkd.pipeline.reads import sources_read

    place = output.json_target(json, force=force, reads=sources_read(source), writes=[out])
    if isinstance(place, Output) and place.place.is_relative_to(os.path.realpath(out)):
        raise UsageError(f"--json {json} lies in --out {out}, which is written as a whole.",
                         hint="Choose another name.")
    return place
