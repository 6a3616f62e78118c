"""Data on stdout, the rest on stderr: consoles, JSON lines, plain tables."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, TextIO

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from edgepkd import plain_json
from edgepkd.errors import StorageError, UsageError
from edgepkd.files import Skipped
from edgepkd.text import shown

JSON_SCHEMA_VERSION = 1
PIPE_WIDTH = 160
"""Columns where stdout is no terminal: nothing is cut off in a log file."""
NARROW = 100
"""Below so many columns tables say less."""
SHOWN_SKIPPED = 20


class PlainConsole(Console):
    """Prints text as it is: a string is one line, without markup, and moves no cursor."""

    def __init__(self, file: TextIO, *, width: int | None = None, soft_wrap: bool = False) -> None:
        super().__init__(file=file, width=width, soft_wrap=soft_wrap, highlight=False,
                         markup=False, emoji=False)

    def print(self, *objects: Any, **settings: Any) -> None:
        """As rich's; strings go through `text.shown`, so that none can break out of its line.

        Raises:
            StorageError: the disk is full.
        """
        with _full_disk("standard output" if self.file is sys.stdout else "standard error"):
            super().print(*(shown(one) if isinstance(one, str) else one for one in objects),
                          **settings)


@contextmanager
def _full_disk(target: object) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # whoever read has seen enough
        raise
    except OSError as error:
        raise StorageError(f"{target} cannot be written: {error.strerror or error}.",
                           hint="Free some space.") from error


def stdout() -> Console:
    """Console for answers; NO_COLOR and COLUMNS are honoured."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return PlainConsole(sys.stdout, width=width)


def stderr() -> Console:
    """Console for progress, notes and errors."""
    return PlainConsole(sys.stderr, soft_wrap=True)


def note(line: str) -> None:
    """One line to stderr, for what is no error: 'note: …', 'saved …'."""
    typer.echo(shown(line), err=True)


def table(
    columns: Iterable[str], rows: Iterable[Iterable[str]], *,
    right: Iterable[str] = (), whole: Iterable[str] = (),
) -> Table:
    """A table whose cells are taken literally; numbers stand in the columns named in `right`.

    These and the columns named in `whole` keep their cells on one line in a narrow terminal.
    """
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1), collapse_padding=True)
    numbers = set(right)
    kept = numbers | set(whole)
    for column in columns:
        made.add_column(Text(column), justify="right" if column in numbers else "left",
                        overflow="fold", no_wrap=column in kept)
    for row in rows:
        made.add_row(*(Text(shown(cell)) for cell in row))
    return made


def show_skipped(console: Console, skipped: Sequence[Skipped]) -> None:
    """Say what is in a folder and is not taken."""
    for one in skipped[:SHOWN_SKIPPED]:
        console.print(f"skipped: {one.path}: {one.reason}")
    if len(skipped) > SHOWN_SKIPPED:
        console.print(f"skipped: {len(skipped) - SHOWN_SKIPPED} more")


def write_skipped(lines: JsonLines, skipped: Iterable[Skipped]) -> None:
    """Write a line for each thing that is not taken."""
    for one in skipped:
        lines.write("skipped", {"path": str(one.path), "reason": one.reason})


def facts(pairs: Iterable[tuple[str, str]]) -> Table:
    """Two columns without a head: name and value."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        made.add_row(Text(shown(name)), Text(shown(value)))
    return made


class JsonLines:
    """One JSON object a line, to stdout ('-'), to a file, or nowhere (None).

    A file appears when everything is written, and not at all after an error, unless `keep` was
    called; with `stream` (a camera, which ends only by being stopped) lines are written as they
    come.
    """

    def __init__(self, target: str | None, *, stream: bool = False) -> None:
        """Open `target`.

        Raises:
            UsageError: it cannot be written, or holds what this program has not written.
        """
        self._kept = False
        self._final: Path | None = None
        self._temporary: Path | None = None
        self._file: TextIO | None = None
        if target is None:
            return
        if target == "-":
            self._file = sys.stdout
            return
        self._final = path = Path(target)
        try:
            _check_overwritten(path)
            if not stream and (path.is_file() or not path.exists()):
                path = self._temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
            self._file = path.open("w", encoding="utf-8")
        except OSError as error:
            raise UsageError(f"--json {target} cannot be written: {error.strerror}.",
                             hint="Name a file in a folder that exists, or -.") from error

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        """Write one line, at once.

        Raises:
            StorageError: the disk is full.
        """
        if self._file is None:
            return
        line = plain_json.dumps({"schema_version": JSON_SCHEMA_VERSION, "kind": kind, **values})
        with _full_disk(self._final or "standard output"):
            # The one control character that JSON does not escape.
            self._file.write(line.replace("\x7f", "\\u007f") + "\n")
            self._file.flush()

    def keep(self) -> None:
        """What was written so far is whole: the file stays, whatever happens from here on."""
        self._kept = True

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None and self._final is not None:
            with suppress(OSError):  # of a line that could not be written, which was said
                self._file.close()
        if self._temporary is None or self._final is None:
            return
        if kind is None or self._kept:
            os.replace(self._temporary, self._final)
        else:
            self._temporary.unlink(missing_ok=True)


def _check_overwritten(path: Path) -> None:
    """Refuse to replace what holds no JSON lines: it may be the video itself."""
    if not path.is_file():
        return
    with path.open("rb") as file:
        if file.read(1) not in (b"", b"{"):
            raise UsageError(f"--json {path} is there and holds no JSON lines; it is not"
                             " overwritten.", hint="Choose another name, or remove it.")
