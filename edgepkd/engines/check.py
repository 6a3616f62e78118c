"""Whether the engines of a bundle can be loaded here, and if not, whether they can be built.

Looks at hashes and versions; deserialises nothing, and needs neither GPU nor torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgepkd import text
from edgepkd.bundle.engine_files import damaged, engine_targets, read_engines
from edgepkd.bundle.engine_match import (
    NO_GPU,
    NOT_FROM_HERE,
    foreign,
    outdated,
    rebuild_command,
    this_machine,
)
from edgepkd.bundle.engines import EngineSet
from edgepkd.bundle.reading import Bundle
from edgepkd.engines import graph
from edgepkd.engines.request import contents_of, overflows, too_wide
from edgepkd.engines.targets import Target, load_target, within
from edgepkd.errors import BundleError, ConfigError
from edgepkd.libraries.versions import library_version

TargetVerdict = Literal["ok", "will rebuild", "cannot"]
VERDICTS: tuple[TargetVerdict, ...] = ("ok", "will rebuild", "cannot")
"""From best to worst."""


@dataclass(frozen=True)
class TargetCheck:
    """What is found for one target."""

    target: str
    verdict: TargetVerdict
    reasons: tuple[str, ...]
    """All that speaks against loading the engines, or against building them."""
    command: str | None
    """Builds the engines anew; None where they are good, or cannot be built."""
    notes: tuple[str, ...] = ()


def check_targets(bundle: Bundle, target: str | None) -> tuple[TargetCheck, ...]:
    """Check `target`, or all that the bundle has engines for.

    Raises:
        ConfigError: `target` is no recipe.
    """
    if target is not None:
        return (check_target(bundle, load_target(target)),)
    checks = []
    for name in engine_targets(bundle.path):
        try:
            checks.append(check_target(bundle, load_target(name)))
        except ConfigError as error:
            checks.append(TargetCheck(name, "cannot", (error.message,), None))
    return tuple(checks)


def check_target(bundle: Bundle, target: Target) -> TargetCheck:
    """Check the engines of one target, and what they would be built from."""
    if target.builder == "onnx":
        return TargetCheck(target.name, "ok", (), None,
                           ("the ONNX files of the bundle are all there is to it",))
    version = library_version(target.library)
    engines, stale, notes = _look(bundle, target, version)
    against = _impossible(bundle, target, engines, version)
    if stale and target.is_this_board():
        against += _no_builder(target, version)
    if against:
        return TargetCheck(target.name, "cannot", (*against, *stale), None, notes)
    if not stale:
        return TargetCheck(target.name, "ok", (), None, notes)
    if not target.is_this_board():
        notes += ("its engines are built on the board itself: copy the bundle there",)
    command = rebuild_command(bundle.path, engines) if engines else (
        text.command("edgepkd", "export", bundle.path, "--target", target.name))
    return TargetCheck(target.name, "will rebuild", stale, command, notes)


def _look(
    bundle: Bundle, target: Target, version: str | None
) -> tuple[EngineSet | None, tuple[str, ...], tuple[str, ...]]:
    """The engines, why they must be built anew, and what else there is to say."""
    quantized = sum(map(graph.is_quantized, contents_of(bundle).values()))
    notes: tuple[str, ...] = (
        f"INT8 possible: {quantized} of {len(bundle.manifest.segments)} segments are"
        " quantised" if target.int8 else "this hardware has no INT8",)
    if target.name not in engine_targets(bundle.path):
        return None, ("it has no engines yet",), notes
    try:
        engines = read_engines(bundle.path, target.name)
    except BundleError as error:
        return None, (error.message,), notes
    if not engines.is_covered:
        notes += ("`edgepkd run` uses engines from elsewhere only with --trust-engines",)
    apart = foreign(engines, this_machine(target.library, version or "none"))
    if NO_GPU in apart:
        notes += (f"{NO_GPU}: compute capability not compared",)
    stale = (*damaged(bundle.path, engines), *outdated(engines, bundle.manifest),
             *(reason for reason in apart if reason != NO_GPU),
             *(() if engines.is_covered else (NOT_FROM_HERE,)))
    return engines, stale, notes


def _impossible(
    bundle: Bundle, target: Target, engines: EngineSet | None, version: str | None
) -> tuple[str, ...]:
    """What the engines were asked to be, and cannot be for this target."""
    if engines is None:
        return ()
    int8 = [name for name, plan in engines.plans.items() if plan.precision == "int8"]
    reasons = [reason for reason in too_wide(bundle, target) or overflows(bundle, target)
               if reason.split()[0] in int8]
    if int8 and not target.int8:
        reasons.append(f"{', '.join(int8)} in int8: the hardware of {target.name} has none")
    if engines.precision == "int8" and not any(
            map(graph.is_quantized, contents_of(bundle).values())):
        reasons.append("int8 was asked for, and no segment of the bundle is quantised now")
    dla = engines.flags.get("dla")
    if dla is not None and int8:
        reasons.append(f"{', '.join(int8)} in int8 on the DLA is known to answer wrongly")
    if dla is not None and not within(version or engines.built_on.library_version,
                                      target.dla_versions):
        reasons.append(f"DLA core {dla} of {target.name}: not with {target.library}"
                       f" {version or engines.built_on.library_version}")
    return tuple(reasons)


def _no_builder(target: Target, version: str | None) -> tuple[str, ...]:
    if version is None:
        return (f"{target.library} is not installed here, so nothing can be built",)
    if not target.accepts(version):
        return (f"{target.library} is {version} here; {target.name} takes"
                f" {' or '.join(target.versions)}",)
    return ()
