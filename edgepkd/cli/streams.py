"""Standard output and error of the command: full, closed, or left by whoever read.

Answers that cannot be written are an error. Whoever stops reading (`| head`) ends the command
quietly, as SIGPIPE would. Notes that cannot be written are lost, and nothing else is.
"""

from __future__ import annotations

import errno
import io
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from edgepkd.errors import StorageError

READER_LEFT = 128 + signal.SIGPIPE
"""Exit code where whoever read has seen enough."""


@contextmanager
def writing(what: object) -> Iterator[None]:
    """Turn what goes wrong inside the block into an error, or into a quiet end.

    Raises:
        StorageError: `what` cannot be written. SystemExit: nobody reads it any more.
    """
    try:
        yield
    except BrokenPipeError:
        raise SystemExit(READER_LEFT) from None
    except OSError as error:
        closed = error.errno == errno.EBADF
        raise StorageError(f"{what} cannot be written: "
                           f"{'it is closed' if closed else error.strerror or error}.",
                           hint="Send it to a file, or to /dev/null." if closed
                           else "Free some space.") from error


def guard() -> None:
    """Put streams in the place of `sys.stdout` and `sys.stderr` that end as said above."""
    _hold_standard_numbers()
    sys.stdout = _text(_Answers(1), like=sys.stdout, line_buffering=os.isatty(1))
    sys.stderr = _text(_Notes(2), like=sys.stderr, line_buffering=True)


def _hold_standard_numbers() -> None:
    """Else the next file that is opened would be standard output where that is closed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # In the wrong direction: reading or writing fails as it does on what is closed.
            os.open(os.devnull, os.O_RDONLY if number else os.O_WRONLY)
            os.set_inheritable(number, True)


def _text(raw: io.FileIO, *, like: TextIO | None, line_buffering: bool) -> TextIO:
    if like is not None:
        like.flush()
    # A file name may hold bytes that the terminal's encoding cannot show.
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding="utf-8" if like is None else like.encoding,
        errors="backslashreplace", line_buffering=line_buffering)


class _Waiting(io.FileIO):
    """A descriptor that others may have set to not wait: a terminal or a pipe is shared."""

    def __init__(self, number: int) -> None:
        super().__init__(number, "w", closefd=False)

    def write_some(self, content: memoryview) -> int:
        """Write a part of `content`, at least one byte; returns how many."""
        while (count := super().write(content)) is None:
            select.select([], [self], [])
        return count


class _Answers(_Waiting):
    """Standard output; what comes after a failure, which is told once, is dropped."""

    _failed = False

    def write(self, content: memoryview) -> int:  # type: ignore[override]
        """Write a part of `content`; returns how many bytes are dealt with."""
        if self._failed:
            return len(content)
        self._failed = True
        with writing("standard output"):
            count = self.write_some(content)
        self._failed = False
        return count


class _Notes(_Waiting):
    """Standard error; what cannot be written is dropped."""

    def write(self, content: memoryview) -> int:  # type: ignore[override]
        """Write a part of `content`; returns how many bytes are dealt with."""
        try:
            return self.write_some(content)
        except OSError:
            return len(content)
