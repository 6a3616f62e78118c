"""What `run` and `vectors` show alike: sources that begin, warn and fail, a bar, an exit code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from rich.console import Console
from rich.progress import TaskID

from edgepkd import bars
from edgepkd.cli import output
from edgepkd.errors import EdgepkdError
from edgepkd.pipeline.run import SourceFailed, SourcesSkipped, SourceStarted, SourceWarning
from edgepkd.text import about, counted
from edgepkd.video.source_names import STDIN, is_live_source


class Summary(Protocol):
    """What the last event of such a verb says of its end."""

    @property
    def ended(self) -> str: ...
    @property
    def num_sources(self) -> int: ...
    @property
    def num_failed(self) -> int: ...
    @property
    def num_warnings(self) -> int: ...


S = TypeVar("S", bound=Summary)


class SourceView(ABC, Generic[S]):
    """What a person sees of a verb that reads sources, event by event.

    Attributes:
        summary: the last event; None until then.
        failure: of the last source that failed, shown already.
    """

    def __init__(self, *, as_lines: bool, on_stdout: bool, quiet: bool) -> None:
        """`as_lines`: print each result as it comes instead of a table at the end."""
        self.summary: S | None = None
        self.failure: EdgepkdError | None = None
        self._as_lines, self._on_stdout, self._quiet = as_lines, on_stdout, quiet
        self._out: Console = output.stdout()
        self._err: Console = output.stderr()
        self._bar = bars.progress(self._err, counts=False, hidden=quiet or as_lines)
        self._task: TaskID | None = None

    def __enter__(self) -> None:
        self._bar.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    @abstractmethod
    def take(self, event: Any) -> None:
        """Show one event of the verb's own; the others go to `take_source`."""

    @abstractmethod
    def write(self, lines: output.JsonLines, event: Any) -> None:
        """Write the JSON line of an event of the verb's own."""

    @abstractmethod
    def finish(self) -> None:
        """Print the tables and the summary."""

    @property
    def exit_code(self) -> int:
        """0; where a source failed 1, or what the error of the only source says."""
        if self.summary is None or self.failure is None:
            return 0
        return self.failure.exit_code if self.summary.num_sources == 1 else 1

    def take_source(self, event: object) -> None:
        """Show what happens to a source."""
        if isinstance(event, SourcesSkipped):
            if not self._quiet:
                output.show_skipped(self._err, event.skipped)
        elif isinstance(event, SourceStarted):
            self._start(event)
        elif isinstance(event, SourceWarning):
            self._warn(event.source, f"warning: {about(event.source, event.message)}")
        elif isinstance(event, SourceFailed):
            self.failure = event.error
            self._err.print(f"error: {event.error.message}")
            if event.error.hint:
                self._err.print(f"  next: {event.error.hint}")

    def _warn(self, source: str, line: str) -> None:
        del source
        self._err.print(line)

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
        self._task = self._bar.add_task(Path(event.source).name, total=info.duration_s,
                                        numbers="")

    def _progress(self, done_s: float, unit: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=done_s, numbers=unit)


def is_endless(source: Sequence[str]) -> bool:
    """True for cameras and pipes: results are shown as they come, and end when they are stopped."""
    return any(one == STDIN or is_live_source(one) for one in source)


def drain(
    events: Generator[Any, None, None], view: SourceView[Any], *, json_to: output.JsonTarget,
    endless: bool,
) -> None:
    """Show all `events` and write their JSON lines.

    What ends the run early, Ctrl-C too, is raised once all that was done is shown and written with
    its summary. `events` are closed on the way out: that removes what is half-written.
    """
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


def _take(event: object, lines: output.JsonLines, view: SourceView[Any]) -> None:
    if isinstance(event, SourcesSkipped):
        output.write_skipped(lines, event.skipped)
    elif isinstance(event, SourceWarning):
        lines.write("warning", asdict(event))
    elif isinstance(event, SourceFailed):
        lines.write("error", {"source": event.source, "message": event.error.message,
                              "hint": event.error.hint})
    else:
        view.write(lines, event)
    view.take(event)


def _sum_up(
    events: Generator[Any, None, None], error: BaseException, lines: output.JsonLines,
    view: SourceView[Any],
) -> None:
    """Get the summary of a run that was ended while one of its events was shown."""
    try:
        summary = events.throw(error)
    except BaseException:
        return  # the run had ended itself and was summed up, or had not begun
    _take(summary, lines, view)


def troubles(summary: Summary) -> list[str]:
    """What went wrong, in words; empty where all went well."""
    parts = []
    if summary.num_failed:
        parts.append(f"{summary.num_failed} of {counted(summary.num_sources, 'source')} failed")
    if summary.num_warnings:
        parts.append(counted(summary.num_warnings, "warning"))
    if summary.ended in ("interrupted", "error"):
        parts.append("interrupted" if summary.ended == "interrupted" else "ended by an error")
    return parts
