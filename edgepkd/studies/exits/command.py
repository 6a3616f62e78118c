"""Runs the study from the command line; started again, it goes on where it stopped.

    python -m edgepkd.studies.exits --data ../shared/data --out runs/reproduce

Progress goes to stderr and to OUT/progress.log; results to docs/results/reproduce.{json,md}.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgepkd.errors import EdgepkdError
from edgepkd.studies.exits.flatness import flatness_job, read_flatness
from edgepkd.studies.exits.jobs import unit_job
from edgepkd.studies.exits.report import compute, write
from edgepkd.studies.exits.tables import read_answers
from edgepkd.studies.study import Study, load_study
from edgepkd.studies.units import in_turn, run_jobs, units_by_set
from edgepkd.text import shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        study = load_study(options.study)
        if options.report_only:
            study = _done_part(study, options)
        reproduce(study, options)
    except EdgepkdError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edgepkd.studies.exits", description=__doc__)
    add = parser.add_argument
    add("--study", default="reproduce", help="recipe of calibration/, or the path of a .toml file")
    add("--quick", dest="study", action="store_const", const="reproduce-quick",
        help="a few minutes: shows that the study runs, not what it finds")
    add("--data", type=Path, default=Path("../shared/data"), help="folder with labelled clips")
    add("--out", type=Path, default=Path("runs/reproduce"), help="where networks and answers go")
    add("--cache", type=Path, default=Path("runs/cache"), help="where decoded clips are kept")
    add("--results", type=Path, default=Path("docs/results"), help="where the tables go")
    add("--jobs", type=int, default=2, help="processes, one thread each")
    add("--report-only", action="store_true",
        help="tables of the trunk seeds that are done, nothing is trained")
    return parser


def reproduce(study: Study, options: argparse.Namespace) -> None:
    """Train what is not there yet, measure flatness, write the tables.

    Raises:
        EdgepkdError: what went wrong; all that is done is kept.
    """
    by_set = units_by_set(study, data=options.data, out=options.out, cache=options.cache)
    jobs = [partial(unit_job, unit) for unit in in_turn(by_set)]
    first = [unit for units in by_set for unit in units if unit.part.name.endswith("-fold0")]
    jobs += [partial(flatness_job, unit, num_clips=study.flatness_clips,
                     num_probes=study.flatness_probes) for unit in first]
    if not options.report_only:
        run_jobs(jobs, processes=options.jobs, log=options.out / "progress.log")
    results = [
        compute(read_answers(plan, units),
                [read_flatness(u) for u in units if u.part.name.endswith("-fold0")])
        for plan, units in zip(study.sets, by_set, strict=True)
    ]
    name = Path(options.study).stem
    write(results, study, options.results, name=name)
    print(options.results / f"{name}.md")


def _done_part(study: Study, options: argparse.Namespace) -> Study:
    """The study with the trunk seeds of which every fold of every set is done."""
    done = [
        seed for seed in study.trunk_seeds
        if all(unit.answers_path(s).is_file()
               for units in units_by_set(replace(study, trunk_seeds=(seed,)), data=options.data,
                                         out=options.out, cache=options.cache)
               for unit in units for s in unit.exit_seeds)
    ]
    return replace(study, trunk_seeds=tuple(done))
