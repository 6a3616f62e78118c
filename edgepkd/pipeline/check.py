"""The verb `check`: what a bundle is good for on this machine, without trying."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgepkd.engines.check import TargetCheck, TargetVerdict


@dataclass(frozen=True)
class BundleCheck:
    """A bundle, and the engines in it."""

    path: Path
    verdict: TargetVerdict
    """The worst of all."""
    reasons: tuple[str, ...]
    """Why the bundle itself cannot be used; empty where it is whole."""
    targets: tuple[TargetCheck, ...]


def check(path: Path, *, target: str | None = None) -> BundleCheck:
    """Check a bundle and its engines for `target`, or for all targets that it has engines for.

    Raises:
        ConfigError: `target` is no recipe.
    """
    from edgepkd.bundle.reading import read_bundle
    from edgepkd.engines.check import VERDICTS, check_targets
    from edgepkd.engines.targets import load_target
    from edgepkd.errors import BundleError

    if target is not None:
        load_target(target)
    try:
        bundle = read_bundle(path)
    except BundleError as error:
        return BundleCheck(path, "cannot", (str(error),), ())
    targets = check_targets(bundle, target)
    worst = max((found.verdict for found in targets), key=VERDICTS.index, default=VERDICTS[0])
    return BundleCheck(path, worst, (), targets)
