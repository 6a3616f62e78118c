"""How far a long task is: a bar in a terminal, elsewhere a line now and then.

In a narrow terminal the title is cut and the numbers beside the bar give way; the bar, the count
and the time left stay whole.
"""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from edgepkd.closing import Closing
from edgepkd.text import shown

WIDE = 100
"""From so many columns on the bar is long, and the time gone is shown, too."""
_LINES = 10
"""Lines of a task where no terminal is, if nothing else is asked for."""


def progress(
    console: Console, *, counts: bool = True, stays: bool = False, hidden: bool = False
) -> Progress:
    """A bar for each task; nothing where `console` is no terminal.

    It is gone when the work is done, unless it `stays`.
    Tasks have a field `numbers`: text beside the bar. Without `counts` (seconds of a video, say)
    no count is shown.
    """
    is_wide = console.width >= WIDE
    fixed: list[ProgressColumn] = [
        BarColumn(bar_width=24 if is_wide else 12, table_column=Column(no_wrap=True))]
    if counts:
        fixed.append(MofNCompleteColumn(table_column=Column(no_wrap=True)))
    if is_wide:
        fixed.append(TimeElapsedColumn(table_column=Column(no_wrap=True)))
    fixed += [TextColumn("left", table_column=Column(no_wrap=True)),
              TimeRemainingColumn(compact=True, table_column=Column(no_wrap=True))]
    title_columns = max(10, console.width // 4)
    return Progress(
        _Cut("title", Column(no_wrap=True, max_width=title_columns)), *fixed,
        _Cut("numbers", Column()), console=console, transient=not stays,
        disable=hidden or not console.is_terminal, speed_estimate_period=600)


class _Cut(ProgressColumn):
    """Text of a task on one line, cut at the end where there is no room for it."""

    def __init__(self, what: str, column: Column) -> None:
        super().__init__(table_column=column)
        self._what = what

    def render(self, task: Task) -> Text:
        text = task.description if self._what == "title" else task.fields.get("numbers", "")
        return Text(shown(text), no_wrap=True, overflow="ellipsis")


class Steps(Closing):
    """Shows tasks on a console, one after the other or several at once.

    In a terminal each has a bar. Elsewhere it has a line every `every` steps, or at every tenth
    of its way, with the time left.
    """

    def __init__(
        self, console: Console, *, every: int | None = None, stays: bool = False,
        quiet: bool = False,
    ) -> None:
        self._console, self._every, self._quiet = console, every, quiet
        self._progress = progress(console, stays=stays, hidden=quiet)
        self._tasks: dict[str, TaskID] = {}
        self._began: dict[str, tuple[float, int]] = {}
        self._last_s = time.monotonic()

    def begin(self, title: str, total: int, *, done: int = 0) -> None:
        """Start a task, or start it again where `done` steps of it were done before."""
        self._began[title] = time.monotonic(), done
        if title in self._tasks:
            self._progress.reset(self._tasks[title], total=total, completed=done)
        else:
            self._tasks[title] = self._progress.add_task(title, total=total, completed=done,
                                                         numbers="")

    def update(self, title: str, done: int, total: int, *, numbers: str = "") -> None:
        """Say that `done` of `total` steps are done; a task that was not begun begins now."""
        if title not in self._tasks:
            self.begin(title, total)
            self._began[title] = self._last_s, 0  # its first step began when the last one ended
        self._last_s = time.monotonic()
        self._progress.update(self._tasks[title], completed=done, numbers=numbers)
        every = self._every or max(1, total // _LINES)
        if not self._console.is_terminal and not self._quiet and (
                done == total or (done and done % every == 0)):
            parts = (title, f"{done}/{total}", self._left(title, done, total), numbers)
            self._console.print(shown("  ".join(part for part in parts if part)))

    def _left(self, title: str, done: int, total: int) -> str:
        began, before = self._began[title]
        if done <= before or done >= total:
            return ""
        left_s = (time.monotonic() - began) * (total - done) / (done - before)
        return f"left {clock(left_s)}"

    def __enter__(self) -> Steps:
        self._progress.start()
        return self

    def close(self) -> None:
        """Take the bars away; closing twice is harmless."""
        self._progress.stop()


def clock(seconds: float) -> str:
    """Seconds as H:MM:SS."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
