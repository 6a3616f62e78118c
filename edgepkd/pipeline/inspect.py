"""The verb `inspect`: what is in a bundle or a video."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgepkd.bundle.engines import EngineSet
from edgepkd.bundle.reading import Bundle
from edgepkd.config import check_fps
from edgepkd.errors import BundleError, SourceError
from edgepkd.pipeline.run import SourceFailed, SourcesSkipped
from edgepkd.video.limits import DEFAULT_LIMITS, Limits
from edgepkd.video.probe import StreamInfo
from edgepkd.video.routes import RouteChoice
from edgepkd.video.source_names import Source, SourceArgument


@dataclass(frozen=True)
class EnginesFound:
    """Engines in a bundle, as their sidecar describes them."""

    target: str
    engines: EngineSet | None
    """None: they cannot be read."""
    is_covered: bool
    """`edgepkd export` has built them here for this user."""
    error: str | None = None


@dataclass(frozen=True)
class BundleReport:
    """A bundle that is whole: every file is there with its SHA-256."""

    bundle: Bundle
    engines: tuple[EnginesFound, ...] = ()


@dataclass(frozen=True)
class VideoReport:
    """A video stream, and the route it would take."""

    info: StreamInfo
    verdict: RouteChoice
    notes: tuple[str, ...] = ()
    """What had to be assumed to open it."""


def inspect(
    path: SourceArgument, *, fps: float | None = None, limits: Limits = DEFAULT_LIMITS
) -> Iterator[BundleReport | VideoReport | SourcesSkipped | SourceFailed]:
    """Say what is in a bundle, or in each of the videos that `path`, one or several, names.

    Raises:
        BundleError: it is a bundle, and not whole. SourceError: there is nothing to inspect.
        ConfigError: `fps` is out of range.
    """
    from edgepkd.bundle.manifest import SUFFIX
    from edgepkd.bundle.reading import is_bundle, read_bundle
    from edgepkd.video.source import resolve_sources
    from edgepkd.video.source_names import as_list

    check_fps(fps)
    for argument in as_list(path):
        if isinstance(argument, (str, os.PathLike)) and (
                is_bundle(argument) or Path(argument).suffix == SUFFIX):
            bundle = read_bundle(Path(argument))
            yield BundleReport(bundle, _engines_found(bundle.path))
            continue
        sources = resolve_sources(argument)
        if sources.skipped:
            yield SourcesSkipped(sources.skipped)
        for source in sources:
            yield _video_report(source, fps, limits)


def _engines_found(path: Path) -> tuple[EnginesFound, ...]:
    """The engines in a bundle; raises BundleError where they lie in no plain folder."""
    from edgepkd.bundle.engine_files import engine_targets, read_engines

    found = []
    for target in engine_targets(path):
        try:
            engines = read_engines(path, target)
        except BundleError as error:
            found.append(EnginesFound(target, None, is_covered=False, error=error.message))
        else:
            found.append(EnginesFound(target, engines, is_covered=engines.is_covered))
    return tuple(found)


def _video_report(
    source: Source, fps: float | None, limits: Limits
) -> VideoReport | SourceFailed:
    from edgepkd.video.probe import probe
    from edgepkd.video.routes import choose_route
    from edgepkd.video.source import open_video, shown_source
    from edgepkd.video.stops import delivering_stops

    try:
        with delivering_stops(), open_video(source, fps=fps, limits=limits) as video:
            info = probe(video)
            return VideoReport(info, choose_route(info), tuple(video.notes))
    except SourceError as error:
        return SourceFailed(shown_source(source), error)
