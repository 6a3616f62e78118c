"""`edgepkd check`: whether the engines of a bundle load here, and if not, what to do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edgepkd.cli import next_steps, options

if TYPE_CHECKING:
    from edgepkd.pipeline.check import BundleCheck

EXIT_CODES = {"ok": 0, "will rebuild": 3, "cannot": 1}


def check(
    bundle: Annotated[Path, typer.Argument(
        metavar="BUNDLE", help="A bundle NAME.edgepkd.")],
    target: Annotated[str | None, typer.Option(
        help="Target to check, a recipe of export/ such as jetson-orin-nano, or a .toml file;"
             " default: each that the bundle has engines for.")] = None,
    json: options.JsonLine = None,
    force: options.Force = False,
) -> None:
    """Check whether a bundle's engines can be used here.

    Needs no GPU and loads no engine. Exit code 0: they can. 3: they must be built again, by the
    command that is shown. 1: they can neither be used nor built here.
    """
    from dataclasses import asdict

    from edgepkd.cli import output
    from edgepkd.pipeline import check as verb

    target_file = [] if target is None else [Path(target)]
    place = output.json_target(json, force=force, reads=[bundle, *target_file])
    found = verb.check(bundle, target=target)
    with output.JsonLines(place) as lines:
        lines.write("check", {**asdict(found), "path": str(found.path)})
    if json != "-":
        _show(found)
    output.next_step(next_steps.after_check(bundle, found.verdict))
    raise typer.Exit(EXIT_CODES[found.verdict])


def _show(found: BundleCheck) -> None:
    from edgepkd.cli import output

    console = output.stdout()
    whole = "whole, every SHA-256 is right" if not found.reasons else "cannot be used"
    console.print(f"{found.path}: {whole}")
    for reason in found.reasons:
        console.print(f"  {reason}")
    if not found.targets and not found.reasons:
        console.print("  no engines in it; its segments run on the CPU as they are")
    for target in found.targets:
        console.print(f"{target.target}: {target.verdict}")
        for reason in target.reasons:
            console.print(f"  {reason}")
        for note in target.notes:
            console.print(f"  note: {note}")
        if target.command:
            console.print(f"  next: {target.command}")
