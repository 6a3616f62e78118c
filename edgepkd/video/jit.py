"""How the inner loops are compiled, and where their machine code is kept between runs.

numba keeps it beside the source, else in the user's cache folder, and refuses a function for which
neither can be written to: a package of another user's, a service without a home. It unpickles what
it finds there, whoever wrote it: a place that others may write to, or may exchange, is not taken,
not even where NUMBA_CACHE_DIR names it. Then a folder of our own is taken, in the user's cache
folder or under the temporary folder, or none: every process compiles anew. A cache that is damaged
or cannot be written to costs time, never an error.
"""

from __future__ import annotations

import contextlib
import functools
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import numba
from numba.core import caching

_F = TypeVar("_F", bound=Callable[..., Any])
# numba is typed in part, and not in every version.
_config: Any = numba.config
_caching: Any = caching


def compiled(function: _F, *, inline: Literal["always", "never"] = "never") -> _F:
    """`function`, compiled at its first call and kept; it runs without the GIL."""
    dispatcher = cast(Any, numba.njit)(nogil=True, inline=inline)(function)
    # What `cache=True` sets; numba has no public way to give a cache of one's own.
    dispatcher._cache = _cache_of(function)
    return cast(_F, dispatcher)


def cache_folder(function: Callable[..., Any]) -> Path | None:
    """Where the machine code of a compiled function is kept, None if nowhere."""
    path = cast(Any, function)._cache.cache_path
    return Path(path) if path else None


def is_temporary(function: Callable[..., Any]) -> bool:
    """Whether that is the folder of our own, which may be gone after the next start."""
    return isinstance(cast(Any, function)._cache, _TemporaryCache)


@functools.cache
def private_folder() -> Path | None:
    """A folder under the temporary one that only this user can write to, or None."""
    try:
        return _private(Path(tempfile.gettempdir()).resolve() / f"edgepkd-{os.geteuid()}")
    except OSError:
        return None


@functools.cache
def lasting_folder() -> Path | None:
    """A folder in the user's cache folder that only this user can write to, or None."""
    home = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
    try:
        return _private(Path(home) / "edgepkd") if _has_cache_home() else None
    except OSError:
        return None


def _private(folder: Path) -> Path | None:
    """`folder`, made if absent, where nobody else can get at it."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return folder if is_ours and not found.st_mode & 0o077 and _is_safe(folder) else None


def _is_safe(folder: Path) -> bool:
    """Whether only this user and root can write to `folder`, or put another in its place."""
    named = folder.absolute()
    try:
        leaf = folder.stat()
        return not leaf.st_mode & 0o022 and all(
            _holds_fast(place) for path in {named, Path(os.path.realpath(named))}
            for place in (path, *path.parents))
    except OSError:
        return False


def _holds_fast(place: Path) -> bool:
    """Whether others cannot exchange what lies in a folder, or where a link leads."""
    found = place.lstat()
    shared = found.st_mode & 0o022 and not found.st_mode & stat.S_ISVTX
    return found.st_uid in (os.geteuid(), 0) and (stat.S_ISLNK(found.st_mode) or not shared)


class _Cache(_caching.FunctionCache):  # type: ignore[misc]
    """numba's own, but nothing that is wrong with its files gets through."""

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except Exception:  # a damaged pickle raises nearly anything
            with contextlib.suppress(Exception):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(Exception):  # disk full, quota, folder gone or read-only by now
            super().save_overload(sig, data)


class _TemporaryCache(_Cache):
    """One in a folder of our own."""


def _cache_of(function: Callable[..., Any]) -> Any:
    if _config.CACHE_DIR or _has_cache_home():
        with contextlib.suppress(RuntimeError):  # no place of numba's can be written to
            cache = _Cache(function)
            if _is_safe(Path(cache.cache_path)):
                return cache
    for folder, kind in ((lasting_folder, _Cache), (private_folder, _TemporaryCache)):
        place = folder()
        if place is not None:
            with _cache_dir(place), contextlib.suppress(RuntimeError):
                return kind(function)
    return _caching.NullCache()


def _has_cache_home() -> bool:
    """Whether the user's cache folder is known: without a home, numba makes a folder '~' here."""
    return os.path.isabs(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")))


@contextlib.contextmanager
def _cache_dir(folder: Path) -> Iterator[None]:
    """Let numba keep what is decorated inside the block in `folder`, and nothing of other code."""
    before = _config.CACHE_DIR
    _config.CACHE_DIR = str(folder)
    try:
        yield
    finally:
        _config.CACHE_DIR = before
