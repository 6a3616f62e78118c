"""Options that several verbs have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgepkd.errors import UsageError
from edgepkd.video.limits import DEFAULT_LIMITS, LIMIT_NAMES

# ---- how answers are found

Order = Annotated[str | None, typer.Option(
    help="Networks in the order they are asked, e.g. mv,residual,iframe; default: the bundle's.")]
Threshold = Annotated[float | None, typer.Option(
    help="Stop at the first exit whose confidence is above this, 0 to 1 (1: never stop early);"
         " default: the bundle's threshold of each exit.")]
MaxExit = Annotated[int | None, typer.Option(
    help="Last exit that may run, counted from 1 over all networks.")]
Static = Annotated[bool, typer.Option("--static", help="Run every network to its end, no early"
                                                       " exit.")]
Threads = Annotated[int | None, typer.Option(
    help="CPU threads of the networks; default: the backend's choice.")]
Backend = Annotated[str, typer.Option(
    help="What runs the networks: openvino (the CPU), or another target of `edgepkd export` whose"
         " engines are in the bundle, e.g. jetson-orin-nano, tensorrt-rtx; auto: engines that fit"
         " this machine, else the ONNX files on the CPU.")]
TrustEngines = Annotated[bool, typer.Option(
    "--trust-engines", help="Also use engines that this user did not build on this machine. An"
                            " engine can run any code: give this only for files you trust.")]

# ---- how sources are read

Sources = Annotated[list[str], typer.Argument(
    metavar="SOURCE", help="Video files, folders of them, patterns such as 'clips/*.mp4', the"
    " pictures of one video as a folder or 'seq/*.jpg', - (stdin), rtsp://... or /dev/video0.")]
Route = Annotated[str, typer.Option(
    help="Where motion vectors come from: native (those in the stream), normalize (re-encode the"
         " video first), or auto (native where the stream has usable ones).")]
Fps = Annotated[float | None, typer.Option(
    help="Frames per second of image sequences and of raw streams that name none; default: 25, or"
         " what the stream says.")]
Limit = Annotated[list[str] | None, typer.Option(
    metavar="NAME=NUMBER", help="Raise or lower a limit on what a source may ask for; may be given"
    " again. Limits: " + ", ".join(f"{name}={getattr(DEFAULT_LIMITS, name)}"
                                   for name in LIMIT_NAMES) + ".")]
AllowPlaylists = Annotated[bool, typer.Option(
    "--allow-playlists", help="Open playlists (HLS, DASH), concat scripts and SDP files, and with"
    " them every file and address that they name.")]
Cache = Annotated[Path, typer.Option(help="Folder where decoded clips are kept.")]
CacheGb = Annotated[float, typer.Option(
    metavar="GB", help="Most that a cache folder may hold; what was used longest ago goes"
    " first.")]

# ---- which clips of a set

Dataset = Annotated[str | None, typer.Option(
    help="Only the rows of the index with this value in column dataset.")]

# ---- what is written

Json = Annotated[str | None, typer.Option(
    metavar="PATH|-", help="Write JSON lines: one for each clip, then a summary.")]
JsonLine = Annotated[str | None, typer.Option(
    metavar="PATH|-", help="Write everything as one JSON line.")]
Save = Annotated[Path | None, typer.Option(
    help="Write the video with the answers drawn on it (.mp4 .mkv .mov .avi; no sound).")]
Force = Annotated[bool, typer.Option("--force", help="Replace files that exist already.")]
Quiet = Annotated[bool, typer.Option(
    "--quiet", "-q", help="No progress bar and no notes, only results and errors.")]


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
