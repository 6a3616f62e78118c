"""The verbs `run` and `demo`: answers for every clip of every source, as a stream of events.

    >>> for event in run(RunConfig("clip.mp4")):
    ...     if isinstance(event, ClipDone):
    ...         print(event.answer.label, f"{event.answer.confidence:.2f}")
    no_fight 0...

Whatever is heavy is imported inside the functions.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgepkd.config import Route
from edgepkd.errors import ConfigError, EdgepkdError, SourceError
from edgepkd.runtime.backend import BackendChosen, open_runner
from edgepkd.runtime.model import DEMO_BUNDLE, Model, load_bundle
from edgepkd.runtime.settings import ModelConfig, ReadConfig
from edgepkd.runtime.summary import RunSummary as RunSummary
from edgepkd.runtime.summary import Tally
from edgepkd.video.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from edgepkd.files import Skipped
    from edgepkd.outputs import Output
    from edgepkd.runtime.answers import ClipAnswer
    from edgepkd.video.probe import StreamInfo
    from edgepkd.video.routes import RouteChoice
    from edgepkd.video.source_names import Source, SourceArgument


@dataclass(frozen=True)
class RunConfig:
    """Settings of `run`; None means: as the bundle says."""

    source: SourceArgument
    """A file, folder, pattern, '-', rtsp://… or /dev/video*; a path; a file opened with 'rb'; or a
    list of these."""
    model: Path | None = None
    """A bundle; None: the one that ships with edgepkd."""
    order: str | None = None
    """Modalities in the order they are asked, such as 'mv,residual,iframe'."""
    threshold: float | None = None
    """One confidence for all exits; 1.0: never exit early."""
    max_exit: int | None = None
    """Last cascade position that may run."""
    static: bool = False
    """Run every segment, no early exit."""
    clips: int | None = None
    """At most so many clips of each source; None: all."""
    clip_frames: int | None = None
    stride_frames: int | None = None
    route: Route = "auto"
    top_k: int = 3
    save: Path | None = None
    """Also write the video with the answers drawn on it."""
    threads: int | None = None
    """Threads of the networks on the CPU; None: the backend's choice."""
    fps: float | None = None
    """Frames per second of image sequences and of streams that name none; None: 25, or what
    the stream says."""
    limits: Limits = DEFAULT_LIMITS
    """How much a source may ask for."""
    backend: str = "auto"
    """auto: engines in the bundle that fit this machine, those for a GPU first, else its ONNX files
    on the CPU. openvino: the CPU, with engines or without. Else the target whose engines it is."""
    trust_engines: bool = False
    """Also use engines that `edgepkd export` has not built here for this user: a plan is as good as
    code."""
    force: bool = False
    """Replace the file `save` where it is there already."""

    def __post_init__(self) -> None:
        _ = self.answering, self.reading  # both check their values

    @property
    def answering(self) -> ModelConfig:
        """How the bundle answers."""
        return ModelConfig(
            order=self.order, threshold=self.threshold, max_exit=self.max_exit, static=self.static,
            top_k=self.top_k, threads=self.threads, backend=self.backend,
            trust_engines=self.trust_engines)

    @property
    def reading(self) -> ReadConfig:
        """How the sources are read."""
        return ReadConfig(
            clips=self.clips, clip_frames=self.clip_frames, stride_frames=self.stride_frames,
            route=self.route, fps=self.fps, limits=self.limits)


@dataclass(frozen=True)
class SourcesSkipped:
    """What lies in the folders that were asked for, and is no source."""

    skipped: tuple[Skipped, ...]


@dataclass(frozen=True)
class SourceStarted:
    """A source is open and its route is chosen."""

    source: str
    """As people may see it: an address is without user and password."""
    number: int
    """1-based."""
    num_sources: int
    info: StreamInfo
    verdict: RouteChoice
    notes: tuple[str, ...] = ()
    """What had to be assumed to open it."""


@dataclass(frozen=True)
class ClipDone:
    """One clip is answered."""

    source: str
    answer: ClipAnswer


@dataclass(frozen=True)
class SourceWarning:
    """Something is wrong with a source that is answered all the same."""

    source: str
    message: str


@dataclass(frozen=True)
class SaveProgress:
    """The annotated video is being written."""

    source: str
    done_s: float


@dataclass(frozen=True)
class SourceFailed:
    """A source ended in an error; clips answered before it still count."""

    source: str
    error: EdgepkdError


RunEvent = (BackendChosen | SourcesSkipped | SourceStarted | ClipDone | SourceWarning
            | SaveProgress | SourceFailed | RunSummary)


def run(config: RunConfig) -> Generator[RunEvent, None, None]:
    """Classify every clip of every source; the last event is a RunSummary.

    A source that fails among several gives a SourceFailed and the run goes on; the error of the
    only source is raised after the RunSummary. So is whatever else ends the run once the bundle is
    loaded, Ctrl-C too: what was answered is always summed up. The runner is closed at the end, on
    errors, and where the generator is closed early.

    Raises:
        SourceError: no source is found, or the only one fails.
        ConfigError: the only source cannot take a setting. BundleError: the bundle is not whole.
        UsageError: the bundle does not fit the order or exits asked for.
        ModelError: a segment cannot be compiled or run.
        MissingExtraError: what the backend asked for is not installed.
    """
    from edgepkd.video.source import resolve_sources

    sources = resolve_sources(config.source)
    target = None if config.save is None else _target(config, config.save, sources)
    if sources.skipped:
        yield SourcesSkipped(sources.skipped)
    loading = time.perf_counter()
    bundle, answering = load_bundle(config.model), config.answering
    runner, choice = open_runner(bundle, answering)
    with closing(runner):
        if choice is not None:
            yield choice
        model = Model(bundle, answering, runner=runner)
        yield from _answered(model, config, sources, target, loading_since=loading)


def _target(config: RunConfig, save: Path, sources: Sequence[Source]) -> Output:
    from edgepkd.runtime.annotate import check_target

    return check_target(save, sources=sources, model=config.model or DEMO_BUNDLE,
                        force=config.force)


def _answered(
    model: Model, config: RunConfig, sources: Sequence[Source], target: Output | None, *,
    loading_since: float,
) -> Iterator[RunEvent]:
    """The events of every source, then the summary, however the run ends."""
    from edgepkd.video.stops import delivering_stops

    tally = Tally(model.session, loading_since=loading_since)

    def summary(stopped: BaseException | None) -> RunSummary:
        return tally.summary(model=model.name, exit_rule=str(model.config),
                             num_sources=len(sources), stopped=stopped)

    failure: EdgepkdError | None = None
    try:
        _warm_up(model, config, sources)
        tally.loaded()
        for number, source in enumerate(sources, start=1):
            with delivering_stops(), closing(_run_source(
                    model, config, source, number, len(sources), target)) as events:
                for event in events:
                    failure = _count(tally, event) or failure
                    yield event
    except GeneratorExit:
        raise
    except BaseException as error:
        yield summary(error)
        raise
    yield summary(None)
    if failure is not None and len(sources) == 1:
        raise failure


def _count(tally: Tally, event: RunEvent) -> EdgepkdError | None:
    """Add `event` to the sums; returns the error that it tells of."""
    if isinstance(event, ClipDone):
        tally.add(event.answer)
    elif isinstance(event, SourceWarning):
        tally.warn(event.message)
    elif isinstance(event, SourceFailed):
        tally.fail()
        return event.error
    return None


def _warm_up(model: Model, config: RunConfig, sources: Sequence[Source]) -> None:
    """Load what every clip needs; for a camera also what only hard clips need."""
    from edgepkd.video.source import is_live_source

    model.warm_up(config.reading, segments=any(is_live_source(source) for source in sources))


def _run_source(
    model: Model, config: RunConfig, source: Source, number: int, num_sources: int,
    target: Output | None,
) -> Generator[RunEvent, None, None]:
    from edgepkd.video.source import shown_source

    shown = shown_source(source)
    answers: list[ClipAnswer] = []
    warnings = Warnings(shown)
    try:
        with model.open(source, config.reading) as reader:
            info, warnings.messages = reader.info, reader.warnings
            yield SourceStarted(shown, number, num_sources, info, reader.choice, reader.notes)
            yield from warnings.new()
            for answer in model.answer(reader, clips=config.clips):
                if target is not None:
                    answers.append(answer)
                yield ClipDone(shown, answer)
                yield from warnings.new()
            yield from warnings.new()
        if target is not None:
            cut = len(answers) == config.clips
            yield from _save(source, answers, target, info, config=config,
                             until_s=answers[-1].end_s if cut else None)
    except (SourceError, ConfigError) as error:
        # One bad file must not end the run.
        yield from warnings.new()
        yield SourceFailed(shown, error)


class Warnings:
    """What a reader has to say; `messages` is its list, which grows."""

    def __init__(self, source: str) -> None:
        self.messages: list[str] = []
        self._source, self._num_told = source, 0

    def new(self) -> Iterator[SourceWarning]:
        """What was not told yet."""
        while self._num_told < len(self.messages):
            self._num_told += 1
            yield SourceWarning(self._source, self.messages[self._num_told - 1])


def _save(
    source: Source, answers: list[ClipAnswer], out: Output, info: StreamInfo, *,
    config: RunConfig, until_s: float | None,
) -> Iterator[SaveProgress]:
    from edgepkd.runtime.annotate import save_annotated
    from edgepkd.video.probe import has_display_times
    from edgepkd.video.source import shown_source

    for done_s in save_annotated(source, answers, out, fps=info.fps,
                                 timed=has_display_times(info), until_s=until_s,
                                 source_fps=config.fps, limits=config.limits):
        yield SaveProgress(shown_source(source), done_s)
