"""`python -m tests.fuzz --minutes 60 --jobs 2`: hostile videos until something breaks, or time ends.

Prints and writes what was found; exit code 1 if something was. `--number N` does a single input of a
series again, in this process, with its traceback.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def main() -> int:
    """Fuzz as the arguments say."""
    options = _options()
    # Before numba is imported: bounds checks are compiled in, and must not come from a cache.
    folder = Path(tempfile.mkdtemp(prefix="edgepkd-fuzz-"))
    try:
        os.environ["NUMBA_CACHE_DIR"] = str(folder / "numba")
        os.environ["NUMBA_BOUNDSCHECK"] = "0" if options.unchecked else "1"
        return _single(options, folder) if options.number is not None else _series(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, help="of the series; default: a new one")
    parser.add_argument("--inputs", type=int, help="stop after so many")
    parser.add_argument("--number", type=int, help="only this input of the series, here")
    parser.add_argument("--unchecked", action="store_true",
                        help="without numba's bounds checks: real crashes, and faster")
    parser.add_argument("--out", type=Path, help="folder for what is found")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = secrets.randbelow(1 << 20)
    return options


def _prepared() -> Any:
    import av

    from tests.fuzz.seeds import make_seeds
    from tests.fuzz.target import use

    av.logging.set_level(None)
    seeds = make_seeds()
    place = Path(tempfile.gettempdir()) / f"edgepkd-fuzz-{os.getpid()}-warm"
    for stream in seeds.streams:  # compiles every kernel before there are children
        for seed in range(12):
            use(stream.file, seed, place)
    place.unlink(missing_ok=True)
    return seeds


def _work(seeds: Any, seed: int, place: Path) -> Any:
    from tests.fuzz.mutate import make_input
    from tests.fuzz.target import use

    return lambda number: use(make_input(seeds, seed=seed, number=number), number, place)


def _single(options: argparse.Namespace, folder: Path) -> int:
    from tests.fuzz.mutate import make_input
    from tests.fuzz.seeds import make_seeds
    from tests.fuzz.target import use

    content = make_input(make_seeds(), seed=options.seed, number=options.number)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{options.seed}-{options.number}.bin").write_bytes(content)
    answered = use(content, options.number, folder / "input")
    print("answered" if answered else "refused")
    return 0


def _series(options: argparse.Namespace, folder: Path) -> int:
    from tests.fuzz.mutate import make_input
    from tests.fuzz.workers import Tally

    begin = time.monotonic()
    seeds = _prepared()
    print(f"seed {options.seed}, {options.jobs} jobs, {options.minutes:g} minutes,"
          f" {len(seeds.streams)} streams, {len(seeds.files)} files; ready after"
          f" {time.monotonic() - begin:.0f} s", flush=True)
    until = time.monotonic() + 60 * options.minutes
    begin, shown = time.monotonic(), time.monotonic()
    tally, saved = Tally(), Counter[str]()
    for part in _tallies(seeds, options, folder, until):
        tally.add(part)
        for finding in part.findings:
            saved[finding.place] += 1
            if saved[finding.place] <= 3:
                print(f"{finding.kind}: --seed {options.seed} --number {finding.number}:"
                      f" {finding.place}", flush=True)
                _save(options, finding, make_input(seeds, seed=options.seed,
                                                   number=finding.number))
        if time.monotonic() - shown > 30:
            shown = time.monotonic()
            print(_line(tally, shown - begin), flush=True)
    wall_s = time.monotonic() - begin
    print(_line(tally, wall_s))
    summary = {"seed": options.seed, "checked": not options.unchecked, "inputs": tally.inputs,
               "answered": tally.answered, "cpu_s": round(tally.cpu_s, 1),
               "wall_s": round(wall_s, 1),
               "findings": dict(Counter(finding.kind for finding in tally.findings)),
               "places": dict(saved)}
    print(json.dumps(summary))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"summary-{options.seed}.json").write_text(json.dumps(summary, indent=1))
    return 1 if tally.findings else 0


def _tallies(seeds: Any, options: argparse.Namespace, folder: Path, until: float) -> Iterator[Any]:
    """The tallies of all jobs, as they come."""
    context = multiprocessing.get_context("fork")
    queue: Any = context.Queue()
    jobs = [context.Process(target=_job, args=(seeds, options, folder / str(job), job, queue, until))
            for job in range(options.jobs)]
    for process in jobs:
        process.start()
    running = len(jobs)
    while running:
        part = queue.get()
        if part is None:
            running -= 1
        else:
            yield part
    for process in jobs:
        process.join()


def _job(seeds: Any, options: argparse.Namespace, place: Path, job: int, queue: Any,
         until: float) -> None:
    from tests.fuzz.workers import work_through

    os.nice(5)
    try:
        for tally in work_through(_batches(options, job), _work(seeds, options.seed, place),
                                  until=until):
            queue.put(tally)
    finally:
        queue.put(None)


def _batches(options: argparse.Namespace, job: int) -> Iterator[range]:
    """Every job's share of the numbers, some hundred at a time."""
    size, at = 200, 200 * job
    while options.inputs is None or at < options.inputs:
        yield range(at, at + size if options.inputs is None else min(at + size, options.inputs))
        at += size * options.jobs


def _save(options: argparse.Namespace, finding: Any, content: bytes) -> None:
    if options.out is None:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    name = f"{finding.kind}-{options.seed}-{finding.number}"
    (options.out / f"{name}.bin").write_bytes(content)
    (options.out / f"{name}.txt").write_text(finding.what, encoding="utf-8")


def _line(tally: Any, wall_s: float) -> str:
    kinds = Counter(finding.kind for finding in tally.findings)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing found"
    return (f"{wall_s:6.0f} s  {tally.inputs} inputs, {tally.inputs / max(wall_s, 0.1):.0f}/s,"
            f" {tally.answered} answered, {tally.cpu_s:.0f} s of CPU; {found}")


if __name__ == "__main__":
    sys.exit(main())
