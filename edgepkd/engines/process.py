"""Starts the process that builds, hears its answer, and makes sure that it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from edgepkd import errors
from edgepkd.errors import StorageError

# Python's own path is that of an isolated interpreter, without the current folder, until the child
# has been told the one of its parent.
_START = ("import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
          " from edgepkd.engines.child import main; main()")


class Died(Exception):
    """A child gave no answer."""

    def __init__(self, code: int, last_words: str) -> None:
        super().__init__(code)
        self.signal = -code if code < 0 else None
        self.last_words = last_words
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.what = f"crashed ({name})"


def ask(log: Path | None, request: Mapping[str, Any], subject: str) -> Any:
    """Start a child, give it `request`, and return its answer; it never outlives this call.

    Raises:
        EdgepkdError: the child's own, which names `subject`. Died: it gave no answer.
    """
    with contextlib.ExitStack() as stack:
        with storage(log or Path(os.devnull)):
            stderr = stack.enter_context((log or Path(os.devnull)).open("wb"))
        child = stack.enter_context(subprocess.Popen(
            [sys.executable, "-I", "-c", _START, json.dumps(_path())], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=stderr, start_new_session=True, bufsize=0))
        stack.callback(child.kill)
        assert child.stdin is not None
        assert child.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once: its code says how
            child.stdin.write(json.dumps(request).encode() + b"\n")
        text = child.stdout.read()
        code = child.wait()
    if not text or code != 0:
        raise Died(code, _last_words(log))
    answer = json.loads(text)
    if "error" in answer:
        kind = cast(type[errors.EdgepkdError], getattr(errors, answer["error"]))
        raise kind(f"{subject}: {answer['message']}", hint=answer["hint"])
    return answer["done"]


def _path() -> list[str]:
    """Where a child looks for modules: as this process does, but not in the current folder."""
    return [place for place in sys.path if os.path.isabs(place)]


def _last_words(log: Path | None) -> str:
    if log is None or not log.is_file():
        return ""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""


@contextlib.contextmanager
def storage(path: Path) -> Iterator[None]:
    """Errors of the disk, as a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}.",
                           hint="Free some space, or copy the bundle where you may write."
                           ) from error
