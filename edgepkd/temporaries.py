"""Names for what is not whole yet: beside the final one, locked, and swept when the writer died.

    .NAME.edgepkd-KERNEL-RANDOM.tmp   a file or folder that is being written
    .NAME.edgepkd-KERNEL-RANDOM.old   a folder that is being replaced by another one

Whoever writes holds a lock (flock) on it, which goes with the process, however that ends; process
numbers say nothing, two containers or machines have the same. What can be locked is nobody's, and
is removed by the next who writes into the same folder. KERNEL stands for one start of one machine:
where locks of other machines may not be seen, what they left is touched only after a day.

All errors here are OSErrors; `edgepkd.files` says what they mean to a user.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import os
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Literal

from edgepkd.closing import Closing
from edgepkd.renames import UNSUPPORTED, rename_to_free_name, swap_folder, taken

Identity = tuple[int, int]
"""Device and inode of a file: what it is, whatever it is called."""
Before = Identity | None | Literal["any"]
"""What may have the final name: this file, none, or any."""

_LEFT = re.compile(
    r"\.(?P<name>.+)\.edgepkd-(?P<kernel>[0-9a-f]{8})-[0-9a-f]{8}\.(?P<kind>tmp|old)", re.DOTALL)
_LONGEST = 200
"""Bytes of a final name that are kept in a temporary one; file systems allow 255 in all."""
_DAY_S = 24 * 3600
_quiet_until: dict[Identity, float] = {}


class Temporary(Closing):
    """A file or folder without its final name yet.

    Attributes:
        final: the name it is to have. path: where it is until then.
    """

    def __init__(self, final: Path, path: Path, descriptor: int) -> None:
        """Take over `path`, which `descriptor` is open on and locks."""
        self.final, self.path = final, path
        self._descriptor, self._is_ours = descriptor, True

    @classmethod
    def new_folder(cls, final: Path) -> Temporary:
        """An empty folder beside `final`, whose folder is there."""
        sweep(final.parent)
        return cls(final, *_new_locked(final, folder=True))

    def commit(self) -> None:
        """Give it the final name, which nothing has."""
        sync_folder(self.path)
        os.rename(self.path, self.final)
        self._is_ours = False
        sync_names(self.final.parent)

    def replace(self) -> None:
        """Give it the final name; the folder that had it goes, or keeps it if that fails."""
        sync_folder(self.path)
        recover(self.final)
        if not os.path.lexists(self.final):
            os.rename(self.path, self.final)
            self._is_ours = False
            sync_names(self.final.parent)
        elif not stat.S_ISDIR(os.lstat(self.final).st_mode):
            raise NotADirectoryError(errno.ENOTDIR, "a link or a file has this name")
        else:
            with _held(self.final):  # the one that goes: nobody brings it back meanwhile
                self.path = Path(swap_folder(self.path, self.final,
                                             aside=_name(self.final, "old")))
                sync_names(self.final.parent)
                with contextlib.suppress(OSError):  # what is left is swept by the next writer
                    _remove(self.path)
            self._is_ours = False

    def close(self) -> None:
        """Remove what has no other name; closing twice is harmless."""
        if self._is_ours:
            with contextlib.suppress(OSError):
                _remove(self.path)
        self._is_ours = False
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1


class TemporaryFile(Temporary):
    """A file without its final name yet.

    Attributes:
        file: open for writing and reading.
    """

    def __init__(self, final: Path) -> None:
        """Make it beside `final`, whose folder is there."""
        sweep(final.parent)
        super().__init__(final, *_new_locked(final, folder=False))
        self.file: BinaryIO = open(self._descriptor, "w+b", closefd=False)  # noqa: SIM115

    def commit(self, *, before: Before = "any") -> None:
        """Give it the final name, with the permissions of the file that is replaced.

        Raises:
            FileExistsError: another file than `before` has the name by now.
        """
        self.file.flush()
        if (mode := _mode(self.final)) is not None:
            os.fchmod(self._descriptor, mode)
        _sync(self._descriptor)
        if before == "any":
            os.rename(self.path, self.final)
        elif before is None:
            rename_to_free_name(self.path, self.final)
        elif identity(self.final) == before:
            os.rename(self.path, self.final)
        else:
            raise taken()
        self._is_ours = False
        sync_names(self.final.parent)

    def close(self) -> None:
        """Remove what has no other name; closing twice is harmless."""
        with contextlib.suppress(OSError):  # of what could not be written, which was said
            self.file.close()
        super().close()


def discard(folder: Path) -> None:
    """Remove `folder`, in one step for whoever reads it; what a kill leaves is swept."""
    gone = _name(folder, "tmp")
    os.rename(folder, gone)
    _remove(gone)


def sweep(folder: Path) -> None:
    """Remove what this user's dead writers left in `folder`.

    It never waits, never fails and never follows a link; it looks again only after a hundred
    times as long as looking took, so that folders of many files cost nothing.
    """
    with contextlib.suppress(OSError):
        status = os.stat(folder)
        key, began = (status.st_dev, status.st_ino), time.monotonic()
        if began < _quiet_until.get(key, 0):
            return
        for name in os.listdir(folder):
            found = _LEFT.fullmatch(name)
            # An old folder without a new one is the only one: `recover` brings it back.
            if found and (found["kind"] == "tmp" or os.path.lexists(folder / found["name"])):
                with contextlib.suppress(OSError):
                    _remove_if_dead(folder / name, is_foreign=found["kernel"] != _kernel())
        _quiet_until[key] = time.monotonic() + 100 * (time.monotonic() - began)


def recover(folder: Path) -> None:
    """Bring `folder` back where a process was killed between the two renames of a replacement.

    Where `folder` is there, what is left of replacements is removed.
    """
    mark = _mark(folder.name)
    with contextlib.suppress(OSError):
        for name in sorted(os.listdir(folder.parent)):
            found = _LEFT.fullmatch(name)
            if found is None or found["kind"] != "old" or found["name"] != mark:
                continue
            descriptor = _open_locked(folder.with_name(name), wait_s=2.0)
            if descriptor is None:
                continue
            with contextlib.suppress(OSError):
                if os.path.lexists(folder):
                    _remove(folder.with_name(name))
                else:
                    os.rename(folder.with_name(name), folder)
            os.close(descriptor)


def identity(path: Path) -> Identity | None:
    """What is at `path`, a link itself; None: nothing, or nothing that can be looked at."""
    try:
        status = os.lstat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def sync_folder(folder: Path) -> None:
    """Have the disk hold a folder and all that is in it."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if stat.S_ISREG(os.lstat(path).st_mode):
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
                try:
                    _sync(descriptor)
                finally:
                    os.close(descriptor)
        sync_names(Path(place))


def sync_names(folder: Path) -> None:
    """Have the disk hold the names in a folder; not every file system can, which is no error."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


# ---- names and locks


def _mark(name: str) -> str:
    """`name`, or so much of it that a temporary name can be made of it."""
    raw = os.fsencode(name)
    if len(raw) <= _LONGEST:
        return name
    return os.fsdecode(raw[: _LONGEST - 17]) + "." + hashlib.sha256(raw).hexdigest()[:16]


def _name(final: Path, kind: Literal["tmp", "old"]) -> Path:
    return final.with_name(
        f".{_mark(final.name)}.edgepkd-{_kernel()}-{secrets.token_hex(4)}.{kind}")


@functools.cache
def _kernel() -> str:
    """This start of this machine: whoever runs under it, in a container too, sees our locks."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        text = platform.node()
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _new_locked(final: Path, *, folder: bool) -> tuple[Path, int]:
    """A new file or folder, and a descriptor that holds its lock."""
    while True:
        path = _name(final, "tmp")
        try:
            if folder:
                path.mkdir()
                descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            else:
                descriptor = os.open(
                    path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        except FileExistsError:
            continue
        except FileNotFoundError:
            if folder and final.parent.is_dir():
                continue  # swept between the two calls
            raise
        if _try_lock(descriptor) and identity(path) == _identity_of(descriptor):
            return path, descriptor
        os.close(descriptor)  # swept before it was locked


def _try_lock(descriptor: int) -> bool:
    """Whether no other holds the lock; where locks are unknown nobody sweeps."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _open_locked(path: Path, *, wait_s: float = 0.0) -> int | None:
    """A descriptor of this user's file or folder that holds its lock; None: it is in use."""
    before = os.lstat(path)
    is_folder = stat.S_ISDIR(before.st_mode)
    if before.st_uid != os.geteuid() or not (is_folder or stat.S_ISREG(before.st_mode)):
        return None
    flags = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    until = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if identity(path) == _identity_of(descriptor):
                return descriptor
        except BlockingIOError:
            if time.monotonic() < until:
                time.sleep(0.01)
                continue
        except OSError:  # no locks here: nobody can say whether it is in use
            pass
        os.close(descriptor)
        return None


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Lock a folder if nobody has, until the block is left."""
    descriptor = -1
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        _try_lock(descriptor)
    try:
        yield
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _remove_if_dead(path: Path, *, is_foreign: bool) -> None:
    if is_foreign and time.time() - os.lstat(path).st_mtime < _DAY_S:
        return
    descriptor = _open_locked(path)
    if descriptor is not None:
        try:
            _remove(path)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink()


def _identity_of(descriptor: int) -> Identity:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _mode(path: Path) -> int | None:
    """Permissions of a file that is there."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return stat.S_IMODE(status.st_mode) & 0o777 if stat.S_ISREG(status.st_mode) else None
