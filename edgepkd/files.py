"""Files and folders written whole or not at all, and what files lie below a folder."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepkd.errors import StorageError
from edgepkd.temporaries import Temporary, TemporaryFile, recover

FREE_SPACE = "Free some space, or name another folder."


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all; an older file stays until then.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to.
    """
    write_together(path.parent, {path.name: content})


def write_together(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files (name -> content) to `folder`; none gets its name before all are on the disk.

    They get their names in the order given.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to.
    """
    path = folder / next(iter(contents), "")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            waiting = []
            for name, content in contents.items():
                path = folder / name
                waiting.append(stack.enter_context(TemporaryFile(path)))
                waiting[-1].file.write(content)
                waiting[-1].file.flush()
            for temporary in waiting:
                path = temporary.final
                temporary.commit()
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.",
                           hint=FREE_SPACE) from error


def append_line(path: Path, line: str) -> None:
    """Add `line` to `path`, whole or not at all; a last line that a kill cut short is ended first.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab+", buffering=0) as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 1))
            text = ("\n" if file.read(1) not in (b"", b"\n") else "") + line + "\n"
            content = text.encode("utf-8", "backslashreplace")
            try:
                if file.write(content) < len(content):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.",
                           hint=FREE_SPACE) from error


@contextlib.contextmanager
def new_folder(folder: Path, *, what: str, replaces: bool = False) -> Iterator[Path]:
    """A temporary folder to fill, which gets the name `folder` when the block is left.

    A folder that has the name then is replaced where `replaces`; else it stays: another process
    was first, and the name stands for the content. After an error nothing is left. At no time is
    a name that is replaced without a folder; or, where the file system cannot exchange names and
    the process is killed at that very moment, `recover_folder` brings the old one back.

    Raises:
        StorageError: `what` cannot be written: the disk is full, or the place is read-only.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with Temporary.new_folder(folder) as temporary:
            yield temporary.path
            if replaces:
                temporary.replace()
                return
            try:
                temporary.commit()
            except OSError:
                if not folder.is_dir():
                    raise
    except OSError as error:
        raise StorageError(f"{what} cannot be written to {folder.parent}: "
                           f"{error.strerror or error}.", hint=FREE_SPACE) from error


def recover_folder(folder: Path) -> None:
    """Bring back a folder that a killed process was just replacing; to be called before reading.

    Nothing happens where there is nothing to bring back.
    """
    if not os.path.lexists(folder):
        recover(folder)


def csv_bytes(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """A CSV file with a head; bytes of a file name that are no UTF-8 are written as escapes."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return text.getvalue().encode("utf-8", "backslashreplace")


@dataclass(frozen=True)
class Skipped:
    """Something in a folder that is not taken."""

    path: Path
    reason: str
    """Why, in words that follow "skipped: "."""


@dataclass(frozen=True)
class Walk:
    """What lies below a folder, links followed."""

    files: tuple[Path, ...]
    """Regular files, sorted; each by the path that leads to it from the folder."""
    skipped: tuple[Skipped, ...]
    """What could not be looked at or is no file, sorted by path; hidden names are not listed."""


def walk_files(folder: Path) -> Walk:
    """All files in `folder` and below it, through links to files and folders as well.

    Names that begin with a dot are passed over. A link to a folder that it lies in itself is
    skipped, so a walk ends; a folder that two links lead to is walked by both.
    """
    files: list[Path] = []
    skipped: list[Skipped] = []
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(folder, frozenset())]
    while waiting:  # no recursion: folders may be nested deeper than Python calls
        path, above = waiting.pop()
        try:
            status = path.stat()
            identity = (status.st_dev, status.st_ino)
            if stat.S_ISREG(status.st_mode):
                files.append(path)
            elif not stat.S_ISDIR(status.st_mode):
                skipped.append(Skipped(path, "neither a file nor a folder"))
            elif identity in above:
                skipped.append(Skipped(path, "a link to a folder that it lies in"))
            else:
                waiting += [(path / name, above | {identity})
                            for name in os.listdir(path) if not name.startswith(".")]
        except OSError as error:
            skipped.append(Skipped(path, _why_not_read(path, error)))
    return Walk(tuple(sorted(files)), tuple(sorted(skipped, key=lambda one: one.path)))


def _why_not_read(path: Path, error: OSError) -> str:
    reason = (error.strerror or str(error)).lower()
    if not path.is_symlink():
        return f"cannot be read: {reason}"
    kind = "a broken link" if isinstance(error, FileNotFoundError) else "a link"
    return f"{kind} to {os.readlink(path)}, which cannot be read: {reason}"
