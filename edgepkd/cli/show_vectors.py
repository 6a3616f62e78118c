"""Shows how vector files are written: a progress bar, a table of folders, JSON lines."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import asdict

from edgepkd.cli import output
from edgepkd.cli.source_view import SourceView, drain, is_endless, troubles
from edgepkd.pipeline.run import SaveProgress
from edgepkd.pipeline.vectors import (
    FolderWritten,
    VectorsEvent,
    VectorsSummary,
    VectorsWritten,
)
from edgepkd.text import counted

COLUMNS = ("source", "folder", "files", "frames", "time (s)", "MB")


def show(
    events: Generator[VectorsEvent, None, None], *, source: Sequence[str],
    json_to: output.JsonTarget, quiet: bool,
) -> int:
    """Drain `events` onto stdout, stderr and `json_to` (`drain`); returns the exit code."""
    endless = is_endless(source)
    view = VectorsView(as_lines=endless, on_stdout=json_to != output.STDOUT, quiet=quiet)
    drain(events, view, json_to=json_to, endless=endless)
    return view.exit_code


class VectorsView(SourceView[VectorsSummary]):
    """What a person sees."""

    def __init__(self, *, as_lines: bool, on_stdout: bool, quiet: bool) -> None:
        """As `SourceView`."""
        super().__init__(as_lines=as_lines, on_stdout=on_stdout, quiet=quiet)
        self._rows: list[tuple[str, ...]] = []

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
        elif isinstance(event, VectorsSummary):
            self.summary = event
        else:
            self.take_source(event)

    def write(self, lines: output.JsonLines, event: VectorsEvent) -> None:
        """Write the JSON line of a file, a folder or the summary."""
        if isinstance(event, VectorsWritten):
            lines.write("file", {"path": str(event.path), "bytes": event.num_bytes,
                                 **asdict(event.row)})
        elif isinstance(event, FolderWritten):
            lines.write("folder", {**asdict(event), "folder": str(event.folder)})
        elif isinstance(event, VectorsSummary):
            lines.write("summary", {**asdict(event), "out": str(event.out)})
            lines.keep()

    def finish(self) -> None:
        """Print the table and the summary."""
        if not self._on_stdout or self.summary is None:
            return
        if self._rows and not self._as_lines:
            output.print_table(self._out, COLUMNS, self._rows, paths=COLUMNS[:2],
                               right=COLUMNS[2:])
        self._out.print(summary_line(self.summary))

    def _file(self, event: VectorsWritten) -> None:
        self._progress(event.row.end_s, event.row.file)
        if self._as_lines and self._on_stdout:
            row = event.row
            self._out.print(f"{row.start_s:9.2f}-{row.end_s:.2f} s  {event.path}  {row.frames}"
                            f" frames  {event.num_bytes / 1e6:.2f} MB")


def summary_line(summary: VectorsSummary) -> str:
    """The run in one line."""
    return ", ".join([
        f"{counted(summary.num_files, 'file')} in {summary.out}, "
        f"{counted(summary.num_frames, 'frame')}, {summary.num_bytes / 1e6:.1f} MB in "
        f"{summary.wall_s:.2f} s", *troubles(summary)])
