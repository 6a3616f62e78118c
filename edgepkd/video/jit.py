"""How the inner loops are compiled, and where their machine code is kept between runs.

numba keeps it beside the source, else in the user's cache folder, and refuses a function for which
neither can be written to: a package of another user's, a service without a home. Then a folder of
our own under the temporary folder is taken, or none: every process compiles anew. A cache that is
damaged or cannot be written to costs time, never an error.
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
    """A folder under the temporary one that only this user can write to, or None.

    Machine code is unpickled from there, so one that others could have put something in is refused.
    """
    try:
        folder = Path(tempfile.gettempdir()).resolve() / f"edgepkd-{os.geteuid()}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found, above = folder.lstat(), folder.parent.stat()
    except OSError:
        return None
    is_ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    # Where everybody may write and nothing is sticky, anybody could put another in its place.
    is_safe = not above.st_mode & stat.S_IWOTH or bool(above.st_mode & stat.S_ISVTX)
    return folder if is_ours and is_safe and not stat.S_IMODE(found.st_mode) & 0o077 else None


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
            return _Cache(function)
    folder = private_folder()
    if folder is not None:
        with _cache_dir(folder), contextlib.suppress(RuntimeError):
            return _TemporaryCache(function)
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
