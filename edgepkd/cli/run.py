"""`edgepkd run`: answers on a video, a folder of videos, a pipe or a camera."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import Annotated

import typer

from edgepkd.cli import options
from edgepkd.video.limits import limits_of


def run(
    source: options.Sources,
    model: Annotated[Path | None, typer.Option(
        help="Model to use, a bundle NAME.edgepkd; default: the one that ships with edgepkd.",
    )] = None,
    order: options.Order = None,
    threshold: options.Threshold = None,
    max_exit: options.MaxExit = None,
    static: options.Static = False,
    clips: Annotated[str, typer.Option(
        help="Most clips to answer of each source, or all.")] = "all",
    clip_frames: Annotated[int | None, typer.Option(
        help="Frames in a clip; default: the bundle's.")] = None,
    stride_frames: Annotated[int | None, typer.Option(
        help="Frames from the start of one clip to that of the next; default: no overlap.",
    )] = None,
    route: options.Route = "auto",
    fps: options.Fps = None,
    limit: options.Limit = None,
    allow_playlists: options.AllowPlaylists = False,
    top_k: Annotated[int, typer.Option(
        help="Number of labels that --json lists for each clip.")] = 3,
    threads: options.Threads = None,
    backend: options.Backend = "auto",
    trust_engines: options.TrustEngines = False,
    json: options.Json = None,
    save: options.Save = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Recognise what happens in videos, clip by clip."""
    from edgepkd.cli import output
    from edgepkd.cli.show_run import show
    from edgepkd.pipeline import run as verb
    from edgepkd.pipeline.reads import sources_read
    from edgepkd.runtime.model import DEMO_BUNDLE

    config = verb.RunConfig(
        source=source, model=model, order=order, threshold=threshold, max_exit=max_exit,
        static=static, clips=options.count_of("clips", clips), clip_frames=clip_frames,
        stride_frames=stride_frames, route=route,  # type: ignore[arg-type]
        top_k=top_k, save=save, threads=threads, backend=backend, trust_engines=trust_engines,
        fps=fps, limits=limits_of(limit or (), playlists=allow_playlists), force=force,
    )
    place = output.json_target(json, force=force,
                               reads=chain(sources_read(source),
                                           [model or DEMO_BUNDLE]),
                               writes=[save] if save else [])
    shown = show(verb.run(config), source=source, json_to=place, quiet=quiet)
    if save is not None and shown.failure is None and not quiet:
        output.note(f"saved {save}")
    raise typer.Exit(shown.exit_code)
