"""The verbs of a device: run, demo, inspect, doctor.

Whatever is heavy is imported inside the functions.
"""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from edgepkd import plain_json
from edgepkd.config import ClipSpec, Route, check, check_fps
from edgepkd.errors import BundleError, ConfigError, EdgepkdError, SourceError, UsageError
from edgepkd.pipeline.backend import BackendChosen, open_runner
from edgepkd.runtime.summary import RunSummary as RunSummary
from edgepkd.runtime.summary import Tally
from edgepkd.video.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from edgepkd.bundle import Bundle
    from edgepkd.bundle.engines import EngineSet
    from edgepkd.files import Skipped
    from edgepkd.outputs import Output
    from edgepkd.runtime.answers import ClipAnswer
    from edgepkd.runtime.machine import Machine
    from edgepkd.runtime.runner import SegmentRunner
    from edgepkd.runtime.session import Session
    from edgepkd.video.probe import StreamInfo, Verdict
    from edgepkd.video.source_names import Source, SourceArgument

SHIPPED = Path(__file__).parents[1] / "_bundles"
DEMO_BUNDLE = SHIPPED / "demo.edgepkd"
DEMO_FACTS = SHIPPED / "demo.json"


# ---- run


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
        from edgepkd.bundle.engines import is_target_name

        if self.static and not (self.threshold is None and self.max_exit is None):
            raise UsageError("static goes with threshold or max_exit; allowed: only one of them.",
                             hint="--static runs every segment: drop the other option.")
        limit = self.threshold
        check(limit is None or 0 <= limit <= 1, "threshold", got=limit,
              allowed="0..1 (1: never exit early)")
        for name in ("max_exit", "clips", "clip_frames", "stride_frames", "top_k", "threads"):
            value = getattr(self, name)
            check(value is None or value >= 1, name, got=value, allowed="1 or more")
        check(self.route in ("auto", "native", "normalize"), "route", got=self.route,
              allowed="auto, native, normalize")
        check_fps(self.fps)
        check(is_target_name(self.backend), "backend", got=self.backend,
              allowed="auto, openvino or a folder in the bundle's engines/")


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
    verdict: Verdict
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
            | SaveProgress | SourceFailed
            | RunSummary)


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
    bundle = load_bundle(config.model)
    runner, choice = open_runner(bundle, config)
    with closing(runner):
        if choice is not None:
            yield choice
        session = open_session(bundle, config, runner)
        yield from _answered(session, bundle, config, sources, target, loading_since=loading)


def _target(config: RunConfig, save: Path, sources: Sequence[Source]) -> Output:
    from edgepkd.runtime.annotate import check_target

    return check_target(save, sources=sources, model=config.model or DEMO_BUNDLE,
                        force=config.force)


def _answered(
    session: Session, bundle: Bundle, config: RunConfig, sources: Sequence[Source],
    target: Output | None, *, loading_since: float,
) -> Iterator[RunEvent]:
    """The events of every source, then the summary, however the run ends."""
    from edgepkd.video.stops import delivering_stops

    clip = _clip_spec(bundle, config)
    tally = Tally(session, loading_since=loading_since)

    def summary(stopped: BaseException | None) -> RunSummary:
        return tally.summary(model=bundle.manifest.name, exit_rule=_exit_rule(config),
                             num_sources=len(sources), stopped=stopped)

    failure: EdgepkdError | None = None
    try:
        _warm_up(session, bundle, clip, sources)
        tally.loaded()
        for number, source in enumerate(sources, start=1):
            with delivering_stops(), closing(_run_source(
                    session, bundle, config, clip, source, number, len(sources),
                    target)) as events:
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


def load_bundle(path: Path | None) -> Bundle:
    """The bundle at `path`, or the one that ships with edgepkd, with every file verified.

    Raises:
        BundleError: it is absent or not whole.
    """
    from edgepkd.bundle import read_bundle

    if path is None and not DEMO_BUNDLE.is_dir():
        raise BundleError("this installation ships no model.",
                          hint="Name one with --model NAME.edgepkd.")
    return read_bundle(path or DEMO_BUNDLE)


def open_session(
    bundle: Bundle, config: RunConfig, runner: SegmentRunner | None = None
) -> Session:
    """A session with the order and exit rule of `config`, on `runner` or its backend.

    The session owns the runner: whoever closes it closes both, and an error here closes it too.

    Raises:
        UsageError: the bundle does not fit them. Others: as `open_runner`.
    """
    from edgepkd.cascade import parse_order
    from edgepkd.runtime.session import Session

    runner = runner or open_runner(bundle, config)[0]
    try:
        return Session(
            bundle, runner,
            order=parse_order(config.order) if config.order is not None else None,
            threshold=1.0 if config.static else config.threshold,
            max_exit=config.max_exit, top_k=config.top_k,
        )
    except BaseException:
        runner.close()
        raise


def _clip_spec(bundle: Bundle, config: RunConfig) -> ClipSpec:
    """The bundle's clips, unless other ones are asked for; the stride follows the length."""
    spec = bundle.manifest.clip
    frames = config.clip_frames or spec.clip_frames
    stride = config.stride_frames or (config.clip_frames or spec.stride_frames)
    return replace(spec, clip_frames=frames, stride_frames=stride)


def _warm_up(
    session: Session, bundle: Bundle, clip: ClipSpec, sources: Sequence[Source]
) -> None:
    """Load what every clip needs; for a camera also what only hard clips need."""
    from edgepkd.runtime.warm import warm_up_decoding
    from edgepkd.video.source import is_live_source

    inputs = {modality: bundle.manifest.inputs[modality] for modality in session.modalities}
    warm_up_decoding(inputs=inputs, clip=clip, decode=bundle.manifest.decode)
    if any(is_live_source(source) for source in sources):
        session.warm_up()


def _run_source(
    session: Session, bundle: Bundle, config: RunConfig, clip: ClipSpec,
    source: Source, number: int, num_sources: int, target: Output | None,
) -> Generator[RunEvent, None, None]:
    from edgepkd.video.clips import ClipReader
    from edgepkd.video.source import shown_source

    shown = shown_source(source)
    manifest = bundle.manifest
    inputs = {modality: manifest.inputs[modality] for modality in session.modalities}
    # Only the residual looks at the pictures of P-frames.
    decode = replace(manifest.decode, pixels="residual" in session.modalities)
    answers: list[ClipAnswer] = []
    warnings = Warnings(shown)
    try:
        with ClipReader(source, clip=clip, inputs=inputs, decode=decode,
                        route=config.route, fps=config.fps, limits=config.limits) as reader:
            info, warnings.messages = reader.info, reader.warnings
            yield SourceStarted(shown, number, num_sources, info, reader.verdict, reader.notes)
            yield from warnings.new()
            for answer in session.stream(islice(reader, config.clips)):
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


def _exit_rule(config: RunConfig) -> str:
    if config.static:
        return "static"
    rule = "policy" if config.threshold is None else f"threshold {config.threshold:g}"
    return rule if config.max_exit is None else f"{rule}, max exit {config.max_exit}"


# ---- demo


@dataclass(frozen=True)
class DemoFacts:
    """The shipped clip: where it is, what is seen in it, and whose it is."""

    clip: Path
    expected_label: str
    attribution: str


def demo_facts() -> DemoFacts:
    """What `_bundles/demo.json` says.

    Raises:
        BundleError: this installation ships no demo, or a damaged one.
    """
    try:
        values = plain_json.loads(DEMO_FACTS.read_text(encoding="utf-8"))
        return DemoFacts(clip=SHIPPED / values["clip"], expected_label=values["expected_label"],
                         attribution=values["attribution"])
    except FileNotFoundError as error:
        raise BundleError("this installation ships no demo.",
                          hint="Run an own one: edgepkd run VIDEO --model NAME.edgepkd") from error
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{DEMO_FACTS} is damaged: {error!r}.",
                          hint="Install again: pip install --force-reinstall edgepkd") from error


def demo(config: RunConfig | None = None) -> Generator[RunEvent, None, None]:
    """Run the shipped bundle on the shipped clip; `demo_facts` says what should come out.

    `config` has the other settings: its source and model do not count.

    Raises:
        BundleError: as `demo_facts` and `load_bundle`. Others as `run`.
    """
    clip = str(demo_facts().clip)
    return run(RunConfig(clip) if config is None else replace(config, source=clip, model=None))


# ---- inspect and doctor


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
    verdict: Verdict
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
    from edgepkd.bundle import SUFFIX, is_bundle, read_bundle
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
    from edgepkd.bundle.engines import engine_targets, read_engines

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
    from edgepkd.video.probe import judge, probe
    from edgepkd.video.source import open_video, shown_source
    from edgepkd.video.stops import delivering_stops

    try:
        with delivering_stops(), open_video(source, fps=fps, limits=limits) as video:
            info = probe(video)
            return VideoReport(info, judge(info), tuple(video.notes))
    except SourceError as error:
        return SourceFailed(shown_source(source), error)


def doctor() -> Machine:
    """What this machine has, which backends work, and what to install next."""
    from edgepkd.runtime.machine import describe

    return describe()
