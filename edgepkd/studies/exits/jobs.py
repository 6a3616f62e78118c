"""The heavy part of the study: one job a fold, each step kept as soon as it is done.

A fold's trunks are trained once for each trunk seed; then every arm trains exits on the same
features, and answers the clips of the held-out groups. One thread a job.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from edgepkd.cascade import Floats
from edgepkd.config import MODALITIES, Modality, facts_of
from edgepkd.models.segmented import Networks
from edgepkd.studies.answered import EXITS, holds_answers, write_answers
from edgepkd.studies.parts import (
    TRUNK,
    ExitInputs,
    Part,
    backbone_job,
    contents,
    load_clips,
    load_networks,
    plan_facts,
)
from edgepkd.studies.study import ARMS
from edgepkd.studies.units import Unit, listed_seconds, timed, train_new_exits
from edgepkd.training.exits import CalibrationViews, calibration_views
from edgepkd.training.features import trunk_hash
from edgepkd.training.loop import hash_of
from edgepkd.training.recipe import ExitRecipe

VERSION = 2
"""Raise it when the same settings would give other answers: old ones are then not used."""


def answers_path(unit: Unit, seed: int) -> Path:
    """Logits of the held-out clips, all arms, with exits of one seed."""
    return unit.part.path(f"answers-{seed}.npz")


def unit_job(unit: Unit) -> str:
    """Train what is not there yet; returns a line that says what was done."""
    torch.set_num_threads(1)
    seconds: dict[str, float] = {}
    for modality in MODALITIES:
        with timed(seconds, f"trunk_{modality}"):
            backbone_job(unit.part, modality)
    networks = load_networks(unit.part, TRUNK)
    keys = {seed: _key(unit, networks, seed) for seed in unit.exit_seeds}
    missing = [s for s in unit.exit_seeds if not holds_answers(answers_path(unit, s), keys[s])]
    if not missing:
        return f"{unit.title}: kept from an earlier run"
    with timed(seconds, "features"):
        ready = _Ready.of(unit.part, networks)
    for seed in missing:
        with timed(seconds, f"{EXITS}_{seed}"):
            logits = _answers_of_all_arms(unit, ready, seed)
        write_answers(answers_path(unit, seed), unit.part, key=keys[seed], truth=ready.truth,
                      logits=logits, seconds=seconds)
    return f"{unit.title}: {listed_seconds(seconds)}"


@dataclass(frozen=True, eq=False)
class _Ready:
    """All that heads need: made once, used by every arm and seed."""

    networks: Networks
    inputs: ExitInputs
    held_out: Mapping[Modality, CalibrationViews]
    last: Mapping[Modality, Floats]
    """Exit-4 logits of the held-out clips, [N, classes]."""

    @staticmethod
    def of(part: Part, networks: Networks) -> _Ready:
        fit, answer = load_clips(part, part.fit), load_clips(part, part.answer)
        inputs = ExitInputs.of(part, networks, fit)
        held_out = {m: calibration_views(networks[m], answer, spec=part.recipe.inputs[m])
                    for m in MODALITIES}
        return _Ready(networks, inputs, held_out,
                      {m: held_out[m].logits.double().numpy() for m in MODALITIES})

    @property
    def truth(self) -> NDArray[np.int64]:
        """Label indices of the held-out clips, [N]."""
        labels: NDArray[np.int64] = self.held_out["mv"].labels.numpy()
        return labels


def _answers_of_all_arms(
    unit: Unit, ready: _Ready, seed: int
) -> dict[tuple[str, Modality], Floats]:
    """Train the exits of every arm with one seed; returns (arm, modality) -> [N, 4, classes]."""
    logits: dict[tuple[str, Modality], Floats] = {}
    for arm in ARMS:
        for modality in MODALITIES:
            same = (arm.same_as(modality).name, modality)
            if same not in logits:
                logits[same] = _answers(unit, ready, arm.recipe(unit.part.recipe.exits),
                                        modality, seed)
            logits[arm.name, modality] = logits[same]
    return logits


def _answers(
    unit: Unit, ready: _Ready, recipe: ExitRecipe, modality: Modality, seed: int
) -> Floats:
    """Logits [N, 4, classes] of the held-out clips."""
    network = ready.networks[modality]
    train_new_exits(unit, network, ready.inputs, recipe=recipe, exit_seed=seed)
    own = ready.held_out[modality].exit_logits(network).double().numpy()
    return np.concatenate([own, ready.last[modality][:, None]], axis=1)


def _key(unit: Unit, networks: Networks, seed: int) -> str:
    """Hash of all that the answers depend on."""
    return hash_of({
        "version": VERSION, "seed": seed, "trunks": {m: trunk_hash(n) for m, n in networks.items()},
        "arms": [asdict(arm) for arm in ARMS], "exits": facts_of(unit.part.recipe.exits),
        "clips": contents((*unit.part.fit, *unit.part.answer)),
        "plans": plan_facts(unit.part.recipe),
    })
