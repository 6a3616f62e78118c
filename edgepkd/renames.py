"""Renames that take no name from another, and that leave a folder's name never without a folder.

Linux can do both at once (renameat2). Where the system or the file system cannot, it takes two
steps, and whoever calls says how what a kill leaves between them is found again. All errors are
OSErrors.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
from typing import Any

UNSUPPORTED = frozenset({errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What a system or file system answers that cannot do what it is asked."""
Name = str | os.PathLike[str]
_NO_REPLACE, _EXCHANGE = 1, 2  # flags of renameat2
_AT_FDCWD = -100


def rename_to_free_name(old: Name, new: Name) -> None:
    """Give the file `old` the name `new`, which nothing has.

    Raises:
        FileExistsError: something has it.
    """
    try:
        if _rename(old, new, _NO_REPLACE):
            return
    except FileExistsError:
        raise taken() from None
    if os.path.lexists(new):
        raise taken()
    os.rename(old, new)


def taken() -> FileExistsError:
    """What is raised where another has taken a name in the meantime."""
    return FileExistsError(errno.EEXIST, "another file has this name by now")


def swap_folder(new: Name, name: Name, *, aside: Name, within: int | None = None) -> Name:
    """Give the folder `new` the name `name`, which another folder has; returns what that one is
    called now.

    Names are looked up in the folder that `within` is open on; None: they are paths. Where names
    can be exchanged, `name` is a folder at all times. Elsewhere the one that goes is called
    `aside` from the first rename on, and gets its name back if the second one fails.
    """
    if _rename(new, name, _EXCHANGE, within=within):
        return new
    os.rename(name, aside, src_dir_fd=within, dst_dir_fd=within)
    try:
        os.rename(new, name, src_dir_fd=within, dst_dir_fd=within)
    except BaseException:
        os.rename(aside, name, src_dir_fd=within, dst_dir_fd=within)
        raise
    return aside


def _rename(old: Name, new: Name, flag: int, *, within: int | None = None) -> bool:
    """Rename as `flag` says; False where this system or file system cannot."""
    function = _renameat2()
    if function is None:
        return False
    place = _AT_FDCWD if within is None else within
    if function(place, os.fsencode(old), place, os.fsencode(new), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), os.fspath(old), None, os.fspath(new))


@functools.cache
def _renameat2() -> Any:
    """Linux' function of that name; None where there is none."""
    try:
        function: Any = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p,
                         ctypes.c_uint)
    return function
