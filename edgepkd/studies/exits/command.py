"""Runs the study of exits from the command line; started again, it goes on where it stopped.

    python -m edgepkd.studies.exits --data ../shared/data --out runs/reproduce

Progress goes to stderr and to OUT/progress.log; results to docs/results/reproduce.{json,md}.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from edgepkd.studies.answered import read_answers
from edgepkd.studies.command_line import reported, study_parser
from edgepkd.studies.exits.flatness import flatness_job, read_flatness
from edgepkd.studies.exits.jobs import answers_path, unit_job
from edgepkd.studies.exits.report import write
from edgepkd.studies.exits.tables import compute
from edgepkd.studies.study import ARMS, load_study
from edgepkd.studies.units import (
    Unit,
    done_part,
    files_by_seed,
    in_turn,
    run_jobs,
    units_by_set,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = study_parser("edgepkd.studies.exits", __doc__)
    parser.add_argument("--study", default="reproduce",
                        help="recipe of calibration/, or the path of a .toml file")
    return reported(partial(_reproduce, parser.parse_args(arguments)))


def _reproduce(options: argparse.Namespace) -> int:
    """Train what is not there yet, measure flatness, write the tables.

    Raises:
        EdgepkdError: what went wrong; all that is done is kept.
    """
    name = "reproduce-quick" if options.quick else options.study
    study = load_study(name)
    by_set = units_by_set(study, data=options.data, out=options.out, cache=options.cache)
    if options.report_only:
        study, by_set = done_part(study, by_set, answers_path)
    else:
        jobs = [partial(unit_job, unit) for unit in in_turn(by_set)]
        jobs += [partial(flatness_job, unit, num_clips=study.flatness_clips,
                         num_probes=study.flatness_probes)
                 for units in by_set for unit in _first_folds(units)]
        run_jobs(jobs, processes=options.jobs, log=options.out / "progress.log")
    results = [
        compute(read_answers(plan, files_by_seed(units, answers_path),
                             forms=[arm.name for arm in ARMS]),
                [read_flatness(unit) for unit in _first_folds(units)])
        for plan, units in zip(study.sets, by_set, strict=True)
    ]
    stem = Path(name).stem
    write(results, study, options.results, name=stem)
    print(options.results / f"{stem}.md")
    return 0


def _first_folds(units: Sequence[Unit]) -> list[Unit]:
    """One unit for each trunk seed, of which flatness is measured."""
    return [unit for unit in units if unit.part.name.endswith("-fold0")]
