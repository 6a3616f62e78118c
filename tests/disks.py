"""Disks that are full, for tests: files of edgepkd take so many whole contents, then a part."""

from __future__ import annotations

import builtins
import errno
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import pytest

from edgepkd import temporaries

FULL = "No space left on device"
TOO_LARGE = "File too large"


@contextmanager
def full_disk(*, writes: int = 0) -> Iterator[list[bytes]]:
    """After `writes` writes to files of any name there is room for ten bytes more.

    Gives the list of what was written whole.
    """
    written: list[bytes] = []

    def opened(*arguments: Any, **settings: Any) -> BinaryIO:
        file = builtins.open(*arguments, **settings)  # noqa: SIM115
        write = file.write

        def limited(content: bytes) -> int:
            if len(written) == writes:
                write(content[:10])
                file.flush()
                raise OSError(errno.ENOSPC, FULL)
            written.append(content)
            return int(write(content))

        class Limited:
            def __getattr__(self, name: str) -> Any:
                return limited if name == "write" else getattr(file, name)

        return Limited()  # type: ignore[return-value]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(temporaries, "open", opened, raising=False)
        yield written


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """No file of this process, of a library's neither, gets larger; Python ignores the signal."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
