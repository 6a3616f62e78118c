"""`python -m tests.fuzz --minutes 60 --jobs 2`: hostile videos until time is over.

Says what was found, and ends with 1 if anything was. An eighth of the time goes without numba's
bounds checks, where a mistake is a real crash. `--number N` does one input of a series again, here,
with its traceback; `--minimise FILE` makes a file that was found smaller.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

_UNCHECKED_SHARE = 1 / 8
_UNCHECKED_FROM = 1 << 32
"""Numbers from here on are worked on without bounds checks, so that they are other inputs."""
_BATCH, _SAVED_OF_A_PLACE, _SHOW_S = 400, 3, 30.0


def main() -> int:
    """Fuzz as the arguments say."""
    options = _options()
    if options.mode == "both" and options.number is None and options.minimise is None:
        return _both(options)
    # Before numba is imported: bounds checks are compiled in, and must not come from a cache.
    folder = Path(tempfile.mkdtemp(prefix="edgepkd-fuzz-"))
    try:
        os.environ["NUMBA_CACHE_DIR"] = str(folder / "numba")
        os.environ["NUMBA_BOUNDSCHECK"] = "0" if _is_unchecked(options) else "1"
        if options.minimise is not None:
            return _minimise(options, folder)
        return _single(options, folder) if options.number is not None else _series(options, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, help="of the series; default: a new one")
    parser.add_argument("--inputs", type=int, help="stop after so many, in each mode")
    parser.add_argument("--mode", choices=("both", "checked", "unchecked"), default="both",
                        help="with numba's bounds checks, without, or both one after the other")
    parser.add_argument("--number", type=int, help="only this input of the series, here")
    parser.add_argument("--minimise", type=Path, metavar="FILE",
                        help="a file that was found, KIND-SEED-NUMBER.bin")
    parser.add_argument("--out", type=Path, help="folder for what is found")
    options = parser.parse_args()
    if options.seed is None:
        options.seed = secrets.randbelow(1 << 20)
    return options


def _is_unchecked(options: argparse.Namespace) -> bool:
    return options.mode == "unchecked" or (options.number or 0) >= _UNCHECKED_FROM


def _both(options: argparse.Namespace) -> int:
    """The two modes in processes of their own: code is compiled for one of them."""
    codes = []
    for mode, share in (("unchecked", _UNCHECKED_SHARE), ("checked", 1 - _UNCHECKED_SHARE)):
        given = [f"--{name}={value}" for name, value in vars(options).items()
                 if value is not None and name not in ("mode", "minutes")]
        codes.append(subprocess.run([
            sys.executable, "-m", "tests.fuzz", *given, f"--mode={mode}",
            f"--minutes={options.minutes * share}"]).returncode)
    return max(codes)


def _series(options: argparse.Namespace, folder: Path) -> int:
    from tests.fuzz.mutate import make_input
    from tests.fuzz.workers import Tally

    begin = time.monotonic()
    seeds = _prepared(folder)
    print(f"seed {options.seed}, {options.mode}, {options.jobs} jobs, {options.minutes:g} minutes,"
          f" {len(seeds.streams)} streams, {len(seeds.files)} files; ready after"
          f" {time.monotonic() - begin:.0f} s", flush=True)
    begin = shown = time.monotonic()
    tally, places = Tally(), Counter[str]()
    for part in _tallies(seeds, options, folder, begin + 60 * options.minutes):
        tally.add(part)
        for finding in part.findings:
            places[finding.place] += 1
            if places[finding.place] <= _SAVED_OF_A_PLACE:
                print(f"{finding.kind}: --seed {options.seed} --number {finding.number}:"
                      f" {finding.place}", flush=True)
                _save(options, finding, make_input(seeds, seed=options.seed,
                                                   number=finding.number))
        if time.monotonic() - shown > _SHOW_S:
            shown = time.monotonic()
            print(_line(tally, shown - begin), flush=True)
    _sum_up(options, tally, places, time.monotonic() - begin)
    return 1 if tally.findings else 0


def _prepared(folder: Path) -> Any:
    """The seeds, after every kernel was compiled, before there are children."""
    from tests.fuzz.muxers import raw
    from tests.fuzz.seeds import make_seeds
    from tests.fuzz.target import use

    seeds = make_seeds()
    for stream in seeds.streams:
        for number in range(12):
            with suppress(Exception):  # comes again, and is counted then
                use(raw([stream]), number, folder / "warm")
    return seeds


def _tallies(seeds: Any, options: argparse.Namespace, folder: Path, until: float) -> Iterator[Any]:
    """The tallies of all jobs, as they come."""
    context = multiprocessing.get_context("fork")
    queue: Any = context.Queue()
    jobs = [context.Process(target=_job, daemon=True,
                            args=(seeds, options, folder / str(job), job, queue, until))
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
    from tests.fuzz.mutate import make_input
    from tests.fuzz.target import use
    from tests.fuzz.workers import work_through

    def work(number: int) -> bool:
        return use(make_input(seeds, seed=options.seed, number=number), number, place)

    os.nice(5)
    parent = os.getppid()
    try:
        for tally in work_through(_batches(options, job), work, until=until):
            if os.getppid() != parent:  # killed: nobody reads what is put into the queue
                os._exit(1)
            queue.put(tally)
    finally:
        queue.put(None)


def _batches(options: argparse.Namespace, job: int) -> Iterator[range]:
    """Every job's share of the numbers, some hundred at a time."""
    first = _UNCHECKED_FROM if options.mode == "unchecked" else 0
    at = _BATCH * job
    while options.inputs is None or at < options.inputs:
        end = at + _BATCH if options.inputs is None else min(at + _BATCH, options.inputs)
        yield range(first + at, first + end)
        at += _BATCH * options.jobs


def _save(options: argparse.Namespace, finding: Any, content: bytes) -> None:
    if options.out is None:
        return
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{finding.kind}-{options.seed}-{finding.number}.bin"
    path.write_bytes(content)
    path.with_suffix(".txt").write_text(finding.what, encoding="utf-8")


def _sum_up(
    options: argparse.Namespace, tally: Any, places: Counter[str], wall_s: float
) -> None:
    print(_line(tally, wall_s))
    summary = {"seed": options.seed, "mode": options.mode, "inputs": tally.inputs,
               "answered": tally.answered, "cpu_s": round(tally.cpu_s, 1),
               "wall_s": round(wall_s, 1),
               "findings": dict(Counter(finding.kind for finding in tally.findings)),
               "places": dict(places)}
    print(json.dumps(summary), flush=True)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"summary-{options.seed}-{options.mode}.json").write_text(
            json.dumps(summary, indent=1) + "\n")


def _line(tally: Any, wall_s: float) -> str:
    kinds = Counter(finding.kind for finding in tally.findings)
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "nothing found"
    return (f"{wall_s:6.0f} s  {tally.inputs} inputs, {tally.inputs / max(wall_s, 0.1):.0f}/s,"
            f" {tally.answered} answered, {tally.cpu_s:.0f} s of CPU; {found}")


# ---- one input

def _single(options: argparse.Namespace, folder: Path) -> int:
    from tests.fuzz.mutate import make_input
    from tests.fuzz.seeds import make_seeds
    from tests.fuzz.target import use

    content = make_input(make_seeds(), seed=options.seed, number=options.number)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / f"{options.seed}-{options.number}.bin").write_bytes(content)
    print("answered" if use(content, options.number, folder / "input") else "refused")
    return 0


def _minimise(options: argparse.Namespace, folder: Path) -> int:
    from tests.fuzz.minimise import minimised

    path: Path = options.minimise
    number = int(path.stem.rsplit("-", 1)[-1])
    smaller = minimised(path.read_bytes(), number, folder / "input")
    if smaller is None:
        print(f"{path} does nothing that must not be")
        return 1
    out = path.with_name(f"small-{path.name}")
    out.write_bytes(smaller)
    print(f"{out}: {path.stat().st_size} bytes, now {len(smaller)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
