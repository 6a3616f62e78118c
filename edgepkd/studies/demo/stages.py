"""The heavy steps of a demo bundle, stage by stage, in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from edgepkd.children import start_safely
from edgepkd.config import MODALITIES
from edgepkd.datasets.index import Sample
from edgepkd.errors import TrainingError
from edgepkd.int8 import Int8Recipe
from edgepkd.studies.demo.answers import answer_job, quantize_job
from edgepkd.studies.parts import Part, backbone_job, exits_job, load_clips

Job = Callable[[], str]
"""Returns a line to show, or nothing."""


def run_stages(
    parts: Sequence[Part], *, int8: Int8Recipe, processes: int, console: Console
) -> None:
    """Decode, train, quantise and answer what is not there yet; the first error stops it all.

    Raises:
        EdgepkdError: that of a job. TrainingError: a process died.
    """
    each = [(part, modality) for part in parts for modality in MODALITIES]
    clips: dict[Sample, Part] = {s: part for part in parts for s in (*part.fit, *part.answer)}
    stages: dict[str, list[Job]] = {
        "decode": [partial(_decode_job, part, clip) for clip, part in clips.items()],
        "backbones": [partial(backbone_job, *pair) for pair in each],
        "exits": [partial(exits_job, part) for part in parts],
        "INT8": [partial(quantize_job, *pair, int8) for pair in each],
        "answers": [partial(answer_job, part) for part in parts],
    }
    start_safely()
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        for title, jobs in stages.items():
            _run_stage(pool, title, jobs, console)


def _decode_job(part: Part, clip: Sample) -> str:
    load_clips(part, (clip,))
    return ""


def _run_stage(
    pool: ProcessPoolExecutor, title: str, jobs: Sequence[Job], console: Console
) -> None:
    """Run `jobs`, with a bar, and a line for each that has something to say."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn())
    start = time.monotonic()
    with Progress(*columns, console=console) as progress:
        waiting: set[Future[str]] = {pool.submit(job) for job in jobs}
        task = progress.add_task(title, total=len(waiting))
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                if future.exception():
                    pool.shutdown(wait=False, cancel_futures=True)
                if message := _result(future, title):
                    console.print(f"{time.monotonic() - start:5.0f} s  {message}", markup=False)
                progress.advance(task)


def _result(future: Future[str], stage: str) -> str:
    try:
        return future.result()
    except BrokenProcessPool as error:
        raise TrainingError(
            f"a process died in the stage '{stage}' (a crash, or no memory left).",
            hint="Start it again with fewer --jobs; it goes on from here.") from error
