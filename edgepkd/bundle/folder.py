"""A folder of a bundle, held open: what is below is looked up there, and links are never followed.

A bundle may come from a stranger. A link in it could show any file, and make a writer change one
that lies elsewhere; a FIFO could hold a reader for ever, and a device do as it likes. So each name
is looked up in the folder that was opened, one step at a time, and what is neither a plain file nor
a folder is refused before it is opened. Only the path to the bundle itself may lead through links.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Literal

from edgepkd.closing import Closing
from edgepkd.errors import BundleError, StorageError
from edgepkd.renames import swap_folder

Kind = Literal["file", "folder", "link", "other"]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: should a FIFO take the place of the file between look and open.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHANGED = "Do not use this bundle unless you know who changed it."
_ASIDE = re.compile(r"\.(?P<name>[^.].*)\.[0-9a-f]{8}\.aside", re.DOTALL)
_OF_OLD = re.compile(r"(fresh\.)?\d+\.[0-9a-f]{8}\.(old|tmp)")
"""What the first version has left after a kill."""
_ROOM = "Free some space, or copy the bundle where you may write."


class Folder(Closing):
    """An open folder. `relative` is always a path below it with forward slashes, without '..'.

    Attributes:
        path: what to call it in a message.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        """Take over `descriptor`; use `open_folder` or `Folder.folder`."""
        self.path = path
        self._descriptor = descriptor

    # ---- looking

    def kind(self, relative: str) -> Kind | None:
        """What lies there; None: nothing.

        Raises:
            BundleError: a folder on the way is a link or no folder.
        """
        with self._above(relative) as (above, name):
            if above is None:
                return None
            try:
                mode = os.stat(name, dir_fd=above, follow_symlinks=False).st_mode
            except FileNotFoundError:
                return None
            except OSError as error:
                raise self._unreadable(relative, error) from error
        return _kind(mode)

    def size(self, relative: str) -> int | None:
        """Bytes of a plain file; None: nothing is there.

        Raises:
            BundleError: it, or a folder on the way, is a link, a FIFO or the like.
        """
        with self._above(relative) as (above, name):
            if above is None or not self._is_there(above, name, relative, wanted="file"):
                return None
            try:
                return os.stat(name, dir_fd=above, follow_symlinks=False).st_size
            except OSError as error:
                raise self._unreadable(relative, error) from error

    def require(self, relative: str, kind: Kind) -> None:
        """Refuse what is there and is no plain file, or no folder, as `kind` says.

        Raises:
            BundleError: says what it is.
        """
        found = self.kind(relative)
        if found is not None and found != kind:
            raise self._not_plain(relative, found, wanted=kind)

    def names(self) -> tuple[str, ...]:
        """All names in it, sorted.

        Raises:
            BundleError: it cannot be read.
        """
        try:
            return tuple(sorted(os.listdir(self._descriptor)))
        except OSError as error:
            raise self._unreadable(".", error) from error

    def read(self, relative: str, *, max_bytes: int) -> bytes | None:
        """Content of a plain file; None: nothing is there.

        Raises:
            BundleError: it, or a folder on the way, is a link, a FIFO or the like; it cannot be
                read, or has more than `max_bytes`.
        """
        with self._above(relative) as (above, name):
            if above is None or not self._is_there(above, name, relative, wanted="file"):
                return None
            try:
                descriptor = os.open(name, _READ, dir_fd=above)
            except FileNotFoundError:
                return None
            except OSError as error:
                raise self._unreadable(relative, error) from error
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise self._not_plain(relative, _kind(status.st_mode), wanted="file")
            if status.st_size > max_bytes:
                raise self._too_long(relative, status.st_size, max_bytes)
            try:
                content = file.read(status.st_size + 1)  # as much is set aside for it
            except OSError as error:
                raise self._unreadable(relative, error) from error
        if len(content) > max_bytes:  # it grew
            raise self._too_long(relative, len(content), max_bytes)
        return content

    def folder(self, relative: str, *, create: bool = False) -> Folder | None:
        """The folder `relative`, open; None: nothing is there, and it was not to be made.

        Raises:
            BundleError: it, or a folder on the way, is a link or no folder.
            StorageError: it cannot be made.
        """
        descriptor = os.dup(self._descriptor)
        for number, part in enumerate(_parts(relative), start=1):
            place = "/".join(_parts(relative)[:number])
            try:
                if create:
                    self._make(descriptor, part, place)
                if not self._is_there(descriptor, part, place, wanted="folder"):
                    return None
                inner = os.open(part, _FOLDER, dir_fd=descriptor)
            except OSError as error:
                raise self._unreadable(place, error) from error
            finally:
                os.close(descriptor)
            descriptor = inner
        return Folder(self.path / relative, descriptor)

    # ---- changing

    def write(self, relative: str, content: bytes) -> None:
        """Write a plain file, whole or not at all; an older plain file stays until then.

        Raises:
            BundleError: a link, or what is no plain file, is there.
            StorageError: the disk is full, or the folder cannot be written to.
        """
        with self._above(relative) as (above, name):
            if above is None:
                raise self._unwritable(relative, FileNotFoundError("no such folder"))
            self._is_there(above, name, relative, wanted="file")
            temporary = f".{name[:200]}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
            try:
                with open(os.open(temporary, _CREATE, 0o666, dir_fd=above), "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
                os.rename(temporary, name, src_dir_fd=above, dst_dir_fd=above)
            except OSError as error:
                raise self._unwritable(relative, error) from error
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=above)

    def rename(self, old: str, new: str) -> None:
        """Give what is called `old` in this folder the name `new`, also in it; an empty folder or a
        plain file of that name goes.

        Raises:
            StorageError: it cannot be done.
        """
        try:
            os.rename(old, new, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
        except OSError as error:
            raise self._unwritable(new, error) from error

    def replace(self, old: str, new: str) -> None:
        """Give the folder `old` the name `new`; a folder that has it goes. Both are names in here.

        Where the system can exchange names, `new` is a folder at all times. Elsewhere the folder
        that goes is called `.NEW.RANDOM.aside` for a moment; `recover` brings it back after a kill.
        It is locked until it is gone: who asks for the lock of `old` waits for that.

        Raises:
            BundleError: `new` is a link or no folder. StorageError: it cannot be done.
        """
        try:
            going = self.folder(new)
            if going is None:
                self.rename(old, new)
            else:
                with going:
                    going.lock(wait=True)
                    aside = f".{new}.{secrets.token_hex(4)}.aside"
                    left = swap_folder(old, new, aside=aside, within=self._descriptor)
                    self.remove(str(left))
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._unwritable(new, error) from error

    def recover(self, name: str) -> None:
        """Finish what a killed `replace` has left: `name` is there again, and nothing beside it.

        Raises:
            StorageError: it cannot be done.
        """
        for left in self.names():
            if _replaced(left) == name:
                if self.kind(name) is None and self.kind(left) == "folder":
                    self.rename(left, name)
                else:
                    self.remove(left)
            elif left.startswith(f".{name}.") and _OF_OLD.fullmatch(left[len(name) + 2:]):
                self.remove(left)

    def lost(self) -> tuple[str, ...]:
        """Names that are missing here, and that `recover` brings back."""
        replaced = {name for left in self.names() if (name := _replaced(left)) is not None}
        return tuple(sorted(name for name in replaced if self.kind(name) is None))

    def lock(self, *, wait: bool) -> bool:
        """Hold this folder against others who ask for it, until it is closed or the process ends.

        False: another holds it, and this call was not to wait. Where there are no locks (some
        network file systems) nobody is held off.
        """
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        except OSError:
            return True
        return True

    def is_called(self, name: str, above: Folder) -> bool:
        """Whether this very folder still has the name `name` in `above`."""
        try:
            there = os.stat(name, dir_fd=above._descriptor, follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(there, os.fstat(self._descriptor))

    def remove(self, name: str) -> None:
        """Remove a name in this folder: a link as a link, a folder with all that is in it.

        Raises:
            StorageError: it cannot be done.
        """
        try:
            _remove(self._descriptor, name)
        except OSError as error:
            raise self._unwritable(name, error) from error

    # ---- a context manager

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    # ---- small parts

    @contextlib.contextmanager
    def _above(self, relative: str) -> Iterator[tuple[int | None, str]]:
        """The open folder that `relative` lies in, None if it is not there, and its last name."""
        *parents, name = _parts(relative)
        if not parents:
            yield self._descriptor, name
            return
        above = self.folder("/".join(parents))
        if above is None:
            yield None, name
            return
        with above:
            yield above._descriptor, name

    def _is_there(self, above: int, name: str, relative: str, *, wanted: Kind) -> bool:
        """Whether something is there; refuses what is not `wanted`, without opening it."""
        try:
            mode = os.stat(name, dir_fd=above, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return False
        except OSError as error:
            raise self._unreadable(relative, error) from error
        if _kind(mode) != wanted:
            raise self._not_plain(relative, _kind(mode), wanted=wanted)
        return True

    def _make(self, above: int, name: str, relative: str) -> None:
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=above)
        except OSError as error:
            raise self._unwritable(relative, error) from error

    def _not_plain(self, relative: str, kind: Kind, *, wanted: Kind) -> BundleError:
        found = {"file": "a file", "folder": "a folder", "link": "a link",
                 "other": "neither a file nor a folder"}[kind]
        return BundleError(f"{self.path / relative} is {found}; allowed: a plain {wanted}.",
                           hint=f"Put a copy of the {wanted} in its place."
                           if kind == "link" else _CHANGED)

    def _too_long(self, relative: str, size: int, max_bytes: int) -> BundleError:
        return BundleError(f"{self.path / relative} has {size} bytes; allowed: {max_bytes}.",
                           hint=_CHANGED)

    def _unreadable(self, relative: str, error: OSError) -> BundleError:
        return BundleError(f"{self.path / relative} cannot be read: {error.strerror or error}.",
                           hint="Check its permissions, or copy the bundle again.")

    def _unwritable(self, relative: str, error: OSError) -> StorageError:
        return StorageError(f"{self.path / relative} cannot be written:"
                            f" {error.strerror or error}.", hint=_ROOM)


def open_folder(path: Path) -> Folder | None:
    """The folder `path` of a bundle, which the user named: links on the way to it are followed.

    None: there is no folder.

    Raises:
        BundleError: it cannot be opened.
    """
    try:
        return Folder(path, os.open(path, _FOLDER & ~os.O_NOFOLLOW))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BundleError(f"{path} cannot be read: {reason}.",
                          hint="Check the path and its permissions.") from error


def _parts(relative: str) -> tuple[str, ...]:
    parts = PurePosixPath(relative).parts
    if not parts or ".." in parts or parts[0] == "/" or "\0" in relative:
        raise BundleError(f"path {relative!r} leaves the bundle; allowed: a relative path such as"
                          " segments/mv_1.onnx.", hint=_CHANGED)
    return parts


def _replaced(left: str) -> str | None:
    """What is to be called as the folder that `replace` has set aside was; None: it is none."""
    found = _ASIDE.fullmatch(left)
    return found["name"] if found else None


def _kind(mode: int) -> Kind:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    return "link" if stat.S_ISLNK(mode) else "other"


def _remove(above: int, name: str) -> None:
    """Remove a name and, if it is a folder, all below; another may be doing the same."""
    try:
        if not stat.S_ISDIR(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=above)
            return
        top = os.open(name, _FOLDER, dir_fd=above)
    except FileNotFoundError:
        return
    try:
        _empty(top)
    finally:
        os.close(top)
    with contextlib.suppress(FileNotFoundError):
        os.rmdir(name, dir_fd=above)


def _empty(top: int) -> None:
    """Remove all that is in `top`. Folders may be nested without end: what lies in one is moved up
    into `top` before it goes, so that nothing is left beside it after a kill."""
    while names := os.listdir(top):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISDIR(os.stat(name, dir_fd=top, follow_symlinks=False).st_mode):
                    os.unlink(name, dir_fd=top)
                    continue
                inner = os.open(name, _FOLDER, dir_fd=top)
                try:
                    for each in os.listdir(inner):
                        os.rename(each, f".{secrets.token_hex(8)}.removed", src_dir_fd=inner,
                                  dst_dir_fd=top)
                finally:
                    os.close(inner)
                os.rmdir(name, dir_fd=top)
