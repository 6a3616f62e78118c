"""Shows how vector files are written: a progress bar, a table of folders, JSON lines."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import TracebackType

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from edgepkd.cli import output
from edgepkd.errors import EdgepkdError
from edgepkd.pipeline.run import (
    SaveProgress,
    SourceFailed,
    SourcesSkipped,
    SourceStarted,
    SourceWarning,
)
from edgepkd.pipeline.vectors import (
    FolderWritten,
    VectorsEvent,
    VectorsSummary,
    VectorsWritten,
)
from edgepkd.text import shown
from edgepkd.video.source_names import STDIN, is_live_source

COLUMNS = ("source", "folder", "files", "frames", "time (s)", "MB")


def show(
    events: Generator[VectorsEvent, None, None], *, source: Sequence[str],
    json_to: output.JsonTarget, quiet: bool,
) -> int:
    """Drain `events` onto stdout, stderr and `json_to`; returns the exit code.

    What ends the run early, Ctrl-C too, is raised once its summary is shown and written.
    """
    endless = any(one == STDIN or is_live_source(one) for one in source)
    view = VectorsView(as_lines=endless, on_stdout=json_to != output.STDOUT, quiet=quiet)
    ended: BaseException | None = None
    with output.JsonLines(json_to, stream=endless) as lines, view, closing(events):
        try:
            for event in events:
                _take(event, lines, view)
        except BaseException as error:
            ended = error
            _sum_up(events, error, lines, view)
            if view.summary is None:
                raise
    view.finish()
    if ended is not None and ended is not view.failure:
        raise ended
    return view.exit_code


def _take(event: VectorsEvent, lines: output.JsonLines, view: VectorsView) -> None:
    if isinstance(event, VectorsWritten):
        lines.write("file", {"path": str(event.path), "bytes": event.num_bytes,
                             **asdict(event.row)})
    elif isinstance(event, FolderWritten):
        lines.write("folder", {**asdict(event), "folder": str(event.folder)})
    elif isinstance(event, SourcesSkipped):
        output.write_skipped(lines, event.skipped)
    elif isinstance(event, SourceWarning):
        lines.write("warning", asdict(event))
    elif isinstance(event, SourceFailed):
        lines.write("error", {"source": event.source, "message": event.error.message,
                              "hint": event.error.hint})
    elif isinstance(event, VectorsSummary):
        lines.write("summary", {**asdict(event), "out": str(event.out)})
        lines.keep()
    view.take(event)


def _sum_up(
    events: Generator[VectorsEvent, None, None], error: BaseException, lines: output.JsonLines,
    view: VectorsView,
) -> None:
    """Get the summary of a run that was ended while one of its events was shown."""
    try:
        summary = events.throw(error)
    except BaseException:
        return  # the run had ended itself and was summed up, or had not begun
    _take(summary, lines, view)


class VectorsView:
    """What a person sees.

    Attributes:
        summary: the last event; None until then. failure: of the last source that failed, shown.
    """

    def __init__(self, *, as_lines: bool, on_stdout: bool, quiet: bool) -> None:
        """`as_lines`: print each file as it comes instead of a table at the end."""
        self.summary: VectorsSummary | None = None
        self.failure: EdgepkdError | None = None
        self._as_lines, self._on_stdout, self._quiet = as_lines, on_stdout, quiet
        self._rows: list[tuple[str, ...]] = []
        self._out, self._err = output.stdout(), output.stderr()
        self._bar = Progress(TextColumn("{task.description}", markup=False), BarColumn(),
                             TextColumn("{task.fields[unit]}", markup=False),
                             TimeRemainingColumn(), console=self._err, transient=True,
                             disable=quiet or as_lines or not self._err.is_terminal)
        self._task: TaskID | None = None

    def __enter__(self) -> VectorsView:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def take(self, event: VectorsEvent) -> None:
        """Show one event."""
        if isinstance(event, VectorsWritten):
            self._file(event)
        elif isinstance(event, SaveProgress):
            self._progress(event.done_s, "drawing")
        elif isinstance(event, FolderWritten):
            self._rows.append((event.source, str(event.folder), str(event.num_files),
                               str(event.num_frames), f"{event.end_s:.2f}",
                               f"{event.num_bytes / 1e6:.1f}"))
        elif isinstance(event, SourceStarted):
            self._start(event)
        elif isinstance(event, SourceWarning):
            named = "" if event.source in event.message else f"{event.source}: "
            self._err.print(f"warning: {named}{event.message}")
        elif isinstance(event, SourcesSkipped):
            if not self._quiet:
                output.show_skipped(self._err, event.skipped)
        elif isinstance(event, SourceFailed):
            self.failure = event.error
            self._err.print(f"error: {event.error.message}")
            if event.error.hint:
                self._err.print(f"  next: {event.error.hint}")
        else:
            self.summary = event

    @property
    def exit_code(self) -> int:
        """0; where a source failed 1, or what the error of the only source says."""
        if self.summary is None or self.failure is None:
            return 0
        return self.failure.exit_code if self.summary.num_sources == 1 else 1

    def finish(self) -> None:
        """Print the table and the summary."""
        if not self._on_stdout or self.summary is None:
            return
        if self._rows and not self._as_lines:
            self._out.print(output.table(COLUMNS, self._rows, right=COLUMNS[2:]))
        self._out.print(summary_line(self.summary))

    def _start(self, event: SourceStarted) -> None:
        info = event.info
        if not self._quiet:
            rate = f" {info.fps:.4g} fps" if info.fps else ""
            count = f"[{event.number}/{event.num_sources}] " if event.num_sources > 1 else ""
            self._err.print(f"{count}{event.source}: {info.codec} {info.width_px}x{info.height_px}"
                            f"{rate}; {event.verdict.route}: {event.verdict.reason}")
            for note in event.notes:
                self._err.print(f"note: {note}")
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._task = self._bar.add_task(shown(Path(event.source).name), total=info.duration_s,
                                        unit="")

    def _file(self, event: VectorsWritten) -> None:
        self._progress(event.row.end_s, event.row.file)
        if self._as_lines and self._on_stdout:
            row = event.row
            self._out.print(f"{row.start_s:9.2f}-{row.end_s:.2f} s  {event.path}  {row.frames}"
                            f" frames  {event.num_bytes / 1e6:.2f} MB", soft_wrap=True)

    def _progress(self, done_s: float, unit: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=done_s, unit=shown(unit))


def summary_line(summary: VectorsSummary) -> str:
    """The run in one line."""
    troubles = []
    if summary.num_failed:
        troubles.append(f"{summary.num_failed} of {_count(summary.num_sources, 'source')} failed")
    if summary.num_warnings:
        troubles.append(_count(summary.num_warnings, "warning"))
    if summary.ended in ("interrupted", "error"):
        troubles.append("interrupted" if summary.ended == "interrupted" else "ended by an error")
    return ", ".join([
        f"{_count(summary.num_files, 'file')} in {summary.out}, "
        f"{_count(summary.num_frames, 'frame')}, {summary.num_bytes / 1e6:.1f} MB in "
        f"{summary.wall_s:.2f} s", *troubles])


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
