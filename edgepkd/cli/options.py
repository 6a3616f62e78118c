"""Options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgepkd.errors import UsageError
from edgepkd.video.limits import DEFAULT_LIMITS, LIMIT_NAMES

Order = Annotated[str | None, typer.Option(
    help="Networks in the order they are asked, e.g. mv,residual,iframe; default: the bundle's.")]
Threshold = Annotated[float | None, typer.Option(
    help="Answer when the confidence is above this, 0..1, at every exit (1: never early);"
         " default: the bundle's threshold of each exit.")]
MaxExit = Annotated[int | None, typer.Option(
    help="Last cascade position that may run, from 1.")]
Static = Annotated[bool, typer.Option("--static", help="Run every segment, no early exit.")]
Fps = Annotated[float | None, typer.Option(
    help="Frame rate of image sequences and of raw streams that name none; default: 25, or what"
         " the stream says.")]
Limit = Annotated[list[str] | None, typer.Option(
    metavar="NAME=NUMBER", help="Let sources ask for more than the defaults, or less; for each"
    " limit once: " + ", ".join(f"{name}={getattr(DEFAULT_LIMITS, name)}" for name in LIMIT_NAMES)
    + ".")]
AllowPlaylists = Annotated[bool, typer.Option(
    "--allow-playlists", help="Open playlists (HLS, DASH), concat scripts and SDP, and with them"
    " all files and addresses that they name.")]
Threads = Annotated[int | None, typer.Option(help="Threads of the networks on the CPU.")]
Backend = Annotated[str, typer.Option(
    help="openvino (the CPU, with the bundle's engines for it if they fit) or another target of"
         " `edgepkd export` whose engines the bundle has, e.g. jetson-orin-nano, tensorrt-rtx;"
         " auto: engines that fit this machine, else the ONNX files on the CPU.")]
TrustEngines = Annotated[bool, typer.Option(
    "--trust-engines", help="Also use engines that were not built here by this user; they are as"
                            " good as programs.")]
Json = Annotated[str | None, typer.Option(
    metavar="PATH|-", help="Write JSON lines: one for each clip, then a summary.")]
Save = Annotated[Path | None, typer.Option(
    help="Write the video with the answers drawn on it (.mp4 .mkv .mov .avi; no sound).")]
Force = Annotated[bool, typer.Option(
    "--force", help="Replace files that are there already.")]
Quiet = Annotated[bool, typer.Option(
    "--quiet", "-q", help="No progress bar and no notes, only answers and errors.")]


def count_of(name: str, text: str) -> int | None:
    """The number that option `name` gives; None: all.

    Raises:
        UsageError: it is neither.
    """
    if text == "all":
        return None
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{name} is {text!r}; allowed: a number from 1, or all.") from None
