"""Shows the events of a run: a progress bar while it goes on, a table at the end, JSON lines."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from edgepkd.cli import output
from edgepkd.pipeline.run import (
    ClipDone,
    RunEvent,
    RunSummary,
    SaveProgress,
    SourceFailed,
    SourcesSkipped,
    SourceStarted,
    SourceWarning,
)
from edgepkd.runtime.backend import BackendChosen
from edgepkd.text import shown
from edgepkd.video.source_names import STDIN, is_live_source

if TYPE_CHECKING:
    from edgepkd.errors import EdgepkdError
    from edgepkd.runtime.answers import ClipAnswer

TIMES = ("decode\nms", "load\nms", "nets\nms", "decide\nms")
NARROW_TIMES = ("decode\nms", "load\nms", "nets\nms")
NUMBERS = ("clip", "time (s)", "conf.", *TIMES, *NARROW_TIMES)


def show(
    events: Generator[RunEvent, None, None], *, source: Sequence[str],
    json_to: output.JsonTarget, quiet: bool,
) -> RunView:
    """Drain `events` onto stdout, stderr and `json_to`; returns what was shown.

    What ends the run early, Ctrl-C too, is raised once all that was answered is shown and written
    with its summary. `events` are closed on the way out: that removes a half-written video.
    """
    endless = any(one == STDIN or is_live_source(one) for one in source)
    view = RunView(as_lines=endless, on_stdout=json_to != output.STDOUT, quiet=quiet)
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
    return view


def _take(event: RunEvent, lines: output.JsonLines, view: RunView) -> None:
    _write(lines, event)
    view.take(event)


def _sum_up(
    events: Generator[RunEvent, None, None], error: BaseException, lines: output.JsonLines,
    view: RunView,
) -> None:
    """Get the summary of a run that was ended while one of its events was shown."""
    try:
        summary = events.throw(error)
    except BaseException:
        return  # the run had ended itself and was summed up, or had not begun
    _take(summary, lines, view)


def _write(lines: output.JsonLines, event: RunEvent) -> None:
    if isinstance(event, ClipDone):
        lines.write("clip", {"source": event.source, **event.answer.as_json()})
    elif isinstance(event, SourcesSkipped):
        output.write_skipped(lines, event.skipped)
    elif isinstance(event, SourceWarning):
        lines.write("warning", asdict(event))
    elif isinstance(event, SourceFailed):
        lines.write("error", {"source": event.source, "message": event.error.message,
                              "hint": event.error.hint})
    elif isinstance(event, RunSummary):
        lines.write("summary", asdict(event))
        lines.keep()


class RunView:
    """What a person sees of a run.

    Attributes:
        labels: the answers so far (none kept with `as_lines`).
        summary: the last event; None until then.
        failure: of the last source that failed, shown already.
    """

    def __init__(self, *, as_lines: bool, on_stdout: bool, quiet: bool) -> None:
        """`as_lines`: print each answer as it comes instead of a table at the end."""
        self.labels: list[str] = []
        self.summary: RunSummary | None = None
        self.failure: EdgepkdError | None = None
        self._as_lines, self._on_stdout, self._quiet = as_lines, on_stdout, quiet
        self._rows: dict[str, list[tuple[str, ...]]] = {}
        self._warnings: dict[str, list[str]] = {}
        self._out: Console = output.stdout()
        self._narrow = self._out.width < output.NARROW
        self._err: Console = output.stderr()
        bar = Progress(TextColumn("{task.description}", markup=False), BarColumn(),
                       TextColumn("{task.fields[unit]}", markup=False), TimeRemainingColumn(),
                       console=self._err, transient=True,
                       disable=quiet or as_lines or not self._err.is_terminal)
        self._bar = bar
        self._task: TaskID | None = None

    def __enter__(self) -> RunView:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def take(self, event: RunEvent) -> None:
        """Show one event."""
        if isinstance(event, BackendChosen):
            if not self._quiet:
                self._err.print(f"backend {event.backend}: {event.reason}")
        elif isinstance(event, SourcesSkipped):
            if not self._quiet:
                output.show_skipped(self._err, event.skipped)
        elif isinstance(event, SourceStarted):
            self._start(event)
        elif isinstance(event, ClipDone):
            self._clip(event)
        elif isinstance(event, SaveProgress):
            self._progress(event.done_s, "saving")
        elif isinstance(event, SourceWarning):
            self._warn(event)
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
        """Print the tables and the summary."""
        if not self._on_stdout or self.summary is None:
            return
        for source in dict.fromkeys([*self._rows, *self._warnings]):
            self._out.print()
            self._out.print(source, soft_wrap=True)
            if rows := self._rows.get(source):
                self._out.print(output.table(columns(narrow=self._narrow), rows, right=NUMBERS,
                                             whole=("exit",)))
            for warning in self._warnings.get(source, ()):
                self._out.print(warning, soft_wrap=True)
        for line in summary_lines(self.summary):
            self._out.print(line)

    def _warn(self, event: SourceWarning) -> None:
        """Under the table of its source; at once where there is no table."""
        named = event.source in event.message
        line = f"warning: {'' if named else event.source + ': '}{event.message}"
        if self._as_lines or not self._on_stdout:
            self._err.print(line)
        else:
            self._warnings.setdefault(event.source, []).append(line)

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

    def _progress(self, done_s: float, unit: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=done_s, unit=shown(unit))

    def _clip(self, event: ClipDone) -> None:
        answer = event.answer
        self._progress(answer.end_s, f"clip {answer.index + 1}: {answer.label}")
        if self._as_lines:
            if self._on_stdout:
                self._out.print(one_line(answer), soft_wrap=True)
            return
        self.labels.append(answer.label)
        self._rows.setdefault(event.source, []).append(row(answer, narrow=self._narrow))


def columns(*, narrow: bool) -> tuple[str, ...]:
    """Heads of the table; `narrow` fits it into 80 columns by saying less: nets with decide."""
    times = NARROW_TIMES if narrow else TIMES
    return ("clip", "time (s)", "label", "conf.", "exit", *times, "skipped")


def row(answer: ClipAnswer, *, narrow: bool) -> tuple[str, ...]:
    """Cells of `columns`; the milliseconds of a row add up to those of the clip."""
    confidence, exit_, skipped = (
        (f"{answer.confidence:.0%}", f"{answer.exit.modality} {answer.exit.exit}",
         f"{len(answer.segments_skipped)} seg.") if narrow
        else (f"{answer.confidence:.1%}", exit_text(answer), skipped_text(answer)))
    decode_ms, decide_ms = answer.read_ms + answer.decode_ms, answer.decision_ms
    times = (
        (f"{decode_ms:.0f}", f"{answer.load_ms:.0f}", f"{answer.nets_ms + decide_ms:.0f}")
        if narrow else
        (f"{decode_ms:.1f}", f"{answer.load_ms:.1f}", f"{answer.nets_ms:.1f}", f"{decide_ms:.2f}"))
    return (
        str(answer.index + 1), f"{answer.start_s:.2f}-{answer.end_s:.2f}", answer.label,
        confidence, exit_, *times, skipped,
    )


def one_line(answer: ClipAnswer) -> str:
    """An answer as one line of text, for cameras and pipes."""
    return (f"{answer.start_s:9.2f}-{answer.end_s:.2f} s  {answer.label}  {answer.confidence:.1%}"
            f"  {exit_text(answer)}  skipped: {skipped_text(answer)}")


def exit_text(answer: ClipAnswer) -> str:
    """Network, its exit, and the place in the cascade: 'mv 2 (2/12)'."""
    total = len(answer.segments_run) + len(answer.segments_skipped)
    return f"{answer.exit.modality} {answer.exit.exit} ({answer.exit_number}/{total})"


def skipped_text(answer: ClipAnswer) -> str:
    """What was not run and not decoded."""
    if not answer.segments_skipped:
        return "nothing"
    parts = [f"{len(answer.segments_skipped)} segments"]
    if answer.modalities_skipped:
        parts.append(f"all of {' and '.join(answer.modalities_skipped)}")
    if answer.decode.packets_skipped:
        parts.append(f"{answer.decode.packets_skipped} packets")
    return ", ".join(parts)


def summary_lines(summary: RunSummary) -> list[str]:
    """The run in three lines, or in one where nothing was answered."""
    first = (f"{_count(summary.num_clips, 'clip')} in {summary.wall_s:.2f} s after"
             f" {summary.load_s:.2f} s of loading{_troubles(summary)}")
    if not summary.num_clips:
        return [first]
    exits = ", ".join(f"{place} {count}" for place, count in summary.exits.items())
    total = summary.segments_run + summary.segments_skipped
    saved = 1 - summary.gmac / summary.gmac_static if summary.gmac_static else 0.0
    return [
        f"{first}; {summary.model} on {summary.backend}, order {','.join(summary.order)},"
        f" {summary.exit_rule}",
        f"exits taken: {exits} (mean position {summary.mean_exit:.1f})",
        f"skipped: {summary.segments_skipped} of {total} segments, {saved:.0%} of"
        f" {summary.gmac_static:.3g} GMAC, {summary.packets_skipped} packets never decoded",
    ]


def _troubles(summary: RunSummary) -> str:
    parts = []
    if summary.num_failed:
        parts.append(f"{summary.num_failed} of {_count(summary.num_sources, 'source')} failed")
    if summary.num_warnings:
        parts.append(_count(summary.num_warnings, "warning"))
    if summary.ended == "interrupted":
        parts.append("interrupted")
    elif summary.ended == "error":
        parts.append("ended by an error")
    return "".join(f", {part}" for part in parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
