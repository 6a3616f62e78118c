"""Files and folders written whole or not at all, and what files lie below a folder."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepkd.errors import StorageError


def write_atomically(path: Path, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all; an older file stays until then.

    Raises:
        StorageError: the disk is full, or the folder cannot be written to.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.",
                           hint="Free some space, or name another folder.") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(folder: Path, *, what: str) -> Iterator[Path]:
    """A temporary folder to fill, which gets the name `folder` when the block is left.

    Where another process was first, its folder stays: the name stands for the content. After an
    error nothing is left.

    Raises:
        StorageError: `what` cannot be written: the disk is full, or the place is read-only.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        try:
            temporary.rename(folder)
        except OSError:
            if not folder.is_dir():
                raise
    except OSError as error:
        raise StorageError(f"{what} cannot be written to {folder.parent}: "
                           f"{error.strerror or error}.",
                           hint="Free some space, or name another folder.") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_folder(new: Path, folder: Path) -> None:
    """Give `new` the name `folder`; what was there before goes, or comes back if that fails.

    Raises:
        StorageError: the place cannot be written to.
    """
    old = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.old")
    try:
        if folder.exists():
            folder.rename(old)
        new.rename(folder)
    except OSError as error:
        raise StorageError(f"{folder} cannot be replaced: {error.strerror or error}.",
                           hint="Free some space, or make the folder writable.") from error
    finally:
        if old.exists() and not folder.exists():
            old.rename(folder)
        shutil.rmtree(old, ignore_errors=True)


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
