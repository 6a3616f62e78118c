"""Child processes of the tests: they hear Ctrl-C, and end with the test that started them."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def started(command: Sequence[str], **settings: Any) -> Iterator[subprocess.Popen[str]]:
    """`command` running in the root of the checkout; killed on the way out if it still runs."""
    with hearing_ctrl_c():
        child = subprocess.Popen(command, cwd=ROOT, text=True, **settings)
    with child:
        try:
            yield child
        finally:
            child.kill()


@contextmanager
def hearing_ctrl_c() -> Iterator[None]:
    """Processes started in here obey SIGINT and SIGHUP.

    Under nohup, in the background of a script and in some CI they are ignored, and a child inherits
    that; a handler is not inherited, so the child begins as if it were started by hand.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGHUP)}
    if before[signal.SIGINT] is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if before[signal.SIGHUP] is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
