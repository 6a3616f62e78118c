"""Where a command may write what its options name: over no source, no bundle, and not each other.

Everything is checked before any work begins and before anything is made. Files are compared by what
they are, not by what they are called: links, hard links and descriptors lead to the same file. A
link to a file stays, and the file it leads to is replaced as a whole; a link to nothing is refused.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from edgepkd.bundle.manifest import MANIFEST, SEGMENTS, SUFFIX
from edgepkd.errors import UsageError
from edgepkd.files import walk_files
from edgepkd.temporaries import Identity

_OTHER_NAME = "Choose another name."
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}
_DESCRIPTOR = re.compile(r"/(?:dev|proc/self|proc/thread-self|proc/\d+)/fd/([12])")
_JSON_LINES = re.compile(rb'\{"schema_version": \d+, "kind": "')


@dataclass(frozen=True)
class Output:
    """A place that was found fit to be written."""

    option: str
    path: Path
    """As it was named."""
    place: Path
    """Where that leads to, all links followed."""
    before: Identity | None
    """The regular file that is there and may be replaced."""
    is_stream: bool = False
    """Whether it is a device or a pipe, which is written to as it is."""
    descriptor: int | None = None
    """Standard output or error, where that is what is named."""


def check_outputs(
    named: Iterable[tuple[str, Path]], *, reads: Iterable[Path] = (), writes: Iterable[Path] = (),
    force: bool = False, makes_folders: bool = False,
) -> list[Output]:
    """Find the places of `named`, pairs of option and path, or refuse one.

    `reads` are the files and folders that the command reads, `writes` files that it writes besides.
    Nothing there is ever replaced, but with `force` JSON lines in a folder that is read. With
    `makes_folders` the folder of a file need not be there.

    Raises:
        UsageError: a place is a source, lies in a bundle, is named twice, is there already (without
            `force`), or cannot be written.
    """
    outputs = [_output(option, path, makes_folders=makes_folders) for option, path in named]
    read, written = (list(reads), list(writes)) if outputs else ([], [])
    for number, output in enumerate(outputs):
        _refuse_read(output, read)
        _refuse_bundle(output)
        for option, path in [*((other.option, other.path) for other in outputs[:number]),
                             *(("", path) for path in written)]:
            if _is_same(output.path, path):
                what = f"{option} {path}".strip()
                raise UsageError(f"{output.option} {output.path} and {what}, which is written too,"
                                 " are the same file.", hint=_OTHER_NAME)
        if output.before is not None and not force:
            raise UsageError(f"{output.option} {output.path} is there already; it is not"
                             " overwritten.", hint="Choose another name, or replace it: --force")
    return outputs


def check_folder(name: str, folder: Path) -> None:
    """Refuse a folder in which nothing may be made; it need not be there yet.

    Raises:
        UsageError: it is or lies in a bundle, or is a file.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise _cannot(name, folder, "it is no folder")
    place = Path(os.path.realpath(folder))
    _refuse_bundle(Output(name, folder, place / "any", None))


def open_output(output: Output) -> BinaryIO:
    """Open what is written as it comes: a pipe, a device, or a file that others watch grow.

    Raises:
        OSError: it cannot be written, or another file is there by now.
    """
    if output.descriptor is not None:
        return open(os.dup(output.descriptor), "wb")
    flags = os.O_WRONLY | os.O_NOCTTY | os.O_NOFOLLOW
    if output.is_stream:
        return open(os.open(output.path, flags & ~os.O_NOFOLLOW), "wb")
    if output.before is None:
        return open(os.open(output.place, flags | os.O_CREAT | os.O_EXCL, 0o666), "wb")
    file = open(os.open(output.place, flags), "wb")  # noqa: SIM115
    status = os.fstat(file.fileno())
    if (status.st_dev, status.st_ino) != output.before:
        file.close()
        raise FileExistsError(errno.EEXIST, "another file has this name by now")
    file.truncate(0)
    return file


def _output(option: str, path: Path, *, makes_folders: bool) -> Output:
    """What is at `path`, and whether something can be written there at all."""
    try:
        place = Path(os.path.realpath(path))
        status = _status(path)
        if status is None and path.is_symlink():
            raise UsageError(f"{option} {path} is a link to {os.readlink(path)}, where nothing"
                             " is.", hint="Remove the link, or name the place itself.")
    except (OSError, ValueError) as error:
        raise _cannot(option, path, getattr(error, "strerror", None) or str(error)) from error
    if status is None or stat.S_ISREG(status.st_mode):
        descriptor = _standard(path) if status else None
        if descriptor is not None:
            return Output(option, path, place, None, is_stream=True, descriptor=descriptor)
        _check_folder(option, path, place.parent, makes_folders=makes_folders)
        before = None if status is None else (status.st_dev, status.st_ino)
        return Output(option, path, place, before)
    if stat.S_ISCHR(status.st_mode) or stat.S_ISFIFO(status.st_mode):
        return Output(option, path, place, None, is_stream=True, descriptor=_standard(path))
    raise _cannot(option, path, "it is a folder" if stat.S_ISDIR(status.st_mode) else
                  "it is neither a file nor a pipe")


def _status(path: Path) -> os.stat_result | None:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _standard(path: Path) -> int | None:
    name = os.path.abspath(path)
    found = _DESCRIPTOR.fullmatch(name)
    return int(found[1]) if found else _STANDARD.get(name)


def _check_folder(option: str, path: Path, folder: Path, *, makes_folders: bool) -> None:
    while makes_folders and not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    if not folder.is_dir():
        raise _cannot(option, path, "it lies in no folder that is there")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _cannot(option, path, os.strerror(errno.EACCES))


def _cannot(option: str, path: Path, why: str) -> UsageError:
    return UsageError(f"{option} {path} cannot be written: {why}.",
                      hint="Name a file in a folder that is there and can be written to.")


def _refuse_read(output: Output, reads: Sequence[Path]) -> None:
    for read in reads:
        if _is_same(output.path, read):
            raise _is_read(output, read)
        if not read.is_dir():
            continue
        inside = output.place.is_relative_to(os.path.realpath(read))
        if inside and output.before is not None and not _holds_json_lines(output.place):
            raise UsageError(f"{output.option} {output.path} lies in {read}, which is read; it is"
                             " not overwritten.", hint=_OTHER_NAME)
        if _is_bundle(read):
            for file in walk_files(read).files:
                if _is_same(output.path, file):
                    raise _is_read(output, file)


def _is_read(output: Output, read: Path) -> UsageError:
    return UsageError(f"{output.option} {output.path} is the same file as {read}, which is read;"
                      " it is not overwritten.", hint=_OTHER_NAME)


def _refuse_bundle(output: Output) -> None:
    for folder in output.place.parents:
        if _is_bundle(folder):
            raise UsageError(f"{output.option} {output.path} lies in the bundle {folder}, which"
                             " holds only what was verified.", hint="Name a place elsewhere.")


def _is_bundle(folder: Path) -> bool:
    """Whether it is one, even a damaged one; web pages have a manifest.json as well."""
    has_manifest = os.path.lexists(folder / MANIFEST)
    return folder.is_dir() and (folder.suffix.lower() == SUFFIX
                                or (has_manifest and os.path.lexists(folder / SEGMENTS)))


def _is_same(one: Path, other: Path) -> bool:
    """Whether both are one file, or would be if they were there: case may not count."""
    try:
        return os.path.samefile(one, other)
    except (OSError, ValueError):
        return _key(one) == _key(other)


def _key(path: Path) -> str:
    return unicodedata.normalize("NFC", os.path.realpath(path)).casefold()


def _holds_json_lines(path: Path) -> bool:
    """Whether an earlier --json wrote it."""
    try:
        with path.open("rb") as file:
            return _JSON_LINES.match(file.read(64)) is not None
    except OSError:
        return False
