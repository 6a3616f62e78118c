"""Jobs of training that run at the same time, in processes of their own with a thread each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import TypeVar

from edgepkd.children import start_safely
from edgepkd.errors import TrainingError

_T = TypeVar("_T")
_R = TypeVar("_R")


def side_by_side(
    stages: Sequence[Sequence[tuple[Callable[[_T], _R], _T]]], *, processes: int
) -> Iterator[_R]:
    """Results of the jobs, (function, argument) each, as they are done, stage after stage.

    One process: they run here, in their order. Else functions and arguments must be picklable.

    Raises:
        EdgepkdError: that of a job; the others are not begun. TrainingError: a process died.
    """
    if processes == 1:
        for function, argument in (job for jobs in stages for job in jobs):
            yield function(argument)
        return
    start_safely()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for jobs in stages:
            yield from _done(pool, jobs)


def _done(
    pool: ProcessPoolExecutor, jobs: Sequence[tuple[Callable[[_T], _R], _T]]
) -> Iterator[_R]:
    waiting: list[Future[_R]] = [pool.submit(function, argument) for function, argument in jobs]
    try:
        for future in as_completed(waiting):
            yield future.result()
    except BrokenProcessPool as error:
        raise TrainingError("a process died (a crash, or no memory left).", hint="Start it again"
                            " with --resume and fewer processes.") from error
    finally:
        for future in waiting:
            future.cancel()
