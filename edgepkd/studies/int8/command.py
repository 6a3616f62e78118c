"""Runs the INT8 study from the command line; started again, it goes on where it stopped.

    python -m edgepkd.studies.int8 --data ../shared/data --out runs/reproduce

It uses the trunks of the study of exits where OUT has them. Progress goes to stderr and to
OUT/int8-progress.log; results to docs/results/int8.{json,md}.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from edgepkd.errors import EdgepkdError, TrainingError
from edgepkd.int8 import Int8Recipe, load_int8_recipe
from edgepkd.models.macs import clip_gmac
from edgepkd.studies.int8.jobs import int8_answers_path, int8_job
from edgepkd.studies.int8.report import compute, write
from edgepkd.studies.int8.tables import read_int8_answers
from edgepkd.studies.study import Study, load_study
from edgepkd.studies.units import Unit, in_turn, load_trunks, run_jobs, units_by_set
from edgepkd.text import shown

QUICK = {"finetune.epochs": 1, "calibration_clips": 4, "min_clips": 4}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        study = load_study("reproduce-quick" if options.quick else "reproduce")
        study = replace(study, exit_seeds=study.exit_seeds[:1])
        recipe = load_int8_recipe("int8", QUICK if options.quick else None)
        reproduce_int8(study, recipe, options)
    except EdgepkdError as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return error.exit_code
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edgepkd.studies.int8",
                                     description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true",
        help="a few minutes: shows that the study runs, not what it finds")
    add("--data", type=Path, default=Path("../shared/data"), help="folder with labelled clips")
    add("--out", type=Path, default=Path("runs/reproduce"), help="where networks and answers go")
    add("--cache", type=Path, default=Path("runs/cache"), help="where decoded clips are kept")
    add("--results", type=Path, default=Path("docs/results"), help="where the tables go")
    add("--jobs", type=int, default=2, help="processes, one thread each")
    add("--report-only", action="store_true",
        help="tables of the sets of which every fold is done, nothing is trained")
    return parser


def reproduce_int8(study: Study, recipe: Int8Recipe, options: argparse.Namespace) -> None:
    """Train and quantise what is not there yet, write the tables.

    Raises:
        EdgepkdError: what went wrong; all that is done is kept.
    """
    by_set = units_by_set(study, data=options.data, out=options.out, cache=options.cache)
    if options.report_only:
        study, by_set = _done_sets(study, by_set)
    else:
        run_jobs([partial(int8_job, unit, recipe=recipe) for unit in in_turn(by_set)],
                 processes=options.jobs, log=options.out / "int8-progress.log")
    results = [
        compute(read_int8_answers(plan, units),
                gmac=clip_gmac(load_trunks(units[0].part), plan.recipe.inputs))
        for plan, units in zip(study.sets, by_set, strict=True)
    ]
    name = "int8-quick" if options.quick else "int8"
    write(results, study, recipe, options.results, name=name)
    print(options.results / f"{name}.md")


def _done_sets(study: Study, by_set: Sequence[list[Unit]]) -> tuple[Study, list[list[Unit]]]:
    """The study with the sets of which every fold is done, and their units.

    Raises:
        TrainingError: there is none.
    """
    done = [(plan, units) for plan, units in zip(study.sets, by_set, strict=True)
            if all(int8_answers_path(unit).is_file() for unit in units)]
    if not done:
        raise TrainingError("no set of the study has all its folds done.",
                            hint="Start it without --report-only; it goes on where it stopped.")
    return replace(study, sets=tuple(plan for plan, _ in done)), [units for _, units in done]
