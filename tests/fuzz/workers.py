"""Forked children work through inputs; whatever ends one is laid at the door of a single input."""

from __future__ import annotations

import faulthandler
import json
import mmap
import os
import re
import resource
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

CPU_LIMIT_S = 10.0
WALL_LIMIT_S = 90.0
SPACE_LIMIT = 4 << 30
"""Address space that a child may take beyond what it begins with."""
MEMORY_LIMIT = 3 << 29
"""Memory that it may really use beyond that. FFmpeg answers a lack of address space with an error
that the product refuses the input with, so that the first limit alone would show nothing."""

_NUMBER = re.compile(r"-?\d[\d.]*(e-?\d+)?")

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
        """Where it happened, to tell findings apart: file and line, and the last line of what was
        said, without its numbers."""
        lines = [line.strip() for line in self.what.splitlines() if line.strip()]
        said = _NUMBER.sub("#", lines[-1]) if lines else ""
        return " | ".join([*[line for line in lines if line.startswith("File")][-1:], said])[:300]


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
    shared = mmap.mmap(-1, 16)
    reader, writer = os.pipe()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryFile() as trace:
        child = os.fork()
        if child == 0:
            os.close(reader)
            _child(batch, work, shared, writer, trace, until)
        os.close(writer)
        code, said = _wait(child, reader, shared)
        trace.seek(0)
        frames = trace.read().decode(errors="replace")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    done, answered = struct.unpack("qq", shared[:16])
    tally = Tally(inputs=done, answered=answered,
                  cpu_s=after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    tally.findings = [Finding(**json.loads(line)) for line in said.splitlines()]
    if code != 0:
        tally.findings.append(_ended(code, batch.start + done, frames))
        tally.inputs += 1
    shared.close()
    return tally


def _ended(code: int, number: int, frames: str) -> Finding:
    """What `faulthandler` shows is turned round, so that it reads like other tracebacks."""
    what = "\n".join(reversed([line for line in frames.splitlines() if "  File " in line]))
    if code in (-signal.SIGPROF, -signal.SIGKILL):
        return Finding("hang", number,
                       f"{what}\nmore than {CPU_LIMIT_S:.0f} s of CPU, or no progress")
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return Finding("crash", number, f"{what}\n{name}")


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
        time.sleep(0.02)
    with suppress(BlockingIOError):
        while block := os.read(reader, 1 << 16):
            said += block
    os.close(reader)
    return os.waitstatus_to_exitcode(status), said.decode(errors="replace")


def _child(
    batch: range, work: Work, shared: mmap.mmap, writer: int, trace: IO[bytes], until: float
) -> None:
    code = 1
    try:
        faulthandler.enable(trace, all_threads=False)
        faulthandler.register(signal.SIGPROF, trace, all_threads=False, chain=True)
        most = _limit_memory()
        answered = 0
        for done, number in enumerate(batch):
            shared[:16] = struct.pack("qq", done, answered)
            signal.setitimer(signal.ITIMER_PROF, CPU_LIMIT_S)
            is_answered, findings = _worked(work, number)
            signal.setitimer(signal.ITIMER_PROF, 0)
            if (used := _most_used()) > most:
                findings.append(Finding("memory", number, f"{used >> 20} MiB at once"))
            for finding in findings:
                os.write(writer, (json.dumps(finding.__dict__) + "\n").encode())
            answered += is_answered
            shared[:16] = struct.pack("qq", done + 1, answered)
            if time.monotonic() > until or used > most:
                break
        code = 0
    finally:
        os._exit(code)


def _worked(work: Work, number: int) -> tuple[bool, list[Finding]]:
    """Whether the input was answered, and what it did that must not be."""
    findings: list[Finding] = []

    def unraisable(lost: Any) -> None:
        findings.append(_finding(lost.exc_value, number))

    sys.unraisablehook = unraisable
    try:
        return work(number), findings
    except BaseException as error:
        return False, [*findings, _finding(error, number)]


def _finding(error: BaseException, number: int) -> Finding:
    kind: Kind = "foreign"
    if isinstance(error, MemoryError):
        kind = "memory"
    elif type(error).__name__ == "Wrong":
        kind = "wrong"
    elif isinstance(error, IndexError) and "out of bounds" in str(error):
        kind = "bounds"
    return Finding(kind, number, "".join(traceback.format_exception(error))[-6000:])


def _limit_memory() -> int:
    """Limit the address space; returns how much memory may have been used."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + SPACE_LIMIT, used + SPACE_LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    return _most_used() + MEMORY_LIMIT


def _most_used() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
