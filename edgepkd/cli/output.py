"""Data on stdout, the rest on stderr: consoles, JSON lines, plain tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Literal, TextIO

import typer
from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from edgepkd import plain_json
from edgepkd.cli.streams import writing
from edgepkd.files import Skipped
from edgepkd.outputs import Output, check_outputs, open_output
from edgepkd.temporaries import TemporaryFile
from edgepkd.text import shown

JSON_SCHEMA_VERSION = 1
STDOUT: Literal["-"] = "-"
JsonTarget = Output | Literal["-"] | None
PIPE_WIDTH = 160
"""Columns where stdout is no terminal: nothing is cut off in a log file."""
NARROW = 100
"""Below so many columns tables say less."""
SHOWN_SKIPPED = 20
_ANY_WIDTH = 100_000


class PlainConsole(Console):
    """Prints text as it is: a string is one line, without markup, and moves no cursor."""

    def __init__(self, file: TextIO, *, width: int | None = None, soft_wrap: bool = False) -> None:
        super().__init__(file=file, width=width, soft_wrap=soft_wrap, highlight=False,
                         markup=False, emoji=False)

    def print(self, *objects: Any, **settings: Any) -> None:
        """As rich's; strings go through `text.shown`, so that none can break out of its line.

        A line of strings is not wrapped here: a terminal does that by itself, and what is copied
        from it is then still one line, with whole file names.
        """
        if objects and all(isinstance(one, str) for one in objects):
            settings.setdefault("soft_wrap", True)
        super().print(*(shown(one) if isinstance(one, str) else one for one in objects),
                      **settings)


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


def next_step(line: str, *, quiet: bool = False) -> None:
    """What to do next (`next_steps`), as one line to stderr; nothing where there is nothing."""
    if line and not quiet:
        note(f"next: {line}")


def note_cache(folder: Path, *, limit_gb: float, quiet: bool = False) -> None:
    """How full a cache of decoded clips is, as one line to stderr."""
    from edgepkd.training.entries import cache_line

    if folder.is_dir() and not quiet:
        note(cache_line(folder, limit_gb=limit_gb))


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


def print_table(
    console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], *,
    paths: Iterable[str], right: Iterable[str] = (), whole: Iterable[str] = (),
) -> None:
    """Print a table in which the columns named in `paths` hold names of files or folders.

    Where the terminal is too narrow for them they stand below it, each row's on a line of its
    own, with the row's number: a name that is broken cannot be copied.
    """
    paths, right, whole = set(paths), set(right), set(whole)
    made = table(columns, rows, right=right, whole=whole | paths)
    room = console.options.update(max_width=_ANY_WIDTH)
    if Measurement.get(console, room, made).maximum <= console.width:
        console.print(made)
        return
    kept = [i for i, name in enumerate(columns) if name not in paths]
    numbered = [(str(number), *(row[i] for i in kept)) for number, row in enumerate(rows, start=1)]
    console.print(table(("", *(columns[i] for i in kept)), numbered, right=right | {""},
                        whole=whole))
    for number, row in enumerate(rows, start=1):
        named = "  ".join(row[i] for i, name in enumerate(columns) if name in paths)
        console.print(f"{number}  {named}")


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


def print_facts(
    console: Console, pairs: Sequence[tuple[str, str]], *, whole: Iterable[str] = ()
) -> None:
    """Print pairs of name and value, one below the other.

    Long values go on in the next line, between words; those named in `whole` stay on one.
    """
    kept, indent = set(whole), max((len(shown(name)) for name, _ in pairs), default=0) + 1
    for name, value in pairs:
        text, room = shown(value), console.width - indent
        for number, line in enumerate([text] if name in kept else _between_words(text, room)):
            head = shown(name).ljust(indent) if number == 0 else " " * indent
            console.print(Text.assemble((head, "bold"), line), soft_wrap=True)


def _between_words(text: str, columns: int) -> list[str]:
    """`text` in lines of so many columns; a word that is longer has a line of its own."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if lines[-1] and cell_len(longer) > columns:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def json_target(
    json: str | None, *, force: bool, reads: Iterable[Path] = (), writes: Iterable[Path] = ()
) -> JsonTarget:
    """Where --json goes, checked before any work; `reads` and `writes` as in `check_outputs`.

    Raises:
        UsageError: nothing may be written there.
    """
    if json is None or json == STDOUT:
        return STDOUT if json else None
    (output,) = check_outputs([("--json", Path(json))], reads=reads, writes=writes, force=force)
    return output


class JsonLines:
    """One JSON object a line, to stdout, to a file, or nowhere (None).

    A file appears when everything is written, and not at all after an error, unless `keep` was
    called; with `stream` (a camera, which ends only by being stopped) lines are written as they
    come. Nothing is made before the first line.
    """

    def __init__(self, target: JsonTarget, *, stream: bool = False) -> None:
        self._target, self._is_stream = target, stream
        self._kept = False
        self._temporary: TemporaryFile | None = None
        self._file: BinaryIO | None = None

    def write(self, kind: str, values: Mapping[str, Any]) -> None:
        """Write one line, at once.

        Raises:
            StorageError: the disk is full, or it cannot be written. SystemExit: nobody reads.
        """
        if self._target is None:
            return
        line = plain_json.dumps({"schema_version": JSON_SCHEMA_VERSION, "kind": kind, **values})
        # The one control character that JSON does not escape.
        line = line.replace("\x7f", "\\u007f") + "\n"
        if self._target == STDOUT:
            sys.stdout.write(line)
            sys.stdout.flush()
            return
        with writing(self._target.path):
            file = self._file or self._open(self._target)
            file.write(line.encode())
            file.flush()

    def keep(self) -> None:
        """What was written so far is whole: the file stays, whatever happens from here on."""
        self._kept = True

    def _open(self, output: Output) -> BinaryIO:
        if self._is_stream or output.is_stream:
            self._file = open_output(output)
        else:
            self._temporary = TemporaryFile(output.place)
            self._file = self._temporary.file
        return self._file

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not isinstance(self._target, Output):
            return
        try:
            if kind is None or self._kept:
                self._finish(self._target)
        finally:
            for file in (self._temporary, self._file):
                with suppress(OSError):  # of a line that could not be written, which was said
                    if file is not None:
                        file.close()

    def _finish(self, output: Output) -> None:
        with writing(output.path):
            if self._file is None:
                self._open(output)
            if self._temporary is not None:
                self._temporary.commit(before=output.before)
