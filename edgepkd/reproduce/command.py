"""Runs the study from the command line; started again, it goes on where it stopped.

    python -m edgepkd.reproduce --data ../shared/data --out runs/reproduce

Progress goes to stderr and to OUT/progress.log; results to docs/results/reproduce.{json,md}.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from itertools import zip_longest
from multiprocessing import get_context
from pathlib import Path

from edgepkd.errors import EdgepkdError
from edgepkd.reproduce.jobs import Unit, unit_job, units_of
from edgepkd.reproduce.study import Study, load_study


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        study = load_study(options.study)
        units = all_units(study, data=options.data, out=options.out, cache=options.cache)
        run_units(units, jobs=options.jobs, log=options.out / "progress.log")
    except EdgepkdError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edgepkd.reproduce")
    add = parser.add_argument
    add("--study", default="reproduce", help="recipe of calibration/, or the path of a .toml file")
    add("--data", type=Path, default=Path("../shared/data"), help="folder with labelled clips")
    add("--out", type=Path, default=Path("runs/reproduce"), help="where networks and answers go")
    add("--cache", type=Path, default=Path("runs/cache"), help="where decoded clips are kept")
    add("--jobs", type=int, default=2, help="processes, one thread each")
    return parser


def all_units(study: Study, *, data: Path, out: Path, cache: Path) -> list[Unit]:
    """Units of all sets, taken in turn, trunk seed by trunk seed."""
    units: list[Unit] = []
    for seed in study.trunk_seeds:
        columns = [units_of(plan, trunk_seed=seed, exit_seeds=study.exit_seeds, data=data, out=out,
                            cache=cache) for plan in study.sets]
        units += [unit for row in zip_longest(*columns) for unit in row if unit is not None]
    return units


def run_units(units: Iterable[Unit], *, jobs: int, log: Path) -> None:
    """Run all units in processes; the first error stops the run, and nothing done is lost."""
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        waiting: set[Future[str]] = {pool.submit(unit_job, unit) for unit in units}
        total = len(waiting)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                if future.exception():
                    pool.shutdown(wait=False, cancel_futures=True)
                line = (f"{time.monotonic() - start:6.0f} s  {total - len(waiting):3d}/{total}  "
                        f"{future.result()}")
                print(line, file=sys.stderr, flush=True)
                with log.open("a", encoding="utf-8") as stream:
                    stream.write(line + "\n")
