"""Files and folders written whole or not at all."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
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
