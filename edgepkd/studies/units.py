"""Folds of a study under its seeds, and the jobs that train them."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgepkd import plain_json
from edgepkd.cascade import Floats
from edgepkd.config import MODALITIES, Modality
from edgepkd.datasets.index import check_no_leak, group_folds, labels_of, read_index
from edgepkd.datasets.pools import Crash, LocalPool
from edgepkd.errors import TrainingError
from edgepkd.logits.metrics import Interval, mean_interval
from edgepkd.models.checkpoint import load_network
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.studies.parts import Part
from edgepkd.studies.study import SetPlan, Study


@dataclass(frozen=True)
class Unit:
    """One fold of one set under one trunk seed."""

    part: Part
    exit_seeds: tuple[int, ...]

    def answers_path(self, seed: int) -> Path:
        """Logits of the held-out clips, all arms."""
        return self.part.folder / self.part.name / f"answers-{seed}.npz"


def units_of(
    plan: SetPlan, *, trunk_seed: int, exit_seeds: tuple[int, ...], data: Path, out: Path,
    cache: Path,
) -> list[Unit]:
    """All folds of a set: every clip of the set is held out exactly once.

    The shipped split plays no part here: nothing was chosen on any of these answers.
    """
    recipe = replace(plan.recipe, seed=trunk_seed)
    samples = read_index(data / recipe.index, dataset=recipe.dataset)
    units = []
    for number, fold in enumerate(group_folds(samples, num_folds=recipe.num_folds, seed=1)):
        check_no_leak({"fitted": fold.fit, "held out": fold.held_out})
        units.append(Unit(Part(
            name=f"trunk{trunk_seed}-fold{number}", fit=fold.fit, answer=fold.held_out,
            labels=labels_of(samples), recipe=recipe, folder=out / recipe.name, cache=cache,
        ), exit_seeds))
    return units


def load_trunks(part: Part) -> dict[Modality, SegmentedNetwork]:
    """The three trunks of a part."""
    return {modality: load_network(part.network_path(modality).with_name(f"{modality}-trunk"))[0]
            for modality in MODALITIES}


def reset_head(head: Any) -> None:
    """Fresh weights, as of a new network."""
    for module in (head.conv, head.bn, head.fc):
        module.reset_parameters()
        if hasattr(module, "reset_running_stats"):
            module.reset_running_stats()


def is_done(path: Path, key: str) -> bool:
    """Whether the answers in `path` were made with the settings that `key` is the hash of."""
    try:
        with np.load(path, allow_pickle=False) as file:
            return bool(plain_json.loads(str(file["facts"]))["key"] == key)
    except (OSError, ValueError, KeyError, EOFError):
        return False


def units_by_set(study: Study, *, data: Path, out: Path, cache: Path) -> list[list[Unit]]:
    """Units of each set, trunk seed by trunk seed."""
    return [[unit for seed in study.trunk_seeds
             for unit in units_of(plan, trunk_seed=seed, exit_seeds=study.exit_seeds, data=data,
                                  out=out, cache=cache)] for plan in study.sets]


def in_turn(by_set: Sequence[Sequence[Unit]]) -> list[Unit]:
    """One unit of each set after the other: an early stop leaves some of all."""
    return [unit for row in zip_longest(*by_set) for unit in row if unit is not None]


def run_jobs(jobs: Sequence[Callable[[], str]], *, processes: int, log: Path) -> None:
    """Run `jobs` in processes; the first error stops the run, and nothing done is lost.

    Raises:
        EdgepkdError: that of a job. TrainingError: the process of a job died, twice.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    results = LocalPool(processes).run(_call, jobs)
    for number, (_, said) in enumerate(results, start=1):
        if isinstance(said, Crash):
            raise TrainingError(f"a job of the study failed: {said.reason}.",
                                hint="Start it again with fewer --jobs; it goes on from here.")
        line = f"{time.monotonic() - start:6.0f} s  {number:3d}/{len(jobs)}  {said}"
        print(line, file=sys.stderr, flush=True)
        with log.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")


def _call(job: Callable[[], str]) -> str:
    return job()



@dataclass(frozen=True, eq=False)
class Answered:
    """Held-out answers of one set: S seeds, N clips."""

    plan: SetPlan
    label_names: tuple[str, ...]
    seeds: tuple[str, ...]
    truth: NDArray[np.int64]
    """[N]"""
    groups: tuple[str, ...]
    folds: NDArray[np.int64]
    """[N]"""
    logits: Mapping[tuple[str, Modality], Floats]
    """(arm, modality) -> [S, N, 4, classes]."""
    seconds: Mapping[str, tuple[float, ...]]
    """Step -> its seconds in each fold."""

    def right(self, arm: str, modality: Modality) -> Floats:
        """Share of seeds that answer rightly, of each clip at each exit: [N, 4]."""
        answers = self.logits[arm, modality].argmax(axis=-1)
        shares: Floats = (answers == self.truth[None, :, None]).mean(axis=0)
        return shares

    def interval(self, values: Floats) -> Interval:
        """Mean of `values` [N] with its interval over groups."""
        return mean_interval(values, self.groups)
