"""The heavy part of the study: one job a fold, each step kept as soon as it is done.

A fold's trunks are trained once for each trunk seed; then every arm trains exits on the same
features, and answers the clips of the held-out groups. One thread a job.
"""

from __future__ import annotations

import io
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgepkd import plain_json
from edgepkd.config import MODALITIES, NUM_EXITS, Modality
from edgepkd.files import write_atomically
from edgepkd.models.segmented import SegmentedNetwork
from edgepkd.studies.parts import Part, backbone_job, load_clips
from edgepkd.studies.study import ARMS
from edgepkd.studies.units import Unit, is_done, load_trunks, reset_head
from edgepkd.training.exits import (
    CachedFeatures,
    CalibrationViews,
    Views,
    calibration_views,
    collect_views,
    label_rows,
    train_exits,
    view_plan,
)
from edgepkd.training.features import trunk_hash
from edgepkd.training.loop import hash_of, mix_seed

VERSION = 2
"""Raise it when the same settings would give other answers: old ones are then not used."""


def unit_job(unit: Unit) -> str:
    """Train what is not there yet; returns a line that says what was done."""
    torch.set_num_threads(1)
    seconds = {}
    for modality in MODALITIES:
        start = time.perf_counter()
        backbone_job(unit.part, modality)
        seconds[f"trunk_{modality}"] = round(time.perf_counter() - start, 1)
    networks = load_trunks(unit.part)
    keys = {seed: _key(unit, networks, seed) for seed in unit.exit_seeds}
    missing = [s for s in unit.exit_seeds if not is_done(unit.answers_path(s), keys[s])]
    if not missing:
        return f"{unit.part.recipe.name} {unit.part.name}: kept from an earlier run"
    start = time.perf_counter()
    ready = _Ready.of(unit.part, networks)
    seconds["features"] = round(time.perf_counter() - start, 1)
    for seed in missing:
        _answer(unit, ready, seed=seed, key=keys[seed], seconds=seconds)
    return (f"{unit.part.recipe.name} {unit.part.name}: "
            + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))


@dataclass(frozen=True, eq=False)
class _Ready:
    """All that heads need: made once, used by every arm and seed."""

    networks: Mapping[Modality, SegmentedNetwork]
    views: Mapping[Modality, Views]
    labels: torch.Tensor
    held_out: Mapping[Modality, CalibrationViews]
    last: Mapping[Modality, NDArray[np.float64]]
    """Exit-4 logits of the held-out clips, [N, classes]."""

    @staticmethod
    def of(part: Part, networks: Mapping[Modality, SegmentedNetwork]) -> _Ready:
        fit, answer = load_clips(part, part.fit), load_clips(part, part.answer)
        views = {m: collect_views(networks[m], fit.clips, view_plan(part.recipe, m))
                 for m in MODALITIES}
        held_out = {m: calibration_views(networks[m], answer, spec=part.recipe.inputs[m])
                    for m in MODALITIES}
        return _Ready(networks, views, label_rows(fit, num_views=part.recipe.exits.num_views),
                      held_out, {m: held_out[m].logits.double().numpy() for m in MODALITIES})


def _answer(
    unit: Unit, ready: _Ready, *, seed: int, key: str, seconds: dict[str, float]
) -> None:
    """Train the exits of all arms with one seed, and keep their answers."""
    arrays: dict[str, NDArray[np.float64]] = {}
    start = time.perf_counter()
    for arm in ARMS:
        for modality in MODALITIES:
            done = f"{arm.same_as(modality).name}/{modality}"
            if done not in arrays:
                arrays[done] = _train_arm(unit.part, ready, arm.recipe(unit.part.recipe.exits),
                                          modality, seed)
            arrays[f"{arm.name}/{modality}"] = arrays[done]
    seconds[f"exits_{seed}"] = round(time.perf_counter() - start, 1)
    facts = {"key": key, "groups": [s.group for s in unit.part.answer],
             "labels": unit.part.labels, "seconds": seconds}
    buffer = io.BytesIO()
    np.savez(buffer, facts=np.array(plain_json.dumps(facts)),
             truth=ready.held_out["mv"].labels.numpy(), **arrays)  # type: ignore[arg-type]
    write_atomically(unit.answers_path(seed), buffer.getvalue())


def _train_arm(
    part: Part, ready: _Ready, recipe: Any, modality: Modality, seed: int
) -> NDArray[np.float64]:
    """Logits [N, 4, classes] of the held-out clips."""
    network, features = ready.networks[modality], CachedFeatures(
        ready.views[modality], {m: ready.views[m].logits for m in MODALITIES})
    start = mix_seed(part.recipe.seed, part.name, modality, seed)  # the same for every arm
    torch.manual_seed(start)
    for index in range(NUM_EXITS - 1):
        reset_head(network.segments[index].head)
    train_exits(network, features, ready.labels, recipe=recipe, seed=start)
    own = ready.held_out[modality].exit_logits(network).double().numpy()
    return np.concatenate([own, ready.last[modality][:, None]], axis=1)


def _key(unit: Unit, networks: Mapping[Modality, SegmentedNetwork], seed: int) -> str:
    return hash_of({
        "version": VERSION, "seed": seed, "trunks": {m: trunk_hash(n) for m, n in networks.items()},
        "arms": [asdict(arm) for arm in ARMS], "exits": asdict(unit.part.recipe.exits),
        "clips": [s.sha256 or str(s.path) for s in (*unit.part.fit, *unit.part.answer)],
        "plans": [asdict(view_plan(unit.part.recipe, m)) for m in MODALITIES],
    })
