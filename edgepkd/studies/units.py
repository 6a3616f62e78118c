"""The folds of a study: every set under every seed, trained side by side in processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import torch

from edgepkd.datasets.index import (
    check_no_leak,
    group_folds,
    labels_of,
    read_index,
    split_samples,
)
from edgepkd.datasets.pools import Crash, LocalPool
from edgepkd.errors import TrainingError
from edgepkd.files import append_line
from edgepkd.models.segmented import Networks, SegmentedNetwork
from edgepkd.studies.parts import ExitInputs, Part
from edgepkd.studies.study import SetPlan, Study
from edgepkd.training.exits import internal_classifiers, train_exits
from edgepkd.training.loader import LabelledClips
from edgepkd.training.recipe import ExitRecipe


@dataclass(frozen=True)
class Unit:
    """One fold of one set under one trunk seed."""

    part: Part
    exit_seeds: tuple[int, ...]

    @property
    def title(self) -> str:
        """What progress calls it."""
        return f"{self.part.recipe.name} {self.part.name}"


def units_of(
    plan: SetPlan, *, trunk_seed: int, exit_seeds: tuple[int, ...], data: Path, out: Path,
    cache: Path, only_training: bool = False,
) -> list[Unit]:
    """All folds of a set: every clip of the set, or of its training split, is held out once.

    Of the whole set, the shipped split plays no part: nothing was chosen on any of these answers.

    Raises:
        DataError: the index in `data` is absent or wrong, or a fold leaks.
    """
    recipe = replace(plan.recipe, seed=trunk_seed)
    samples = read_index(data / recipe.index, dataset=recipe.dataset)
    if only_training:
        samples, _ = split_samples(samples)
    units = []
    for number, fold in enumerate(group_folds(samples, num_folds=recipe.num_folds, seed=1)):
        check_no_leak({"fitted": fold.fit, "held out": fold.held_out})
        units.append(Unit(Part(
            name=f"trunk{trunk_seed}-fold{number}", fit=fold.fit, answer=fold.held_out,
            labels=labels_of(samples), recipe=recipe, folder=out / recipe.name, cache=cache,
        ), exit_seeds))
    return units


def units_by_set(study: Study, *, data: Path, out: Path, cache: Path) -> list[list[Unit]]:
    """Units of each set, trunk seed by trunk seed."""
    return [[unit for seed in study.trunk_seeds
             for unit in units_of(plan, trunk_seed=seed, exit_seeds=study.exit_seeds, data=data,
                                  out=out, cache=cache, only_training=study.only_training)]
            for plan in study.sets]


def by_seed(units: Sequence[Unit]) -> list[list[Unit]]:
    """Folds of each trunk seed, in the order of `units`."""
    found: dict[int, list[Unit]] = {}
    for unit in units:
        found.setdefault(unit.part.recipe.seed, []).append(unit)
    return list(found.values())


def done_part(
    study: Study, by_set: Sequence[Sequence[Unit]], path: Callable[[Unit, int], Path]
) -> tuple[Study, list[list[Unit]]]:
    """The study with the trunk seeds of which every fold of every set has its `path(unit, exit
    seed)`, and their units.

    Raises:
        TrainingError: there is none.
    """
    missing = {unit.part.recipe.seed for units in by_set for unit in units
               for seed in unit.exit_seeds if not path(unit, seed).is_file()}
    done = tuple(seed for seed in study.trunk_seeds if seed not in missing)
    if not done:
        raise TrainingError("no trunk seed of the study has all its folds done.",
                            hint="Start it without --report-only; it goes on where it stopped.")
    return replace(study, trunk_seeds=done), [
        [unit for unit in units if unit.part.recipe.seed in done] for units in by_set]


def in_turn(by_set: Sequence[Sequence[Unit]]) -> list[Unit]:
    """One unit of each set after the other: an early stop leaves some of all."""
    return [unit for row in zip_longest(*by_set) for unit in row if unit is not None]


def files_by_seed(
    units: Sequence[Unit], path: Callable[[Unit, int], Path]
) -> dict[str, list[Path]]:
    """`path(unit, exit seed)` of all units, fold by fold for each 'TRUNK SEED/EXIT SEED'."""
    files: dict[str, list[Path]] = {}
    for unit in units:
        for seed in unit.exit_seeds:
            files.setdefault(f"{unit.part.recipe.seed}/{seed}", []).append(path(unit, seed))
    return files


# ---- what a job does


def train_new_exits(
    unit: Unit, network: SegmentedNetwork, inputs: ExitInputs, *, recipe: ExitRecipe, exit_seed: int
) -> None:
    """Train exits 1..3 of `network` in place, from fresh weights that `exit_seed` alone decides.

    Every arm and form of a unit starts at the same weights and sees the same batches.

    Raises:
        TrainingError: a loss is not finite.
    """
    modality = network.spec.modality
    start = unit.part.seed(modality, exit_seed)
    torch.manual_seed(start)
    for head in internal_classifiers(network):
        for module in (head.conv, head.bn, head.fc):
            module.reset_parameters()
    train_exits(network, inputs.features[modality], inputs.labels, recipe=recipe, seed=start)


def train_unit_exits(unit: Unit, networks: Networks, fit: LabelledClips) -> None:
    """Train exits 1..3 of all `networks` in place, as the unit's recipe says, on the clips `fit`.

    A unit has one exit seed here.
    """
    (seed,) = unit.exit_seeds
    inputs = ExitInputs.of(unit.part, networks, fit)
    for modality, network in networks.items():
        train_new_exits(unit, network, inputs, exit_seed=seed,
                        recipe=unit.part.recipe.exits_of(modality))


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds that the block takes to those of step `name`."""
    start = time.perf_counter()
    yield
    seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start


def listed_seconds(seconds: Mapping[str, float]) -> str:
    """`exits 3 s, ptq 1 s`."""
    return ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())


# ---- all jobs


def run_jobs(jobs: Sequence[Callable[[], str]], *, processes: int, log: Path) -> None:
    """Run `jobs` in processes; the first error stops the run, and nothing done is lost.

    What each job returns goes to stderr and, a line each, to `log`.

    Raises:
        EdgepkdError: that of a job. TrainingError: the process of a job died, twice.
    """
    start = time.monotonic()
    results = LocalPool(processes).run(_call, jobs)
    for number, (_, said) in enumerate(results, start=1):
        if isinstance(said, Crash):
            raise TrainingError(f"a job of the study failed: {said.reason}.",
                                hint="Start it again with fewer --jobs; it goes on from here.")
        line = f"{time.monotonic() - start:6.0f} s  {number:3d}/{len(jobs)}  {said}"
        print(line, file=sys.stderr, flush=True)
        append_line(log, line)


def _call(job: Callable[[], str]) -> str:
    return job()
