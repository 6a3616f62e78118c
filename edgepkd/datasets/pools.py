"""Many jobs at once: the contract, and processes of this machine.

A pool gives every job back with its result, in any order. A job that kills its process (a decoder
that crashes, the kernel's memory killer) gives a Crash; the others are not disturbed.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Protocol, TypeVar

from edgepkd.children import start_safely
from edgepkd.config import check
from edgepkd.errors import DataError

J = TypeVar("J")
R = TypeVar("R")

JOBS_AHEAD = 4
"""Jobs handed out for each process, so that none waits and memory stays bounded."""
MAX_CRASHES_IN_A_ROW = 3


@dataclass(frozen=True)
class Crash:
    """The process of a job died."""

    reason: str = "its process died (a crash in the decoder, or no memory left)"


class Pool(Protocol):
    """Runs a function on jobs, somewhere else."""

    def run(
        self, function: Callable[[J], R], jobs: Iterable[J]
    ) -> Iterator[tuple[J, R | Crash]]:
        """Yield each job with its result, in any order."""
        ...


class LocalPool:
    """Spawned processes, one job each at a time, that end with their parent."""

    def __init__(self, num_processes: int) -> None:
        check(num_processes >= 1, "jobs", got=num_processes, allowed="1 or more")
        self.num_processes = num_processes

    def run(
        self, function: Callable[[J], R], jobs: Iterable[J]
    ) -> Iterator[tuple[J, R | Crash]]:
        """Yield each job with its result.

        Raises:
            DataError: no process stays alive, whatever its job.
        """
        remaining, crashes_in_a_row = deque(jobs), 0
        while remaining:
            suspects = yield from self._until_crash(function, remaining)
            for job in suspects:  # each alone now, so that the guilty one shows
                result = _alone(function, job)
                crashes_in_a_row = crashes_in_a_row + 1 if isinstance(result, Crash) else 0
                if crashes_in_a_row == MAX_CRASHES_IN_A_ROW:
                    raise DataError(
                        f"{crashes_in_a_row} worker processes died one after the other.",
                        hint="Look for lack of memory; in a script of your own, call this under "
                             "if __name__ == '__main__'.")
                yield job, result

    def _until_crash(
        self, function: Callable[[J], R], remaining: deque[J]
    ) -> Generator[tuple[J, R | Crash], None, list[J]]:
        """Take jobs from `remaining`; returns those that were under way when a process died."""
        executor = _executor(min(self.num_processes, len(remaining)))
        waiting: dict[Future[R], J] = {}
        suspects: list[J] = []
        try:
            while (remaining and not suspects) or waiting:
                while remaining and not suspects and len(waiting) < (
                        JOBS_AHEAD * self.num_processes):
                    waiting[executor.submit(function, remaining[0])] = remaining[0]
                    remaining.popleft()
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    job = waiting.pop(future)
                    if isinstance(future.exception(), BrokenProcessPool):
                        suspects.append(job)
                    else:
                        yield job, future.result()
        except BrokenProcessPool:  # from submit: the process died after the last look
            suspects += waiting.values()
        finally:
            executor.shutdown(cancel_futures=True)
        return suspects


def _alone(function: Callable[[J], R], job: J) -> R | Crash:
    with _executor(1) as executor:
        try:
            return executor.submit(function, job).result()
        except BrokenProcessPool:
            return Crash()


def _executor(num_processes: int) -> ProcessPoolExecutor:
    start_safely()
    return ProcessPoolExecutor(num_processes, mp_context=get_context("spawn"),
                               initializer=_start_worker)


def _start_worker() -> None:
    # Ctrl-C goes to the whole terminal; the parent alone decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this, workers of a killed parent wait for jobs for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
