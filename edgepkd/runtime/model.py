"""`edgepkd.load`: a bundle that is loaded once and answers on any number of sources.

    >>> import edgepkd
    >>> with edgepkd.load() as model:
    ...     for clip in model.run("clip.mp4", clips=1):
    ...         print(clip.label, f"{clip.start_s:.1f} s to {clip.end_s:.1f} s, {clip.exit}")
    no_fight 0.0 s to ... s, ...

Whatever decodes or computes is imported inside the functions: `import edgepkd` stays light.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from edgepkd.cascade import ExitRule, parse_order
from edgepkd.closing import Closing
from edgepkd.config import InputSpec, Modality, Route
from edgepkd.errors import (
    BundleError,
    ConfigError,
    DecodeError,
    EdgepkdWarning,
    ModelError,
    SourceError,
)
from edgepkd.runtime.backend import open_runner
from edgepkd.runtime.settings import ModelConfig, ReadConfig
from edgepkd.text import about
from edgepkd.video.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from edgepkd.bundle.reading import Bundle
    from edgepkd.runtime.answers import ClipAnswer
    from edgepkd.runtime.backend import BackendChosen
    from edgepkd.runtime.runner import SegmentRunner
    from edgepkd.runtime.session import Session
    from edgepkd.video.clips import ClipReader
    from edgepkd.video.source_names import Source, SourceArgument

SHIPPED = Path(__file__).parents[1] / "_bundles"
DEMO_BUNDLE = SHIPPED / "demo.edgepkd"


class Model(Closing):
    """A bundle on a backend, warm over several sources. A context manager; made by `edgepkd.load`.

    Attributes:
        bundle: what was loaded, every file verified. config: how it answers.
        backend_choice: which engines were chosen and why; None where there was no choice.
        session: the cascade of one clip (`runtime.session.Session`).
    """

    def __init__(
        self, bundle: Bundle, config: ModelConfig | None = None, *,
        runner: SegmentRunner | None = None,
    ) -> None:
        """Open the backend of `config`, or take over `runner`, which an error here closes, too.

        Raises:
            UsageError: the bundle does not fit the order or exits asked for. Others: as `load`.
        """
        self.bundle, self.config = bundle, config or ModelConfig()
        self.backend_choice: BackendChosen | None = None
        if runner is None:
            runner, self.backend_choice = open_runner(bundle, self.config)
        self.session = open_session(bundle, self.config, runner)
        self._is_closed = False

    @property
    def name(self) -> str:
        """Of the bundle."""
        return self.bundle.manifest.name

    @property
    def labels(self) -> tuple[str, ...]:
        """What it can answer."""
        return self.bundle.manifest.labels

    @property
    def backend(self) -> str:
        """Name, version and device: 'openvino 2026.4.1 CPU'."""
        return self.session.runner.backend

    # ---- answers

    def run(
        self, source: SourceArgument, *, clips: int | None = None, clip_frames: int | None = None,
        stride_frames: int | None = None, route: Route = "auto", fps: float | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> Generator[ClipAnswer, None, None]:
        """Answer every clip of `source`, as they are read; memory does not grow with its length.

            >>> import edgepkd
            >>> with edgepkd.load() as model:
            ...     answers = list(model.run("clip.mp4"))
            >>> sorted({answer.label for answer in answers})
            ['no_fight']

        Among several sources (a folder, a pattern, a list) one that cannot be read is skipped
        with an `EdgepkdWarning`; each answer says of which source it is. What is wrong with a
        source that is answered all the same is an `EdgepkdWarning`, too.

        Args:
            source: a file, folder, pattern, '-', rtsp://… or /dev/video*; a path; a file opened
                with 'rb'; or a list of these.
            clips: at most so many clips of each source; None: all.
            clip_frames: frames of a clip, and
            stride_frames: frames from one clip's start to the next's; None: as the bundle says.
            route: 'native' (vectors of the stream), 'normalize' (re-encode first) or 'auto'.
            fps: frames per second of image sequences and of streams that name none.
            limits: how much a source may ask for.

        Raises:
            SourceError: no source is found, or the only one cannot be opened, breaks off or holds
                no clip; of several: not one gave an answer.
            ConfigError: a setting is out of range, or the only source cannot take it.
            ModelError: a segment cannot be compiled or run, or the model is closed.
        """
        reading = ReadConfig(clips=clips, clip_frames=clip_frames, stride_frames=stride_frames,
                             route=route, fps=fps, limits=limits)
        self._refuse_closed()
        return self._run(source, reading)

    def __call__(self, source: SourceArgument, **settings: object) -> list[ClipAnswer]:
        """The answers to a short `source`, as a list; arguments and errors as `run`."""
        return list(self.run(source, **settings))  # type: ignore[arg-type]

    def _run(
        self, source: SourceArgument, reading: ReadConfig
    ) -> Generator[ClipAnswer, None, None]:
        from edgepkd.video.source import is_live_source, resolve_sources

        sources = resolve_sources(source)
        if any(is_live_source(one) for one in sources):
            self.warm_up(reading)
        num_answers, failure = 0, None
        for one in sources:
            try:
                with closing(self._answers(one, reading)) as answers:
                    for answer in answers:
                        num_answers += 1
                        yield answer
            except (SourceError, ConfigError) as error:
                if len(sources) == 1:
                    raise
                failure = error
                _warn(str(error))
        if failure is not None and num_answers == 0:
            raise failure

    def _answers(self, source: Source, reading: ReadConfig) -> Generator[ClipAnswer, None, None]:
        from edgepkd.video.stops import delivering_stops

        num_answers = num_told = 0
        with delivering_stops(), self.open(source, reading) as reader:
            for answer in self.answer(reader, clips=reading.clips):
                num_answers += 1
                yield answer
                num_told = _warn_of(reader, num_told)
            _warn_of(reader, num_told)
        if num_answers == 0:
            raise DecodeError(f"{reader.info.source} holds no clip; allowed: at least one picture.",
                              hint="See what is in it: edgepkd inspect FILE")

    # ---- the parts of it

    def open(self, source: Source, reading: ReadConfig) -> ClipReader:
        """The clips of one source, decoded as far as this cascade may ask.

        Raises:
            SourceError, ConfigError: as `video.clips.ClipReader`.
        """
        from edgepkd.video.clips import ClipReader

        manifest = self.bundle.manifest
        # Only the residual looks at the pictures of P-frames.
        decode = replace(manifest.decode, pixels="residual" in self.session.modalities)
        return ClipReader(source, clip=reading.clip_spec(manifest.clip), inputs=self._inputs,
                          decode=decode, route=reading.route, fps=reading.fps,
                          limits=reading.limits)

    def answer(self, reader: ClipReader, *, clips: int | None = None) -> Iterator[ClipAnswer]:
        """Answers to what `open` has opened, `clips` at most."""
        for answer in self.session.stream(islice(reader, clips)):
            yield replace(answer, source=reader.info.source)

    def warm_up(self, reading: ReadConfig | None = None, *, segments: bool = True) -> None:
        """Load the decoding kernels and every segment that may run, so that no clip pays for it.

        `segments` false: the kernels alone, and each segment when a clip first needs it.
        """
        from edgepkd.runtime.warm_up import warm_up_decoding

        clip = (reading or ReadConfig()).clip_spec(self.bundle.manifest.clip)
        warm_up_decoding(inputs=self._inputs, clip=clip, decode=self.bundle.manifest.decode)
        if segments:
            self.session.warm_up()

    @property
    def _inputs(self) -> dict[Modality, InputSpec]:
        """Of the modalities that may be asked for."""
        inputs = self.bundle.manifest.inputs
        return {modality: inputs[modality] for modality in self.session.modalities}

    # ---- the end

    def close(self) -> None:
        """Let go of the networks and of the memory of the device; harmless if done before."""
        self._is_closed = True
        self.session.close()

    def _refuse_closed(self) -> None:
        if self._is_closed:
            raise ModelError(f"the model {self.name!r} is closed; allowed: nothing more.",
                             hint="Load it again: edgepkd.load(...)")


def _warn_of(reader: ClipReader, num_told: int) -> int:
    """Pass on what the reader has found wrong since; returns how much that is by now."""
    for message in reader.warnings[num_told:]:
        _warn(about(reader.info.source, message))
    return len(reader.warnings)


def _warn(message: str) -> None:
    """Warn at the line of the caller that is not in this file, however deep the generators are."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename == __file__:
        level, frame = level + 1, frame.f_back
    warnings.warn(EdgepkdWarning(message), stacklevel=level)


def load(
    model: str | Path | None = None, *, backend: str = "auto", order: str | None = None,
    threshold: float | None = None, max_exit: int | None = None, static: bool = False,
    exit_rule: ExitRule | None = None, top_k: int = 3, threads: int | None = None,
    trust_engines: bool = False,
) -> Model:
    """Load a bundle, ready to answer; close it, or use it as a context manager.

        >>> import edgepkd
        >>> with edgepkd.load(static=True) as model:
        ...     print(model.labels, model("clip.mp4", clips=1)[0].exit)
        ('fight', 'no_fight') iframe_4

    Args:
        model: a bundle, NAME.edgepkd; None: the one that ships with edgepkd.
        backend: auto, openvino, or a target whose engines the bundle has (`ModelConfig`).
        order: modalities in the order they are asked; None: the bundle's.
        threshold: one confidence for all exits; None: the fitted policy.
        max_exit: last cascade position that may run.
        static: run every segment, no early exit.
        exit_rule: an own rule of when to answer.
        top_k: labels listed with each answer.
        threads: threads of the networks on the CPU.
        trust_engines: also use engines that were not built here by this user.

    Raises:
        BundleError: it is absent, not whole, or has no engines for `backend` that fit here.
        UsageError: settings that contradict each other or do not fit the bundle.
        MissingExtraError: what the backend asked for is not installed. ModelError: CUDA does not
            work.
    """
    config = ModelConfig(
        order=order, threshold=threshold, max_exit=max_exit, static=static, exit_rule=exit_rule,
        top_k=top_k, threads=threads, backend=backend, trust_engines=trust_engines)
    return Model(load_bundle(None if model is None else Path(model)), config)


def load_bundle(path: Path | None) -> Bundle:
    """The bundle at `path`, or the one that ships with edgepkd, with every file verified.

    Raises:
        BundleError: it is absent or not whole.
    """
    from edgepkd.bundle.reading import read_bundle

    if path is None and not DEMO_BUNDLE.is_dir():
        raise BundleError("this installation ships no model.",
                          hint="Name one with --model NAME.edgepkd.")
    return read_bundle(path or DEMO_BUNDLE)


def open_session(
    bundle: Bundle, config: ModelConfig, runner: SegmentRunner | None = None
) -> Session:
    """A session with the order and exit rule of `config`, on `runner` or its backend.

    The session owns the runner: whoever closes it closes both, and an error here closes it too.

    Raises:
        UsageError: the bundle does not fit them. Others: as `open_runner`.
    """
    from edgepkd.runtime.session import Session

    runner = runner or open_runner(bundle, config)[0]
    try:
        return Session(
            bundle, runner,
            order=parse_order(config.order) if config.order is not None else None,
            threshold=1.0 if config.static else config.threshold,
            max_exit=config.max_exit, top_k=config.top_k, exit_rule=config.exit_rule,
        )
    except BaseException:
        runner.close()
        raise
