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
from pathlib import Path


def digest_of(content: bytes) -> str:
    """SHA-256, as the list has it."""
    return hashlib.sha256(content).hexdigest()


def is_listed(digest: str) -> bool:
    """Whether this user has made what has this SHA-256 on this machine."""
    folder = _list()
    if folder is None:
        return False
    try:
        status = os.lstat(folder / digest)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def add(digest: str) -> bool:
    """Put a SHA-256 on the list; False: there is no place of this user's own to keep one."""
    try:
        place = _place()
        if place is None:
            return False
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _list() is None:
            return False
        with contextlib.suppress(FileExistsError):
            os.close(os.open(place / digest, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW,
                             0o600))
    except OSError:
        return False
    return is_listed(digest)


def forget(digest: str) -> None:
    """Take a SHA-256 off the list."""
    folder = _list()
    if folder is not None:
        with contextlib.suppress(OSError):
            os.unlink(folder / digest)


def _list() -> Path | None:
    """The folder of the list, if only this user can write to it."""
    place = _place()
    try:
        status = os.lstat(place) if place is not None else None
    except OSError:
        return None
    if status is None or not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return None
    return None if stat.S_IMODE(status.st_mode) & 0o022 else place


def _place() -> Path | None:
    """Where the list is kept: in $XDG_STATE_HOME, else in ~/.local/state."""
    state = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(state):
        state = os.path.join(_home(), ".local", "state")
    return Path(state) / "edgepkd" / "engines" if os.path.isabs(state) else None


def _home() -> str:
    home = os.environ.get("HOME", "")
    if os.path.isabs(home):
        return home
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return ""
