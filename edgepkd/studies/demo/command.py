"""Rebuilds one demo bundle from the command line.

    python -m edgepkd.studies.demo --set weizmann --data ../shared/data --out runs/demo

Reads the recipe `calibration/demo-SET.toml`; writes OUT/demo-SET.edgepkd, and on the way
OUT/demo-SET/ (checkpoints, logits) and runs/cache (decoded clips). Started again, it keeps the
networks that are there already. Progress goes to stderr, the final table to stdout.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

from rich.console import Console

from edgepkd.int8 import load_int8_recipe
from edgepkd.logits.report import format_report
from edgepkd.studies.command_line import command_parser, reported
from edgepkd.studies.demo.build import BuildSettings, build, cross_fit
from edgepkd.training.recipe import load_train_recipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = command_parser("edgepkd.studies.demo", __doc__, out="runs/demo")
    add = parser.add_argument
    add("--set", required=True, dest="name",
        help="recipe demo-SET of calibration/, or the path of a .toml file")
    add("--int8", default="int8", help="recipe of calibration/ to quantise by, or a .toml file")
    add("--allow-drift", action="store_true",
        help="write the bundle although the gate refuses its cascade; the manifest says so")
    add("--folds-only", action="store_true",
        help="stop after cross-fitting, to choose settings by; no test clip is looked at")
    return reported(partial(_build, parser.parse_args(arguments)))


def _build(options: argparse.Namespace) -> int:
    name = options.name if options.name.endswith(".toml") else f"demo-{options.name}"
    settings = BuildSettings(
        load_train_recipe(name), data=options.data, out=options.out, cache=options.cache,
        processes=options.jobs, int8=load_int8_recipe(options.int8),
        allow_drift=options.allow_drift, console=Console(stderr=True))
    if options.folds_only:
        print(format_report(cross_fit(settings)))
        return 0
    bundle, report = build(settings)
    print(format_report(report))
    settings.console.print(f"bundle: {bundle.path}", markup=False)
    return 0
