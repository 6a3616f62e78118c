"""This user's own list of what `edgepkd export` has made here.

A plan is as good as code: a bundle from elsewhere may bring plans, with a sidecar that fits them.
So the SHA-256 of each sidecar, record and timing cache that is made here is a name in a folder that
only this user can write to, and only what is listed is used unasked. What a bundle says of itself
does not count.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path


def digest_of(content: bytes) -> str:
    """SHA-256, as the list has it."""
    return hashlib.sha256(content).hexdigest()


def is_listed(digest: str) -> bool:
    """Whether this user has made what has this SHA-256 on this machine."""
    with _list(create=False) as folder:
        if folder is None:
            return False
        try:
            status = os.stat(digest, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def add(digest: str) -> bool:
    """Put a SHA-256 on the list; False: there is no place of this user's own to keep one."""
    with _list(create=True) as folder:
        if folder is None:
            return False
        with contextlib.suppress(OSError):
            os.close(os.open(digest, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                             | os.O_CLOEXEC, 0o600, dir_fd=folder))
            os.fsync(folder)
    return is_listed(digest)


def forget(digest: str) -> None:
    """Take a SHA-256 off the list."""
    with _list(create=False) as folder, contextlib.suppress(OSError):
        if folder is not None:
            os.unlink(digest, dir_fd=folder)


def place() -> Path | None:
    """The folder of the list, if there can be one that only this user can write to."""
    with _list(create=True) as folder:
        return None if folder is None else _place()


@contextlib.contextmanager
def _list(*, create: bool) -> Iterator[int | None]:
    """The folder of the list, open; None: there is none, or others can write to it."""
    descriptor = None
    try:
        descriptor = _opened(create=create)
    except OSError:
        yield None
        return
    try:
        yield descriptor
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _opened(*, create: bool) -> int | None:
    path = _place()
    if path is None:
        return None
    state = path.parent.parent
    if create and not state.is_dir():
        if not _is_own(next(there for there in state.parents if there.is_dir())):
            return None  # another user's home, as under sudo, or none
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    # The way to the user's own state may lead through links; what is kept there may not.
    descriptor = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for name in (path.parent.name, path.name):
        above = descriptor
        try:
            if create and os.fstat(above).st_uid == os.geteuid():
                with contextlib.suppress(FileExistsError):
                    os.mkdir(name, 0o700, dir_fd=above)
            descriptor = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC,
                                 dir_fd=above)
        finally:
            os.close(above)
        status = os.fstat(descriptor)
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o022:
            os.close(descriptor)
            return None
    return descriptor


def _place() -> Path | None:
    """Where the list is kept: in $XDG_STATE_HOME, else in ~/.local/state."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(_home(), ".local", "state")
    return Path(state) / "edgepkd" / "engines" if os.path.isabs(state) else None


def _home() -> str:
    """This user's home; empty: there is none."""
    home = os.environ.get("HOME", "")
    with contextlib.suppress(KeyError):
        home = home if os.path.isabs(home) else pwd.getpwuid(os.geteuid()).pw_dir
    return home if os.path.isabs(home) and os.path.isdir(home) else ""


def _is_own(folder: Path) -> bool:
    return folder.stat().st_uid == os.geteuid()
