"""Starts the process that builds a segment, reads its answer, and makes sure that it ends.

All goes through pipes, so that there is no path that could be changed in between, and nothing is
left after a kill: a line of JSON with the sizes of the blocks of bytes that follow it. What the
child prints otherwise is kept as far as it is of use for a message.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import IO, Any, cast

from edgepkd import children, errors

# Until the child is told the path of its parent, its own is that of an isolated interpreter.
_START = ("import json, sys; sys.path[:] = json.loads(sys.argv[1]);"
          " from edgepkd.engines.child import main; main()")
_KEPT_BYTES = 1 << 16


class Died(Exception):
    """A child gave no answer.

    Attributes:
        signal: what ended it; None where it ended itself. what: the same in words, such as
            'crashed (SIGSEGV)'. said_last: the last line that it printed; may be empty.
    """

    def __init__(self, code: int, said_last: str) -> None:
        """`code` is as subprocess gives it: below 0 for a signal."""
        super().__init__(code)
        self.signal = -code if code < 0 else None
        self.said_last = said_last
        name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        self.what = f"crashed ({name})"


def ask(
    request: Mapping[str, Any], subject: str, *, blocks: Sequence[bytes] = ()
) -> tuple[Any, tuple[bytes, ...]]:
    """Start a child, give it `request` and `blocks`, and return its answer and the blocks with it;
    it never outlives this call.

    Raises:
        EdgepkdError: the child's own, which names `subject`. Died: it gave no whole answer.
    """
    printed = bytearray()
    with contextlib.ExitStack() as stack:
        child = stack.enter_context(subprocess.Popen(
            [sys.executable, "-I", "-c", _START, json.dumps(children.module_path())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, bufsize=0))
        stack.callback(child.kill)
        stdin, stdout, stderr = (cast(IO[bytes], pipe)
                                 for pipe in (child.stdin, child.stdout, child.stderr))
        reading = threading.Thread(target=_keep_end, args=(stderr, printed), daemon=True)
        reading.start()
        head = {**request, "blocks": [len(block) for block in blocks]}
        with contextlib.suppress(BrokenPipeError):  # it died at once: its code says how
            for part in (json.dumps(head).encode() + b"\n", *blocks):
                _write(stdin, part)
        answer = _read_all(stdout)
        code = child.wait()
        reading.join(timeout=5)  # what it may have started itself can hold the pipe
    return _parsed(answer, code, subject, bytes(printed))


def _parsed(
    answer: bytes, code: int, subject: str, printed: bytes
) -> tuple[Any, tuple[bytes, ...]]:
    line, _, rest = answer.partition(b"\n")
    if not line or code != 0:
        raise Died(code, _last_line(printed))
    values = json.loads(line)
    if "error" in values:
        kind = cast(type[errors.EdgepkdError], getattr(errors, values["error"]))
        raise kind(f"{subject}: {values['message']}", hint=values["hint"])
    if len(rest) != sum(values["blocks"]):
        raise Died(code, _last_line(printed))
    blocks, start = [], 0
    for size in values["blocks"]:
        blocks.append(rest[start:start + size])
        start += size
    return values["done"], tuple(blocks)


def _write(pipe: IO[bytes], content: bytes) -> None:
    """Unbuffered pipes take a part at a time."""
    left = memoryview(content)
    while left:
        left = left[pipe.write(left):]


def _read_all(pipe: IO[bytes]) -> bytes:
    return b"".join(iter(lambda: pipe.read(1 << 20), b""))


def _keep_end(pipe: IO[bytes], kept: bytearray) -> None:
    """Read all there is, for else the child would wait; keep the end."""
    with contextlib.suppress(OSError, ValueError):  # closed by now
        while part := pipe.read(_KEPT_BYTES):
            kept += part
            del kept[:-_KEPT_BYTES]


def _last_line(printed: bytes) -> str:
    lines = printed.decode("utf-8", errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
