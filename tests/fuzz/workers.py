"""Forked children work through inputs; whatever ends one is laid at the door of a single input."""

from __future__ import annotations

import json
import mmap
import os
import resource
import signal
import struct
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

CPU_LIMIT_S = 10.0
WALL_LIMIT_S = 90.0
MEMORY_LIMIT = 3 << 30
"""Address space that a child may take beyond what it begins with."""

Kind = Literal["crash", "hang", "bounds", "memory", "foreign", "wrong"]
Work = Callable[[int], bool]
"""Make and use the input of this number; True: answered."""


@dataclass(frozen=True)
class Finding:
    """Something that must not be."""

    kind: Kind
    number: int
    what: str
    """Signal, or the exception with its traceback."""

    @property
    def place(self) -> str:
        """Where it happened, to tell findings apart: the last lines of the traceback."""
        lines = [line.strip() for line in self.what.splitlines() if line.strip()]
        return " | ".join([*[line for line in lines if line.startswith("File")][-1:],
                           *lines[-1:]])[:300]


@dataclass
class Tally:
    """What came of the inputs so far."""

    inputs: int = 0
    answered: int = 0
    cpu_s: float = 0.0
    findings: list[Finding] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        """Add what another job has done."""
        self.inputs += other.inputs
        self.answered += other.answered
        self.cpu_s += other.cpu_s
        self.findings += other.findings


def work_through(numbers: Iterator[range], work: Work, *, until: float) -> Iterator[Tally]:
    """Give a tally for each batch of numbers, worked on in a forked child, until time is over."""
    for batch in numbers:
        at = batch.start
        while at < batch.stop and time.monotonic() < until:
            tally = _in_a_child(range(at, batch.stop), work, until=until)
            yield tally
            at += tally.inputs
        if time.monotonic() >= until:
            return


def _in_a_child(batch: range, work: Work, *, until: float) -> Tally:
    """Work through as much of `batch` as goes; an input that ends the child is the last."""
    shared = mmap.mmap(-1, 32)
    reader, writer = os.pipe()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    child = os.fork()
    if child == 0:
        os.close(reader)
        _child(batch, work, shared, writer, until)
    os.close(writer)
    code, said = _wait(child, reader, shared)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    done, answered = struct.unpack("qq", shared[:16])
    tally = Tally(inputs=done, answered=answered,
                  cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    tally.findings = [Finding(**json.loads(line)) for line in said.splitlines()]
    if code != 0:
        tally.findings.append(_ended(code, batch.start + done))
        tally.inputs += 1
    shared.close()
    return tally


def _ended(code: int, number: int) -> Finding:
    if code in (-signal.SIGPROF, -signal.SIGKILL):
        return Finding("hang", number, f"more than {CPU_LIMIT_S:.0f} s of CPU, or no progress")
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return Finding("crash", number, name)


def _wait(child: int, reader: int, shared: mmap.mmap) -> tuple[int, str]:
    """How the child ended, and what it found; killed if it makes no progress."""
    os.set_blocking(reader, False)
    said, last, since = b"", b"", time.monotonic()
    while True:
        with suppress(BlockingIOError):
            while block := os.read(reader, 1 << 16):
                said += block
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        if shared[:8] != last:
            last, since = shared[:8], time.monotonic()
        elif time.monotonic() - since > WALL_LIMIT_S:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.01)
    with suppress(BlockingIOError):
        while block := os.read(reader, 1 << 16):
            said += block
    os.close(reader)
    return os.waitstatus_to_exitcode(status), said.decode(errors="replace")


def _child(batch: range, work: Work, shared: mmap.mmap, writer: int, until: float) -> None:
    code = 1
    try:
        _limit_memory()
        answered = 0
        for done, number in enumerate(batch):
            shared[:16] = struct.pack("qq", done, answered)
            signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)
            finding = None
            try:
                answered += work(number)
            except BaseException as error:
                finding = _finding(error, number)
            signal.setitimer(signal.ITIMER_PROF, 0)
            if finding is not None:
                os.write(writer, (json.dumps(finding.__dict__) + "\n").encode())
            shared[:16] = struct.pack("qq", done + 1, answered)
            if time.monotonic() > until:
                break
        code = 0
    finally:
        os._exit(code)


def _finding(error: BaseException, number: int) -> Finding:
    kind: Kind = "foreign"
    if isinstance(error, MemoryError):
        kind = "memory"
    elif type(error).__name__ == "Wrong":
        kind = "wrong"
    elif isinstance(error, IndexError) and "out of bounds" in str(error):
        kind = "bounds"
    return Finding(kind, number, "".join(traceback.format_exception(error))[-6000:])


def _limit_memory() -> None:
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY_LIMIT, used + MEMORY_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
