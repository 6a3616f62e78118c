"""The verb `vectors`: motion fields, residuals and I-frames of videos as `.npz` files.

    >>> *files, summary = vectors(VectorsConfig("clip.mp4", Path("my-vectors")))
    >>> summary.ended, summary.num_files, summary.num_frames
    ('complete', 15, 180)
    >>> import numpy as np
    >>> with np.load("my-vectors/gop-000000.npz", allow_pickle=False) as gop:
    ...     print(gop["motion"].shape, gop["residual"].shape, gop["iframe"].shape)
    (12, 256, 455, 2) (12, 256, 455, 3) (1, 256, 455, 3)

One file a GOP or a clip, and `index.csv`; docs/vectors.md says what is in them.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from edgepkd.config import ClipSpec, DecodeSpec, InputSpec, Route, check, check_fps
from edgepkd.errors import ConfigError, EdgepkdError, SourceError, StorageError, UsageError
from edgepkd.files import FREE_SPACE
from edgepkd.pipeline.run import (
    SaveProgress,
    SourceFailed,
    SourcesSkipped,
    SourceStarted,
    SourceWarning,
    Warnings,
)
from edgepkd.pipeline.vector_arrays import KINDS, Kind
from edgepkd.pipeline.vector_files import Per, write_files
from edgepkd.pipeline.vector_files import VectorsWritten as VectorsWritten
from edgepkd.pipeline.vector_folder import VectorFolder, folders_for
from edgepkd.runtime.summary import MAX_WARNINGS, Ended, how_ended
from edgepkd.video.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from edgepkd.video.probe import StreamInfo
    from edgepkd.video.source_names import Source, SourceArgument

Plot = Literal["png", "video"]


@dataclass(frozen=True)
class VectorsConfig:
    """Settings of `vectors`."""

    source: SourceArgument
    """A file, folder, pattern, '-', rtsp://… or /dev/video*; a path; a file opened with 'rb'; or a
    list of these."""
    out: Path
    """A new folder: of one source its files, of several a folder each."""
    what: tuple[Kind, ...] = KINDS
    """Arrays to write; what is not named is not decoded."""
    per: Per = "gop"
    """What a file holds."""
    gops: int | None = None
    """At most so many GOPs of each source, with `per` gop; None: all."""
    clips: int | None = None
    """At most so many clips of each source, with `per` clip; None: all."""
    clip_frames: int = 60
    stride_frames: int | None = None
    """From one clip's start to the next one's; None: no overlap."""
    gop_frames: int = 12
    """Longest distance between I-frames: longer GOPs are cut."""
    route: Route = "auto"
    fps: float | None = None
    """Frames per second of image sequences and of streams that name none."""
    limits: Limits = DEFAULT_LIMITS
    """How much a source may ask for."""
    compressed: bool = True
    plot: Plot | None = None
    """png: a figure beside each file; video: the source's pictures with arrows, motion.mp4."""
    force: bool = False
    """Replace a folder that an earlier run wrote."""

    def __post_init__(self) -> None:
        check(self.per in ("gop", "clip"), "per", got=self.per, allowed="gop, clip")
        check(bool(self.what) and set(self.what) <= set(KINDS), "what", got=",".join(self.what),
              allowed=f"one or more of {', '.join(KINDS)}")
        check(self.route in ("auto", "native", "normalize"), "route", got=self.route,
              allowed="auto, native, normalize")
        check(self.plot in (None, "png", "video"), "plot", got=self.plot, allowed="png, video")
        for name in ("gops", "clips"):
            value = getattr(self, name)
            check(value is None or value >= 1, name, got=value, allowed="1 or more")
            if value is not None and name != f"{self.per}s":
                raise UsageError(f"--{name} goes with --per {name[:-1]}; got: --per {self.per}.",
                                 hint=f"Bound the files with --{self.per}s.")
        if self.plot == "video" and "motion" not in self.what:
            raise UsageError("--plot video draws motion, which --what leaves out.",
                             hint="Add motion to --what.")
        check_fps(self.fps)
        self.clip_spec()

    def clip_spec(self) -> ClipSpec:
        """How the stream is cut: a clip of one frame is its whole GOP.

        Raises:
            ConfigError: lengths are out of range.
        """
        frames = self.clip_frames if self.per == "clip" else 1
        return ClipSpec(clip_frames=frames, stride_frames=self.stride_frames or frames,
                        gop_frames=self.gop_frames, position=1)


@dataclass(frozen=True)
class FolderWritten:
    """The folder of one source is whole."""

    source: str
    folder: Path
    num_files: int
    num_frames: int
    num_bytes: int
    end_s: float


@dataclass(frozen=True)
class VectorsSummary:
    """The end of a run, and what of it has its final name."""

    ended: Ended
    error: str | None
    """What ended the run, where `ended` is error."""
    out: Path
    num_sources: int
    num_failed: int
    num_files: int
    num_frames: int
    num_bytes: int
    wall_s: float
    num_warnings: int
    warnings: tuple[str, ...]
    """The first 20 of them."""


VectorsEvent = (SourcesSkipped | SourceStarted | VectorsWritten | SaveProgress | SourceWarning
                | FolderWritten | SourceFailed | VectorsSummary)


def vectors(config: VectorsConfig) -> Generator[VectorsEvent, None, None]:
    """Write the signals of every source; the last event is a VectorsSummary.

    The folder of a source is whole or absent, however the run ends. A camera or a pipe, which ends
    only when it is stopped, keeps every file that is whole. One GOP or clip is in memory at a time.
    A source that fails among several gives a SourceFailed and the run goes on; the error of the
    only source is raised after the summary, and so is whatever else ends the run, Ctrl-C too.

    Raises:
        SourceError: no source is found, or the only one fails.
        ConfigError: the only source cannot take a setting.
        UsageError: `out` may not be written, or `plot` does not fit a source.
        StorageError: the disk is full. MissingExtraError: matplotlib is not installed.
    """
    from edgepkd.video.source import resolve_sources
    from edgepkd.video.stops import delivering_stops

    sources = resolve_sources(config.source)
    _check_plot(config, sources)
    places = folders_for(sources, config.out, force=config.force)
    if sources.skipped:
        yield SourcesSkipped(sources.skipped)
    tally = _Tally(config.out, len(sources))
    failure: EdgepkdError | None = None
    try:
        for number, (source, place) in enumerate(zip(sources, places, strict=True), start=1):
            with delivering_stops(), closing(_of_source(
                    config, source, tally.folder(source, place), (number, len(sources)))) as events:
                for event in events:
                    failure = tally.count(event) or failure
                    yield event
    except GeneratorExit:
        raise
    except BaseException as error:
        yield tally.summary(error)
        raise
    yield tally.summary(None)
    if failure is not None and len(sources) == 1:
        raise failure


def _check_plot(config: VectorsConfig, sources: Sequence[Source]) -> None:
    from edgepkd.runtime.annotate import can_be_read_again
    from edgepkd.video.source import shown_source

    if config.plot == "png":
        from edgepkd.pipeline.vector_figure import require_plots

        require_plots()
    elif config.plot == "video":
        for source in sources:
            if not can_be_read_again(source):
                raise UsageError(f"--plot video with {shown_source(source)}; allowed: files, which"
                                 " are read a second time.", hint="Take --plot png, or a file.")


class _Tally:
    """Running sums; a camera may run for weeks, so no file is remembered."""

    def __init__(self, out: Path, num_sources: int) -> None:
        self._started = time.perf_counter()
        self._out, self._num_sources = out, num_sources
        self._num_failed = self._num_warnings = 0
        self._warnings: list[str] = []
        self._folders: list[VectorFolder] = []

    def folder(self, source: Source, place: Path) -> VectorFolder:
        """The folder of a source, whose files count when they have their names."""
        from edgepkd.video.source import STDIN, is_live_source

        is_endless = source == STDIN or is_live_source(source)
        self._folders.append(VectorFolder(place, endless=is_endless))
        return self._folders[-1]

    def count(self, event: VectorsEvent) -> EdgepkdError | None:
        """Add `event` to the sums; returns the error that it tells of."""
        if isinstance(event, SourceWarning):
            self._num_warnings += 1
            self._warnings = [*self._warnings, event.message][:MAX_WARNINGS]
        elif isinstance(event, SourceFailed):
            self._num_failed += 1
            return event.error
        return None

    def summary(self, stopped: BaseException | None) -> VectorsSummary:
        """The sums; `stopped` is what ended the run before its last source."""
        ended = how_ended(stopped, num_failed=self._num_failed)
        there = [folder for folder in self._folders if folder.is_there]
        return VectorsSummary(
            ended=ended, error=str(stopped) if ended == "error" else None, out=self._out,
            num_sources=self._num_sources, num_failed=self._num_failed,
            num_files=sum(folder.num_files for folder in there),
            num_frames=sum(folder.num_frames for folder in there),
            num_bytes=sum(folder.num_bytes for folder in there),
            wall_s=time.perf_counter() - self._started,
            num_warnings=self._num_warnings, warnings=tuple(self._warnings))


def _of_source(
    config: VectorsConfig, source: Source, folder: VectorFolder, number: tuple[int, int]
) -> Generator[VectorsEvent, None, None]:
    """The events of one source; its folder is committed at the end."""
    from edgepkd.video.clips import ClipReader
    from edgepkd.video.source import shown_source

    name, end_s = shown_source(source), 0.0
    decode = DecodeSpec(gop_frames=config.gop_frames, pixels="residual" in config.what)
    drawn_on: list[VectorsWritten] = []
    warnings = Warnings(name)
    try:
        with folder:
            # The reader plans for networks; here each GOP is asked directly.
            with ClipReader(source, clip=config.clip_spec(), inputs={"mv": InputSpec("mv", 1)},
                            decode=decode, route=config.route, fps=config.fps,
                            limits=config.limits) as reader:
                info, warnings.messages = reader.info, reader.warnings
                yield SourceStarted(name, *number, info, reader.choice, reader.notes)
                for written in write_files(
                        reader, folder, source=name, kinds=config.what, per=config.per,
                        at_most=config.gops or config.clips, compressed=config.compressed,
                        with_figures=config.plot == "png"):
                    end_s = written.row.end_s
                    if config.plot == "video":
                        drawn_on.append(written)
                    yield written
                    yield from warnings.new()
                yield from warnings.new()
            if drawn_on:
                yield from _video(config, source, info, folder, drawn_on)
        yield FolderWritten(name, folder.place, folder.num_files, folder.num_frames,
                            folder.num_bytes, end_s)
    except (SourceError, ConfigError) as error:
        yield from warnings.new()
        yield SourceFailed(name, error)  # one bad file must not end the run


def _video(
    config: VectorsConfig, source: Source, info: StreamInfo, folder: VectorFolder,
    files: Sequence[VectorsWritten],
) -> Iterator[SaveProgress]:
    """Draw motion.mp4 into the folder, as far as its files go."""
    import av

    from edgepkd.pipeline.vector_video import NAME, MotionOverlay
    from edgepkd.runtime.video_writer import redraw
    from edgepkd.video.probe import has_display_times
    from edgepkd.video.source import shown_source

    overlay = MotionOverlay([(one.row.start_s, folder.path / one.row.file) for one in files])
    is_cut = folder.num_files == (config.gops or config.clips)
    try:
        for done_s in redraw(source, folder.path / NAME, overlay.draw, suffix=Path(NAME).suffix,
                             fps=info.fps, timed=has_display_times(info),
                             until_s=files[-1].row.end_s if is_cut else None,
                             source_fps=config.fps, limits=config.limits):
            yield SaveProgress(shown_source(source), done_s)
    except (OSError, av.FFmpegError) as error:
        raise StorageError(f"{folder.place / NAME} cannot be written: "
                           f"{error.strerror or error}.", hint=FREE_SPACE) from error
