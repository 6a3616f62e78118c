"""Ctrl-C while FFmpeg waits for bytes that Python reads for it.

What is raised in such a read goes through C code, which passes on Exceptions alone and reads on
after anything else. So a stop travels as the Exception `Stopped`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Stopped(Exception):
    """Carries a KeyboardInterrupt or SystemExit, `stop`."""

    def __init__(self, stop: BaseException) -> None:
        super().__init__(stop)
        self.stop = stop


@contextmanager
def carrying_stops() -> Iterator[None]:
    """Around a read that C code asks for."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        raise Stopped(stop) from None


@contextmanager
def delivering_stops() -> Iterator[None]:
    """Around what calls the C code: a stop comes out as what it was."""
    try:
        yield
    except Stopped as carrier:
        raise carrier.stop from None
