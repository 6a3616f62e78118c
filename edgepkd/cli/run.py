"""`edgepkd run`: answers on a video, a folder of videos, a pipe or a camera."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgepkd.errors import UsageError


def run(
    source: Annotated[str, typer.Argument(
        help="File, folder, pattern such as 'clips/*.mp4', - (stdin), rtsp://... or /dev/video0.")],
    model: Annotated[Path | None, typer.Option(
        help="Bundle NAME.edgepkd; default: the one that ships with edgepkd.")] = None,
    order: Annotated[str | None, typer.Option(
        help="Networks in the order they are asked, e.g. mv,residual,iframe; default: the"
             " bundle's.")] = None,
    threshold: Annotated[float | None, typer.Option(
        help="Answer when the confidence is above this, 0..1, at every exit (1: never early);"
             " default: the bundle's threshold of each exit.")] = None,
    max_exit: Annotated[int | None, typer.Option(
        help="Last cascade position that may run, from 1.")] = None,
    static: Annotated[bool, typer.Option(
        "--static", help="Run every segment, no early exit.")] = False,
    clips: Annotated[str, typer.Option(
        help="At most so many clips of each source, or all.")] = "all",
    clip_frames: Annotated[int | None, typer.Option(
        help="Frames in a clip; default: the bundle's.")] = None,
    stride_frames: Annotated[int | None, typer.Option(
        help="Frames from one clip's start to the next one's; default: no overlap.")] = None,
    route: Annotated[str, typer.Option(
        help="auto, native (vectors of the stream) or normalize (re-encode first).")] = "auto",
    top_k: Annotated[int, typer.Option(help="Labels listed for each clip in the JSON.")] = 3,
    threads: Annotated[int | None, typer.Option(
        help="Threads of the networks on the CPU.")] = None,
    backend: Annotated[str, typer.Option(
        help="openvino (the CPU, with the bundle's engines for it if they fit) or another target of"
             " `edgepkd export` whose engines the bundle has, e.g. jetson-orin-nano, tensorrt-rtx;"
             " auto: engines that fit this machine, else the ONNX files on the CPU.")] = "auto",
    json: Annotated[str | None, typer.Option(
        metavar="PATH|-", help="Write JSON lines: one for each clip, then a summary.")] = None,
    save: Annotated[Path | None, typer.Option(
        help="Write the video with the answers drawn on it (.mp4 .mkv .mov .avi; no sound).",
    )] = None,
    quiet: Annotated[bool, typer.Option(
        "--quiet", "-q", help="No progress bar and no notes, only answers and errors.")] = False,
) -> None:
    """Say what happens in a video, clip by clip."""
    from edgepkd import pipeline
    from edgepkd.cli.show_run import show

    config = pipeline.RunConfig(
        source=source, model=model, order=order, threshold=threshold, max_exit=max_exit,
        static=static, clips=_count(clips), clip_frames=clip_frames, stride_frames=stride_frames,
        route=route, top_k=top_k, save=save, threads=threads,  # type: ignore[arg-type]
        backend=backend,
    )
    summary = show(pipeline.run(config), source=source, json_to=json, quiet=quiet).summary
    if save is not None and summary.num_failed == 0 and not quiet:
        typer.echo(f"saved {save}", err=True)
    raise typer.Exit(1 if summary.num_failed else 0)


def _count(clips: str) -> int | None:
    if clips == "all":
        return None
    try:
        return int(clips)
    except ValueError:
        raise UsageError(f"clips is {clips!r}; allowed: a number from 1, or all.") from None
