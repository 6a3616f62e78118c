"""Runs the INT8 study from the command line; started again, it goes on where it stopped.

    python -m edgepkd.studies.int8 --data ../shared/data --out runs/defaults

It quantises what `edgepkd train` makes: the networks of the study of the defaults, one seed, which
it takes from OUT where they are there. Progress goes to stderr and to
OUT/int8-progress.log; results to docs/results/int8.{json,md}.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from edgepkd.errors import TrainingError
from edgepkd.int8 import load_int8_recipe
from edgepkd.models.macs import clip_gmac
from edgepkd.studies.answered import read_answers
from edgepkd.studies.command_line import reported, study_parser
from edgepkd.studies.defaults.jobs import settled, trunks_of
from edgepkd.studies.int8.jobs import FORMS, answers_path, int8_job
from edgepkd.studies.int8.report import write
from edgepkd.studies.int8.tables import compute
from edgepkd.studies.parts import TRUNK, load_networks
from edgepkd.studies.study import Study, load_study
from edgepkd.studies.units import Unit, files_by_seed, in_turn, run_jobs, units_by_set

QUICK = {"finetune.epochs": 1, "calibration_clips": 4, "min_clips": 4}


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = study_parser("edgepkd.studies.int8", __doc__, out="runs/defaults"
                           ).parse_args(arguments)
    return reported(partial(_reproduce, options))


def _reproduce(options: argparse.Namespace) -> int:
    """Train and quantise what is not there yet, write the tables.

    Raises:
        EdgepkdError: what went wrong; all that is done is kept.
    """
    study = load_study("defaults-quick" if options.quick else "defaults")
    study = replace(study, trunk_seeds=study.trunk_seeds[:1], exit_seeds=study.exit_seeds[:1])
    recipe = load_int8_recipe("int8", QUICK if options.quick else None)
    by_set = units_by_set(study, data=options.data, out=options.out, cache=options.cache)
    run = partial(run_jobs, processes=options.jobs, log=options.out / "int8-progress.log")
    if options.report_only:
        study, by_set = _done_sets(study, by_set)
    else:
        run([job for unit in in_turn(by_set) for job in trunks_of(unit)])
    by_set = [settled(units)[0] for units in by_set]
    if not options.report_only:
        run([partial(int8_job, unit, recipe=recipe) for unit in in_turn(by_set)])
    results = [
        compute(read_answers(plan, files_by_seed(units, answers_path), forms=FORMS),
                gmac=clip_gmac(load_networks(units[0].part, TRUNK), plan.recipe.inputs))
        for plan, units in zip(study.sets, by_set, strict=True)
    ]
    name = "int8-quick" if options.quick else "int8"
    write(results, study, recipe, options.results, name=name)
    print(options.results / f"{name}.md")
    return 0


def _done_sets(study: Study, by_set: Sequence[list[Unit]]) -> tuple[Study, list[list[Unit]]]:
    """The study with the sets of which every fold is done, and their units.

    Raises:
        TrainingError: there is none.
    """
    done = [(plan, units) for plan, units in zip(study.sets, by_set, strict=True)
            if all(answers_path(unit, seed).is_file()
                   for unit in units for seed in unit.exit_seeds)]
    if not done:
        raise TrainingError("no set of the study has all its folds done.",
                            hint="Start it without --report-only; it goes on where it stopped.")
    return replace(study, sets=tuple(plan for plan, _ in done)), [units for _, units in done]
