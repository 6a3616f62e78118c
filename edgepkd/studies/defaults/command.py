"""Runs the study of the defaults from the command line; started again, it goes on where it stopped.

    python -m edgepkd.studies.defaults --data ../shared/data --out runs/defaults

Progress goes to stderr and to OUT/progress.log; results to docs/results/defaults.{json,md}.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from itertools import chain

from edgepkd.datasets.index import read_index, split_samples
from edgepkd.models.macs import clip_gmac
from edgepkd.pipeline.motion_form import FormChoice
from edgepkd.pipeline.no_look_floor import floor_of_index
from edgepkd.studies.answered import read_answers
from edgepkd.studies.command_line import reported, study_parser
from edgepkd.studies.defaults.jobs import (
    FP32,
    answer_job,
    answers_path,
    settled,
    trunks_of,
)
from edgepkd.studies.defaults.report import write
from edgepkd.studies.defaults.rgb_floor import floor_job, read_floor
from edgepkd.studies.defaults.tables import SetResult, compute
from edgepkd.studies.parts import TRUNK, load_networks
from edgepkd.studies.study import SetPlan, load_study
from edgepkd.studies.units import Unit, by_seed, done_part, files_by_seed, run_jobs, units_by_set


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    options = study_parser("edgepkd.studies.defaults", __doc__, out="runs/defaults"
                           ).parse_args(arguments)
    return reported(partial(_carry_over, options))


def _carry_over(options: argparse.Namespace) -> int:
    """Train what is not there yet, seed by seed, and write the tables.

    Raises:
        EdgepkdError: what went wrong; all that is done is kept.
    """
    name = "defaults-quick" if options.quick else "defaults"
    study = load_study(name)
    by_set = units_by_set(study, data=options.data, out=options.out, cache=options.cache)
    if options.report_only:
        study, by_set = done_part(study, by_set, answers_path)
    else:
        run = partial(run_jobs, processes=options.jobs, log=options.out / "progress.log")
        run([partial(floor_job, by_seed(units)[0]) for units in by_set])
        for seed in range(len(study.trunk_seeds)):
            units = [by_seed(units)[seed] for units in by_set]
            run([job for unit in chain(*units) for job in trunks_of(unit)])
            run([partial(answer_job, unit) for folds in units for unit in settled(folds)[0]])
    results = [_result(options, plan, units)
               for plan, units in zip(study.sets, by_set, strict=True)]
    write(results, study, options.results, name=name)
    print(options.results / f"{name}.md")
    return 0


def _result(options: argparse.Namespace, plan: SetPlan, units: Sequence[Unit]) -> SetResult:
    found = [settled(folds) for folds in by_seed(units)]
    forms: list[FormChoice] = [form for _, form in found]
    gmac = [clip_gmac(load_networks(folds[0].part, TRUNK), folds[0].part.recipe.inputs)
            for folds, _ in found]
    index = options.data / plan.recipe.index
    train, _ = split_samples(read_index(index, dataset=plan.recipe.dataset))
    no_look, _ = floor_of_index(index, train)
    return compute(plan, read_answers(plan, files_by_seed(units, answers_path), forms=[FP32]),
                   forms=forms, gmac=gmac, no_look=no_look, floor=read_floor(by_seed(units)[0]))
