"""Shows the events of a run: a progress bar while it goes on, a table at the end, JSON lines."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from edgepkd.cli import output
from edgepkd.cli.source_view import SourceView, drain, is_endless, troubles
from edgepkd.pipeline.run import ClipDone, RunEvent, RunSummary, SaveProgress
from edgepkd.runtime.backend import BackendChosen
from edgepkd.text import counted

if TYPE_CHECKING:
    from edgepkd.runtime.answers import ClipAnswer

TIMES = ("decode\nms", "load\nms", "nets\nms", "decide\nms")
NARROW_TIMES = ("decode\nms", "load\nms", "nets\nms")
NUMBERS = ("clip", "time (s)", "conf.", *TIMES, *NARROW_TIMES)


def show(
    events: Generator[RunEvent, None, None], *, source: Sequence[str],
    json_to: output.JsonTarget, quiet: bool,
) -> RunView:
    """Drain `events` onto stdout, stderr and `json_to` (`drain`); returns what was shown."""
    endless = is_endless(source)
    view = RunView(as_lines=endless, on_stdout=json_to != output.STDOUT, quiet=quiet)
    drain(events, view, json_to=json_to, endless=endless)
    return view


class RunView(SourceView[RunSummary]):
    """What a person sees of a run.

    Attributes:
        labels: the answers so far (none kept for cameras and pipes).
    """

    def __init__(self, *, as_lines: bool, on_stdout: bool, quiet: bool) -> None:
        """As `SourceView`."""
        super().__init__(as_lines=as_lines, on_stdout=on_stdout, quiet=quiet)
        self.labels: list[str] = []
        self._rows: dict[str, list[tuple[str, ...]]] = {}
        self._warnings: dict[str, list[str]] = {}
        self._narrow = self._out.width < output.NARROW

    def take(self, event: RunEvent) -> None:
        """Show one event."""
        if isinstance(event, BackendChosen):
            if not self._quiet:
                self._err.print(f"backend {event.backend}: {event.reason}")
        elif isinstance(event, ClipDone):
            self._clip(event)
        elif isinstance(event, SaveProgress):
            self._progress(event.done_s, "saving")
        elif isinstance(event, RunSummary):
            self.summary = event
        else:
            self.take_source(event)

    def write(self, lines: output.JsonLines, event: RunEvent) -> None:
        """Write the JSON line of an answer or of the summary."""
        if isinstance(event, ClipDone):
            lines.write("clip", {"source": event.source, **event.answer.as_json()})
        elif isinstance(event, RunSummary):
            lines.write("summary", asdict(event))
            lines.keep()

    def finish(self) -> None:
        """Print the tables and the summary."""
        if not self._on_stdout or self.summary is None:
            return
        for source in dict.fromkeys([*self._rows, *self._warnings]):
            self._out.print()
            self._out.print(source)
            if rows := self._rows.get(source):
                self._out.print(output.table(columns(narrow=self._narrow), rows, right=NUMBERS,
                                             whole=("exit",)))
            for warning in self._warnings.get(source, ()):
                self._out.print(warning)
        for line in summary_lines(self.summary):
            self._out.print(line)

    def _warn(self, source: str, line: str) -> None:
        """Under the table of its source; at once where there is no table."""
        if self._as_lines or not self._on_stdout:
            super()._warn(source, line)
        else:
            self._warnings.setdefault(source, []).append(line)

    def _clip(self, event: ClipDone) -> None:
        answer = event.answer
        self._progress(answer.end_s, f"clip {answer.index + 1}: {answer.label}")
        if self._as_lines:
            if self._on_stdout:
                self._out.print(one_line(answer))
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
    parts = [counted(len(answer.segments_skipped), "segment")]
    if answer.modalities_skipped:
        parts.append(f"all of {' and '.join(answer.modalities_skipped)}")
    if answer.decode.packets_skipped:
        parts.append(counted(answer.decode.packets_skipped, "packet"))
    return ", ".join(parts)


def summary_lines(summary: RunSummary) -> list[str]:
    """The run in three lines, or in one where nothing was answered."""
    went_wrong = "".join(f", {part}" for part in troubles(summary))
    first = (f"{counted(summary.num_clips, 'clip')} in {summary.wall_s:.2f} s after"
             f" {summary.load_s:.2f} s of loading{went_wrong}")
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
        f" {summary.gmac_static:.3g} GMAC, {counted(summary.packets_skipped, 'packet')} never"
        " decoded",
    ]
