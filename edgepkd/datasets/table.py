"""The rows of an index file: CSV as tools and spreadsheets write it.

Cells may be parted by commas, semicolons, tabs or bars; the text may be UTF-8 or, with a byte
order mark, UTF-16; heads count in any case and with blanks around them. A column that is not there
under its own name is looked for under those that others use (NAMES).
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepkd.errors import DataError

COLUMNS = ("path", "label", "group", "split")
NAMES = {
    "path": ("file", "filename", "file_name", "filepath", "file_path", "video", "video_path",
             "video_file", "video_name", "videoname", "clip", "clip_path", "clip_name"),
    "label": ("class", "classname", "class_name", "action", "activity", "category", "label_name"),
    "group": ("person", "person_id", "subject", "subject_id", "actor", "actor_id", "recording"),
    "split": ("subset", "partition", "set"),
}
"""What others call the columns; blanks and hyphens count as `_`."""
_DELIMITERS = (",", ";", "\t", "|")
_SEPARATOR_LINE = re.compile(r"sep=(.)\r?\n?", re.IGNORECASE)
"""What Excel may begin a file with."""
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Table:
    """Rows of an index file, each with at least the cells path, label, group and split."""

    rows: tuple[dict[str, str], ...]
    notes: tuple[str, ...]
    """Which columns were taken for which, and what in place of those that are not there."""
    has_groups: bool = True
    """False: a clip's group is its file's name."""


def read_table(path: Path, *, needed: Sequence[str] = ("path", "label")) -> Table:
    """Rows of an index file.

    Names of columns are in lower case, names and cells without blanks around them. A missing group
    is the file's name without suffix, as in folders of classes; a missing split is empty.

    Raises:
        DataError: no such file, it is no CSV, one of the columns `needed` is missing or comes
            twice, several could be meant by one, or a row has too few or too many cells, no path
            or no label.
    """
    text = _text_of(path)
    try:
        reader = _reader(text, needed)
        head = tuple(name.strip().lower() for name in next(reader, []))
        columns, notes = _understood(head, path)
        _check_columns(columns, path, needed)
        rows = tuple(_rows(reader, columns, path))
    except csv.Error as error:
        raise DataError(f"index {path} is no CSV file: {error}.") from error
    absent = [name for name in ("group", "split") if name not in columns]
    for row in rows:
        row.setdefault("group", Path(row["path"]).stem)
        row.setdefault("split", "")
    instead = {"group": "a clip's group is its file's name", "split": "the splits are drawn"}
    notes += tuple(f"{path.name} has no column {name}: {instead[name]}" for name in absent)
    return Table(rows, notes, "group" not in absent)


def _understood(head: Sequence[str], path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The head with the names that edgepkd uses, and a line for each column that has another.

    Raises:
        DataError: a column is not there under its name, and several could be meant.
    """
    columns, notes = list(head), []
    for name, others in NAMES.items():
        meant = [column for column in head if _plain(column) in others]
        if name in head or not meant:
            continue
        if len(meant) > 1:
            raise DataError(f"{path} has no column {name}, and any of {', '.join(meant)} could be "
                            "meant.", hint=f"Name one of them {name!r}.")
        columns[head.index(meant[0])] = name
        notes.append(f"{path.name}: column {meant[0]!r} is taken as {name}")
    return tuple(columns), tuple(notes)


def _text_of(path: Path) -> str:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"index {path} cannot be read: {error.strerror}.",
            hint="Name the file, or a folder that `edgepkd data prepare` made.") from error
    try:
        text = content.decode("utf-16" if content.startswith(_UTF16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"index {path} is no CSV file in UTF-8 or UTF-16: {error}.",
                        hint="Save it as 'CSV UTF-8' in the spreadsheet.") from error
    if "\0" in text:
        raise DataError(f"index {path} is no CSV file: it holds NUL.",
                        hint="Save it as 'CSV UTF-8' in the spreadsheet.")
    return text


def _reader(text: str, needed: Sequence[str]) -> Iterator[list[str]]:
    """A CSV reader with the delimiter that the file names, or that its head makes sense with."""
    if named := _SEPARATOR_LINE.match(text):
        return _csv(text[named.end():], named[1])
    head = text.partition("\n")[0].partition("\r")[0]

    known = {*COLUMNS, *needed}.union(*NAMES.values())

    def num_found(delimiter: str) -> int:
        names = {name.strip().lower() for name in next(_csv(head, delimiter), [])}
        return len({_plain(name) for name in names} & known)

    return _csv(text, max(_DELIMITERS, key=num_found))


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name)


def _csv(text: str, delimiter: str) -> Iterator[list[str]]:
    return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)


def _check_columns(columns: Sequence[str], path: Path, needed: Sequence[str]) -> None:
    if missing := [name for name in needed if name not in columns]:
        raise DataError(f"{path} has no column {', '.join(missing)}; needed: {', '.join(needed)}; "
                        f"its head is: {', '.join(map(repr, columns)) or 'empty'}.",
                        hint="Part cells with commas, semicolons, tabs or bars.")
    twice = [name for name, count in Counter(columns).items() if count > 1 and name]
    if twice:
        raise DataError(f"{path} has more than one column {', '.join(twice)}.",
                        hint="Names of columns count in any case; rename one.")


def _rows(
    reader: Iterator[list[str]], columns: Sequence[str], path: Path
) -> Iterator[dict[str, str]]:
    for cells in reader:
        if not any(cell.strip() for cell in cells):
            continue  # spreadsheets write empty rows
        where = f"{path} line {reader.line_num}"  # type: ignore[attr-defined]
        if any(cell.strip() for cell in cells[len(columns):]):
            raise DataError(f"{where} has {len(cells)} cells, more than the head ({len(columns)}).",
                            hint='Put a cell that holds the delimiter in quotes: "...".')
        row = {name: cell.strip() for name, cell in zip(columns, cells, strict=False) if name}
        if any(name in columns and name not in row for name in COLUMNS):
            raise DataError(f"{where} has {len(cells)} cells, fewer than the head "
                            f"({len(columns)}).")
        if empty := [name for name in ("path", "label") if not row[name]]:
            raise DataError(f"{where} has no {' and no '.join(empty)}.")
        yield row
